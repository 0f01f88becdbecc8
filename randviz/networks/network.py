"""Networks as values, and their features by layer name.

A network is a frozen value: layers in forward order and the conventions of its input. Its weights
are a separate pytree, `{layer: {"kernel": ..., "bias": ...}}`. One Flax module reads both.
"""

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp

from randviz.networks.conv import (
    CONVOLUTIONS,
    PADDING_MODES,
    POOLINGS,
    convolve,
    normalize_response,
    pool,
)
from randviz.types import Array, Features, Image, Params, UserError

PAPER_SCALE = 0.015  # σ of section 2
IMAGENET_MEAN = (123.68, 116.779, 103.939)  # RGB, 0 to 255


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


@dataclasses.dataclass(frozen=True)
class Network:
    """An architecture and the conventions of its input: hashable, so static under `jit`.

    Attributes:
      name: for people and files.
      layers: in forward order.
      fc_image_size: height and width, in pixels, that the fully connected layers need.
      pooling: "avg" or "max".
      padding: what lies beyond the border of every convolution: "zero", "reflect" or "periodic".
      input_offset: subtracted from pixel values in 0 to 255 before the first layer, one number or
        one for each of R, G, B; None leaves the choice to the task (and is 0 outside a task).
      input_scale: what the difference is multiplied by, likewise one number or three.
      channel_order: "RGB" or "BGR", in which the first layer gets the colours.
      convolution: how convolutions are computed, "auto", "direct" or "winograd" (see
        `conv.choose_method`): a matter of speed and rounding only.

    Raises:
      UserError: if pooling, padding, channel_order or convolution is none of the words above.
    """

    name: str
    layers: tuple[Layer, ...]
    fc_image_size: int | None = None
    pooling: str = "avg"
    padding: str = "zero"
    input_offset: float | tuple[float, float, float] | None = None
    input_scale: float | tuple[float, float, float] = 1.0
    channel_order: str = "RGB"
    convolution: str = "auto"

    def __post_init__(self):
        if self.pooling not in POOLINGS:
            raise UserError(f"pooling {self.pooling!r} is unknown; use {' or '.join(POOLINGS)}.")
        if self.padding not in PADDING_MODES:
            raise UserError(f"padding {self.padding!r} is unknown; use {', '.join(PADDING_MODES)}.")
        if self.channel_order not in ("RGB", "BGR"):
            raise UserError(f"channel order {self.channel_order!r} is unknown; use RGB or BGR.")
        if self.convolution not in CONVOLUTIONS:
            words = ", ".join(CONVOLUTIONS)
            raise UserError(f"convolution {self.convolution!r} is unknown; use {words}.")

    @property
    def layer_names(self) -> tuple[str, ...]:
        return tuple(layer.name for layer in self.layers)

    def canonical_name(self, layer: str) -> str:
        """The layer's name in this network: `relu4_1` means `conv4_1`.

        Raises:
          UserError: if the network has no such layer.
        """
        name = "conv" + layer[4:] if layer.startswith("relu") else layer
        if name not in self.layer_names:
            raise UserError(
                f"layer {layer!r} is not in {self.name}; it has {', '.join(self.layer_names)}."
            )
        return name

    def canonical_names(self, layers: tuple[str, ...]) -> tuple[str, ...]:
        """As `canonical_name`, for several layers, put in forward order.

        Raises:
          UserError: if there are none, one is unknown, or one is named twice.
        """
        names = [self.canonical_name(layer) for layer in layers]
        if not names:
            raise UserError(f"no layer is named; {self.name} has {', '.join(self.layer_names)}.")
        if len(set(names)) < len(names):
            raise UserError(f"layers {','.join(layers)} name a layer twice; name each once.")
        return tuple(sorted(names, key=self.layer_names.index))

    def with_offset(self, input_offset: float | tuple[float, float, float]) -> "Network":
        """This network with an input offset, unless it has one already."""
        if self.input_offset is not None:
            return self
        return dataclasses.replace(self, input_offset=input_offset)

    def for_one_evaluation(self) -> "Network":
        """This network, its convolutions computed in the way that is soonest compiled.

        For what is evaluated once, where the time to compile is what counts.
        """
        return dataclasses.replace(self, convolution="direct")

    def last_convolutional(self) -> str:
        """The last layer before the fully connected ones."""
        return next(layer.name for layer in reversed(self.layers) if not isinstance(layer, Dense))

    def up_to(self, layer: str) -> tuple[Layer, ...]:
        """The layers in forward order down to and including the one named."""
        return self.layers[: self.layer_names.index(self.canonical_name(layer)) + 1]

    def smallest_side(self, layer: str, positions: int = 1) -> int:
        """The smallest image that reaches a layer.

        Args:
          layer: any.
          positions: how many positions a side the layer, or the last one before it that has some,
            is to have.

        Returns:
          Height or width of the image, in pixels.
        """
        side = positions
        for step in reversed(self.up_to(layer)):
            if isinstance(step, Conv | Pool):
                side = (side - 1) * step.stride + step.size - 2 * step.border
                # Reflecting one pixel beyond the border needs two within it.
                side = max(side, 1 + step.border * (self.padding == "reflect"))
        return side

    def check_image(self, shape: tuple[int, ...], layer: str) -> None:
        """Says whether an image of this shape reaches the layer.

        Args:
          shape: (H, W, 3).
          layer: the deepest layer wanted.

        Raises:
          UserError: if the shape is not (H, W, 3), the image is too small for the windows
            before the layer, or it is not of the one size that fully connected layers take.
        """
        if len(shape) != 3 or shape[2] != 3:
            raise UserError(f"an image has shape (height, width, 3), not {tuple(shape)}.")
        height, width = shape[:2]
        path = self.up_to(layer)
        smallest = self.smallest_side(layer)
        if min(height, width) < smallest:
            raise UserError(
                f"the image is {width}×{height} pixels, too small for layer {layer!r}, which needs"
                f" {smallest} a side; take a larger image or a shallower layer."
            )
        if isinstance(path[-1], Dense) and {height, width} != {self.fc_image_size}:
            raise UserError(
                f"the image is {width}×{height} pixels, but layer {layer!r} is fully connected and"
                f" needs exactly {self.fc_image_size}×{self.fc_image_size}; cut out a square and"
                f" scale it to that (--square --image_size={self.fc_image_size})."
            )


