"""The networks that are known by name: a new architecture is entered here and nowhere else."""

from randviz.networks.alexnet import ALEXNET, CAFFENET
from randviz.networks.filter_bank import (
    FILTER_BANK,
    POOLED_BANK,
    POOLED_FILTERS,
    RANDOM_FILTERS,
)
from randviz.networks.resnet import (
    RESNET18,
    RESNET18_PLAIN,
    RESNET34,
    RESNET34_PLAIN,
    RESNET50,
    RESNET50_PLAIN,
)
from randviz.networks.small import VARIANTS
from randviz.networks.vgg import VGG11, VGG13, VGG16, VGG19

_ALL = (
    *(VGG11, VGG13, VGG16, VGG19),
    *(ALEXNET, CAFFENET),
    *(RESNET18, RESNET34, RESNET50, RESNET18_PLAIN, RESNET34_PLAIN, RESNET50_PLAIN),
    *VARIANTS,
    *(FILTER_BANK, POOLED_BANK, RANDOM_FILTERS, POOLED_FILTERS),
)
NETWORKS = {network.name: network for network in _ALL}
