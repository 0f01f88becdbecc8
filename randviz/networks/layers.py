"""The layers that networks are made of, as values."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Conv:
    """A convolution of square kernels, then ReLU.

    Attributes:
      name: of the layer.
      channels: how many it gives.
      size: height and width of a kernel.
      border: how far the padding reaches beyond each edge.
      stride: positions from one output to the next.
      groups: in how many parts, blind to each other, the channels are divided.
    """

    name: str
    channels: int
    size: int = 3
    border: int = 1
    stride: int = 1
    groups: int = 1


@dataclasses.dataclass(frozen=True)
class Pool:
    """Pooling over square windows.

    Attributes:
      name: of the layer.
      size: height and width of a window.
      stride: positions from one window to the next.
    """

    name: str
    size: int = 2
    stride: int = 2
    border = 0


@dataclasses.dataclass(frozen=True)
class ResponseNorm:
    """Local response normalisation, see `conv.normalize_response`."""

    name: str
    size: int = 5
    bias: float = 1.0
    slope: float = 1e-4 / 5
    power: float = 0.75


@dataclasses.dataclass(frozen=True)
class Dense:
    """A fully connected layer over all positions, then ReLU unless it is the scores' layer."""

    name: str
    channels: int
    rectified: bool = True


Layer = Conv | Pool | ResponseNorm | Dense