def _vgg19_layers():
    for block, (depth, channels) in enumerate(((2, 64), (2, 128), (4, 256), (4, 512), (4, 512)), 1):
        for index in range(1, depth + 1):
            yield Conv(f"conv{block}_{index}", channels)
        yield Pool(f"pool{block}")
    yield Dense("fc6", 4096)
    yield Dense("fc7", 4096)
    yield Dense("fc8", 1000, rectified=False)


def _alexnet_layers(order):
    for step in order.split():
        yield {
            "conv1": Conv("conv1", 96, size=11, border=0, stride=4),
            "conv2": Conv("conv2", 256, size=5, border=2, groups=2),
            "conv3": Conv("conv3", 384),
            "conv4": Conv("conv4", 384, groups=2),
            "conv5": Conv("conv5", 256, groups=2),
        }.get(step) or (Pool(step, size=3) if step.startswith("pool") else ResponseNorm(step))
    yield Dense("fc6", 4096)
    yield Dense("fc7", 4096)
    yield Dense("fc8", 1000, rectified=False)


VGG19 = Network("vgg19", tuple(_vgg19_layers()), fc_image_size=256)
# Krizhevsky, Sutskever, Hinton (2012), section 3: windows of 3 at stride 2, in two groups.
# Differs: the normalisation's constants are Caffe's, whose weights are the ones that people have.
ALEXNET = Network(
    "alexnet",
    tuple(_alexnet_layers("conv1 norm1 pool1 conv2 norm2 pool2 conv3 conv4 conv5 pool5")),
    fc_image_size=227,
    pooling="max",
)
# Caffe's reference network, which Mahendran and Vedaldi (2015) inverted, normalises after pooling.
CAFFENET = dataclasses.replace(
    ALEXNET,
    name="caffenet",
    layers=tuple(_alexnet_layers("conv1 pool1 norm1 conv2 pool2 norm2 conv3 conv4 conv5 pool5")),
)
NETWORKS = {network.name: network for network in (VGG19, ALEXNET, CAFFENET)}


