"""Residual networks, with skip connections and without.

Batch normalisation is folded into the convolutions when trained weights are loaded; a random
network has none.
"""

from collections.abc import Iterator, Sequence

from randviz.networks.layers import Block, Conv, Layer, Pool
from randviz.networks.network import Network

_CHANNELS = (64, 128, 256, 512)
_EXPANSION = 4  # channels of a bottleneck block for one of its 3×3 convolution


def _basic(name: str, channels: int, stride: int, *, widens: bool, skip: bool) -> Block:
    """Two 3×3 convolutions."""
    body = (
        Conv(f"{name}_conv1", channels, stride=stride),
        Conv(f"{name}_conv2", channels, activated=False),
    )
    return Block(name, body, _shortcut(name, channels, stride, widens) if skip else None)


def _bottleneck(name: str, channels: int, stride: int, *, widens: bool, skip: bool) -> Block:
    """A 3×3 convolution between two of 1×1, the second of them to four times the channels."""
    outputs = _EXPANSION * channels
    body = (
        Conv(f"{name}_conv1", channels, kernel_size=1, padding=0),
        # Differs from He et al.: the stride is the 3×3 convolution's, as in the weights that people
        # have.
        Conv(f"{name}_conv2", channels, stride=stride),
        Conv(f"{name}_conv3", outputs, kernel_size=1, padding=0, activated=False),
    )
    return Block(name, body, _shortcut(name, outputs, stride, widens) if skip else None)


def _shortcut(name: str, channels: int, stride: int, widens: bool) -> tuple[Layer, ...]:
    if not widens:
        return ()
    return (
        Conv(
            f"{name}_shortcut", channels, kernel_size=1, padding=0, stride=stride, activated=False
        ),
    )


def _layers(depths: Sequence[int], make_block, *, skip: bool) -> Iterator[Layer]:
    yield Conv("conv1", 64, kernel_size=7, padding=3, stride=2)
    yield Pool("pool1", window_size=3, stride=2, padding=1)
    for stage, (depth, channels) in enumerate(zip(depths, _CHANNELS, strict=True), 1):
        for index in range(1, depth + 1):
            widens = index == 1 and (stage > 1 or make_block is _bottleneck)
            stride = 2 if index == 1 and stage > 1 else 1
            name = f"stage{stage}_block{index}"
            yield make_block(name, channels, stride, widens=widens, skip=skip)


def _resnet(name: str, depths: Sequence[int], make_block, *, skip: bool = True) -> Network:
    """A residual network of stages of so many blocks; `stage1` names its last block."""
    stages = enumerate(depths, 1)
    return Network(
        name,
        tuple(_layers(depths, make_block, skip=skip)),
        pooling="max",
        aliases=tuple((f"stage{stage}", f"stage{stage}_block{depth}") for stage, depth in stages),
    )


# He, Zhang, Ren, Sun (2016), "Deep residual learning for image recognition", table 1, without the
# scores' layer.
RESNET18 = _resnet("resnet18", (2, 2, 2, 2), _basic)
RESNET34 = _resnet("resnet34", (3, 4, 6, 3), _basic)
RESNET50 = _resnet("resnet50", (3, 4, 6, 3), _bottleneck)
# The same convolutions in a row, the paper's "plain" networks; it has none of bottlenecks.
RESNET18_PLAIN = _resnet("resnet18_plain", (2, 2, 2, 2), _basic, skip=False)
RESNET34_PLAIN = _resnet("resnet34_plain", (3, 4, 6, 3), _basic, skip=False)
RESNET50_PLAIN = _resnet("resnet50_plain", (3, 4, 6, 3), _bottleneck, skip=False)
