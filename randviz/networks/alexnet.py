"""AlexNet, and CaffeNet, which differs from it in the order of pooling and normalisation."""

import dataclasses
from collections.abc import Iterator

from randviz.networks.layers import Conv, Dense, Layer, Pool, ResponseNorm
from randviz.networks.network import Network


def _layers(order: str) -> Iterator[Layer]:
    for step in order.split():
        yield {
            "conv1": Conv("conv1", 96, kernel_size=11, padding=0, stride=4),
            "conv2": Conv("conv2", 256, kernel_size=5, padding=2, groups=2),
            "conv3": Conv("conv3", 384),
            "conv4": Conv("conv4", 384, groups=2),
            "conv5": Conv("conv5", 256, groups=2),
        }.get(step) or (
            Pool(step, window_size=3) if step.startswith("pool") else ResponseNorm(step)
        )
    yield Dense("fc6", 4096)
    yield Dense("fc7", 4096)
    yield Dense("fc8", 1000, activated=False)


# Krizhevsky, Sutskever, Hinton (2012), section 3: windows of 3 at stride 2, in two groups.
# Differs: the normalisation's constants are Caffe's, whose weights are the ones that people have.
ALEXNET = Network(
    "alexnet",
    tuple(_layers("conv1 norm1 pool1 conv2 norm2 pool2 conv3 conv4 conv5 pool5")),
    fc_image_size=227,
    pooling="max",
    initialization="normal",
)
# Caffe's reference network, which Mahendran and Vedaldi (2015) inverted, normalises after pooling.
CAFFENET = dataclasses.replace(
    ALEXNET,
    name="caffenet",
    layers=tuple(_layers("conv1 pool1 norm1 conv2 pool2 norm2 conv3 conv4 conv5 pool5")),
)
