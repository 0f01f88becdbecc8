"""VGG networks: blocks of 3×3 convolutions, each followed by pooling."""

from collections.abc import Iterator, Sequence

from randviz.networks.layers import Conv, Dense, Layer, Pool
from randviz.networks.network import Network

_CHANNELS = (64, 128, 256, 512, 512)


def _vgg(name: str, depths: Sequence[int]) -> Network:
    """A VGG network of blocks of so many convolutions."""
    return Network(name, tuple(_layers(depths)), fc_image_size=256)


def _layers(depths: Sequence[int]) -> Iterator[Layer]:
    for block, (depth, channels) in enumerate(zip(depths, _CHANNELS, strict=True), 1):
        for index in range(1, depth + 1):
            yield Conv(f"conv{block}_{index}", channels)
        yield Pool(f"pool{block}")
    yield Dense("fc6", 4096)
    yield Dense("fc7", 4096)
    yield Dense("fc8", 1000, activated=False)


# Simonyan and Zisserman (2015), table 1: configurations A, B, D and E.
VGG11 = _vgg("vgg11", (1, 1, 2, 2, 2))
VGG13 = _vgg("vgg13", (2, 2, 2, 2, 2))
VGG16 = _vgg("vgg16", (2, 2, 3, 3, 3))
VGG19 = _vgg("vgg19", (2, 2, 4, 4, 4))