class Weights(nn.Module):
    """The kernel and bias of one layer, and what was prepared of the kernel."""

    shape: tuple[int, ...]

    @nn.compact
    def __call__(self) -> tuple[Array, Array, Mapping[str, Array] | None]:
        kernel = self.param("kernel", nn.initializers.normal(PAPER_SCALE), self.shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, self.shape[-1:], jnp.float32)
        return kernel, bias, self.get_variable("params", "prepared")


class FeatureExtractor(nn.Module):
    """Runs a network as deep as the layers asked for, and no deeper.

    Attributes:
      network: the architecture.
      layers: canonical names.
    """

    network: Network
    layers: tuple[str, ...]

    @nn.compact
    def __call__(self, image: Image) -> Features:
        deepest = max(self.layers, key=self.network.layer_names.index)
        offset = jnp.asarray(self.network.input_offset or 0.0, jnp.float32)
        x = (255 * image - offset) * jnp.asarray(self.network.input_scale, jnp.float32)
        x = x if self.network.channel_order == "RGB" else x[..., ::-1]
        features = {}
        for layer in self.network.up_to(deepest):
            if isinstance(layer, Conv):
                channels = x.shape[-1] // layer.groups
                shape = (layer.size, layer.size, channels, layer.channels)
                kernel, bias, prepared = Weights(shape, name=layer.name)()
                maps = convolve(
                    x,
                    kernel,
                    padding=layer.border,
                    stride=layer.stride,
                    groups=layer.groups,
                    padding_mode=self.network.padding,
                    convolution=self.network.convolution,
                    prepared=prepared,
                )
                x = nn.relu(maps + bias)
            elif isinstance(layer, Pool):
                x = pool(x, pooling=self.network.pooling, size=layer.size, stride=layer.stride)
            elif isinstance(layer, ResponseNorm):
                x = normalize_response(
                    x, size=layer.size, bias=layer.bias, slope=layer.slope, power=layer.power
                )
            else:
                kernel, bias, _ = Weights((x.size, layer.channels), name=layer.name)()
                x = (x.reshape(-1) @ kernel + bias)[None, None]
                x = nn.relu(x) if layer.rectified else x
            if layer.name in self.layers:
                features[layer.name] = x
        return features


def features(
    network: Network, params: Params, image: Image, layers: str | tuple[str, ...]
) -> Features:
    """Computes the rectified features of an image at the layers named.

    Args:
      network: the architecture.
      params: weights of all layers down to the deepest one named.
      image: [H, W, 3], RGB in [0, 1].
      layers: one name or several; `relu4_1` means `conv4_1`.

    Returns:
      {layer: [h, w, C]} under the canonical names: after the ReLU, pooling layers after pooling,
      fully connected ones as [1, 1, C], `fc8` unrectified.

    Raises:
      UserError: for an unknown layer, an image that does not reach it, or missing weights.

    Example:
      >>> import jax
      >>> from randviz.networks.weights import random_weights
      >>> params = random_weights(jax.random.key(0), VGG19, last_layer="conv2_1")
      >>> maps = features(VGG19, params, jnp.ones((12, 16, 3)), ("relu1_2", "pool1"))
      >>> {name: x.shape for name, x in maps.items()}
      {'conv1_2': (12, 16, 64), 'pool1': (6, 8, 64)}

    References:
      He, Wang, Hopcroft (2016), section 2, "Inverting deep representations": F^l.
    """
    layers = network.canonical_names((layers,) if isinstance(layers, str) else tuple(layers))
    network.check_image(image.shape, layers[-1])
    check_weights(network, params, layers[-1])
    return FeatureExtractor(network, layers).apply({"params": params}, image)


def check_weights(network: Network, params: Params, last_layer: str) -> None:
    """Says whether there are weights for all layers down to one.

    Args:
      network: the architecture.
      params: some or all of its weights.
      last_layer: the deepest layer wanted.

    Raises:
      UserError: naming the first layer that lacks them.
    """
    for layer in network.up_to(last_layer):
        if isinstance(layer, Conv | Dense) and layer.name not in params:
            raise UserError(
                f"the weights end before layer {layer.name!r}, which {last_layer!r} needs; draw or"
                f" load them down to there."
            )
