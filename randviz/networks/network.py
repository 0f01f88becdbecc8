"""Networks as values, and their features by layer name.

A network is a frozen value: layers in forward order and the conventions of its input. Its weights
are a separate pytree, `{layer: {"kernel": ..., "bias": ...}}`. One Flax module reads both.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from randviz.networks.conv import CONVOLUTIONS, PADDING_MODES, platform_of
from randviz.networks.extractor import IMAGE_LAYER, Extractor, LayerNames
from randviz.networks.fourier import SMALLEST_SIZE
from randviz.networks.layers import ACTIVATIONS, POOLINGS, Conv, Layer, Scope, walk_layers
from randviz.networks.rescaling import find_exponent, prepare_kernels, rescale_weights
from randviz.types import Array, Features, Image, Offset, Params, UserError

PAPER_SCALE = 0.015  # σ of section 2
IMAGENET_MEAN = (123.68, 116.779, 103.939)  # RGB, 0 to 255
_LARGE_SIDE = 2**12  # in pixels, of an image that reaches every layer
INITIALIZATIONS = ("auto", "normal", "he", "unit_norm")


@dataclasses.dataclass(frozen=True)
class Network(LayerNames):
    """An architecture and the conventions of its input: hashable, so static under `jit`.

    Attributes:
      name: for people and files.
      layers: in forward order. Beside them every network has a layer `image`, the input itself.
      fc_image_size: height and width, in pixels, that the fully connected layers need.
      pooling: "avg", "max" or "stride", see `layers.Pool`.
      padding_mode: what lies beyond the edge of every convolution: "zero", "reflect" or "periodic".
      activation: "relu", "leaky_relu", "elu", "gelu" or "none".
      initialization: how `weights.random_weights` draws kernels: "normal", "he", "unit_norm", or
        "auto", which is "normal" where `rescale_weights` can bring features to order one
        afterwards, and "he" elsewhere.
      input_offset: subtracted from pixel values in 0 to 255 before the first layer, one number or
        one for each of R, G, B; None leaves the choice to the task (and is 0 outside a task).
      input_scale: what the difference is multiplied by, likewise one number or three.
      channel_order: "RGB" or "BGR", in which the first layer gets the colours.
      convolution: how convolutions are computed, "auto", "direct", "winograd" or "fft" (see
        `conv.choose_method`): a matter of speed and rounding only.
      aliases: pairs of another name and the layer that it means.

    Raises:
      UserError: if pooling, padding_mode, activation, initialization, channel_order or convolution
        is none of the values above.
    """

    name: str
    layers: tuple[Layer, ...]
    fc_image_size: int | None = None
    pooling: str = "avg"
    padding_mode: str = "zero"
    activation: str = "relu"
    initialization: str = "auto"
    input_offset: Offset | None = None
    input_scale: Offset = 1.0
    channel_order: str = "RGB"
    convolution: str = "auto"
    aliases: tuple[tuple[str, str], ...] = ()

    def __post_init__(self):
        known = {
            "pooling": POOLINGS,
            "padding_mode": PADDING_MODES,
            "activation": ACTIVATIONS,
            "initialization": INITIALIZATIONS,
            "channel_order": ("RGB", "BGR"),
            "convolution": CONVOLUTIONS,
        }
        for field, values in known.items():
            if getattr(self, field) not in values:
                raise UserError(
                    f"{field.replace('_', ' ')} {getattr(self, field)!r} is unknown; use"
                    f" {', '.join(values)}."
                )

    @property
    def layer_names(self) -> tuple[str, ...]:
        return (IMAGE_LAYER, *(layer.name for layer in walk_layers(self.layers)))

    @property
    def rescalable(self) -> bool:
        """Whether factors of kernels are but factors of features, see `rescale_weights`."""
        homogeneous = ACTIVATIONS[self.activation].homogeneous
        return homogeneous and all(layer.rescalable for layer in self.layers)

    def canonical_name(self, layer: str) -> str:
        """The layer's name in this network: `relu4_1` means `conv4_1`, and aliases are resolved.

        Raises:
          UserError: if the network has no such layer.
        """
        other = dict(self.aliases).get(layer, layer)
        other = "conv" + other[4:] if other.startswith("relu") else other
        return super().canonical_name(other if other in self.layer_names else layer)

    def with_offset(self, input_offset: Offset) -> "Network":
        """This network with an input offset, unless it has one already."""
        if self.input_offset is not None:
            return self
        return dataclasses.replace(self, input_offset=input_offset)

    def for_one_evaluation(self) -> "Network":
        """This network, its convolutions computed in the way that is soonest compiled.

        For what is evaluated once, where the time to compile is what counts.
        """
        steps = [layer for layer in walk_layers(self.layers) if isinstance(layer, Conv)]
        if any(step.stride == 1 and step.kernel_size >= SMALLEST_SIZE for step in steps):
            # Directly, large kernels take longer than anything takes to compile.
            return self
        return dataclasses.replace(self, convolution="direct")

    def last_convolutional(self) -> str:
        """The last layer before the fully connected ones."""
        return next(layer.name for layer in reversed(self.layers) if not layer.needs_fixed_size)

    def up_to(self, layer: str) -> tuple[Layer, ...]:
        """The layers in forward order down to and including the one named, or the one it is in."""
        layer = self.canonical_name(layer)
        if layer == IMAGE_LAYER:
            return ()
        for count, step in enumerate(self.layers, 1):
            if any(inner.name == layer for inner in walk_layers((step,))):
                return self.layers[:count]
        raise AssertionError(f"{layer} has a name but no place")

    @property
    def scale_layers(self) -> tuple[str, ...]:
        """The first layer with weights, or block of layers, at each resolution.

        Example:
          >>> from randviz.networks.catalog import NETWORKS
          >>> NETWORKS["vgg16"].scale_layers
          ('conv1_1', 'conv2_1', 'conv3_1', 'conv4_1', 'conv5_1')
          >>> NETWORKS["resnet18"].scale_layers[:3]
          ('conv1', 'stage1_block1', 'stage2_block1')
        """
        found: dict[int, str] = {}
        side = _LARGE_SIDE
        for layer in self.layers:
            if layer.needs_fixed_size:
                break
            side = layer.output_side(side)
            if layer.has_weights or layer.branches:
                found.setdefault(side, layer.name)
        return tuple(found.values())

    def weighted_layers(self, last_layer: str) -> tuple[Layer, ...]:
        """The layers with weights in forward order down to one, those inside others included."""
        return tuple(layer for layer in walk_layers(self.up_to(last_layer)) if layer.has_weights)

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
            if not step.needs_fixed_size:
                side = step.input_side(side, padding_mode=self.padding_mode)
        return side

    def feature_shape(self, shape: tuple[int, ...], layer: str) -> tuple[int, int, int]:
        """The shape of a layer's features, found without weights.

        Args:
          shape: (H, W, 3) of the image.
          layer: any.

        Returns:
          (h, w, C).
        """
        return self.feature_shapes(shape, (layer,))[self.canonical_name(layer)]

    def feature_shapes(
        self, shape: tuple[int, ...], layers: Sequence[str]
    ) -> dict[str, tuple[int, int, int]]:
        """As `feature_shape`, of several layers at once: {canonical name: (h, w, C)}."""
        module = FeatureExtractor(self.for_one_evaluation(), self.canonical_names(layers))
        key = jax.eval_shape(jax.random.key, 0)
        image = jax.ShapeDtypeStruct(tuple(shape), jnp.float32)
        features, _ = jax.eval_shape(module.init_with_output, key, image)
        return {name: maps.shape for name, maps in features.items()}

    def check_image(self, shape: tuple[int, ...], layer: str) -> None:
        """See `LayerNames.check_image`; fully connected layers take images of one size only."""
        super().check_image(shape, layer)
        height, width = shape[:2]
        path = self.up_to(layer)
        smallest = self.smallest_side(layer)
        if min(height, width) < smallest:
            raise UserError(
                f"the image is {width}×{height} pixels, too small for layer {layer!r}, which needs"
                f" {smallest} a side; take a larger image or a shallower layer."
            )
        if path and path[-1].needs_fixed_size and {height, width} != {self.fc_image_size}:
            raise UserError(
                f"the image is {width}×{height} pixels, but layer {layer!r} is fully connected and"
                f" needs exactly {self.fc_image_size}×{self.fc_image_size}; cut out a square and"
                f" scale it to that (--square --image_size={self.fc_image_size})."
            )

    def check_weights(self, params: Params, last_layer: str) -> None:
        """Checks that there are weights for all layers down to one.

        Args:
          params: some or all of the weights.
          last_layer: the deepest layer wanted.

        Raises:
          UserError: naming the first layer that lacks them.
        """
        for layer in self.weighted_layers(last_layer):
            if layer.name not in params:
                raise UserError(
                    f"the weights end before layer {layer.name!r}, which {last_layer!r} needs; draw"
                    f" or load them down to there."
                )

    def bind(self, params: Params) -> "BoundNetwork":
        """This architecture with weights: an extractor.

        Args:
          params: {layer: {"kernel": ..., "bias": ...}}, down to the deepest layer wanted.
        """
        return BoundNetwork(params, {}, self, platform_of(params))


class Weights(nn.Module):
    """The kernel and bias of one layer, and what was prepared of the kernel."""

    shape: tuple[int, ...]

    @nn.compact
    def __call__(self) -> tuple[Array, Array, Mapping[str, Array] | None]:
        kernel = self.param("kernel", nn.initializers.normal(PAPER_SCALE), self.shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, self.shape[-1:], jnp.float32)
        return kernel, bias, self.get_variable("prepared", "kernel")


class FeatureExtractor(nn.Module):
    """Runs a network as deep as the layers asked for, and no deeper.

    Attributes:
      network: the architecture.
      layers: canonical names.
      platform: where it is computed, see `conv.choose_method`; None is JAX's default device.
    """

    network: Network
    layers: tuple[str, ...]
    platform: str | None = None

    @nn.compact
    def __call__(self, image: Image) -> Features:
        deepest = max(self.layers, key=self.network.layer_names.index)
        offset = jnp.asarray(self.network.input_offset or 0.0, jnp.float32)
        x = (255 * image - offset) * jnp.asarray(self.network.input_scale, jnp.float32)
        x = x if self.network.channel_order == "RGB" else x[..., ::-1]
        read = lambda layer, shape: Weights(shape, name=layer)()
        scope = Scope(self.network, read, self.layers, {IMAGE_LAYER: image}, self.platform)
        scope.run(self.network.up_to(deepest), x)
        return scope.features


@struct.dataclass
class BoundNetwork(Extractor):
    """A network and its weights.

    Attributes:
      params: {layer: {"kernel": ..., "bias": ...}}.
      prepared: {layer: {"kernel": ...}}, what `conv.prepare_kernel` made of the kernels; a layer
        that is missing is prepared anew in each evaluation.
      network: the architecture; static.
      platform: where the weights were when they were bound, such as "cpu", on which it depends how
        convolutions are best computed; static.
    """

    params: Params
    prepared: Mapping[str, Mapping[str, Any]]
    network: Network = struct.field(pytree_node=False)
    platform: str | None = struct.field(pytree_node=False, default=None)

    @property
    def name(self) -> str:
        return self.network.name

    @property
    def layer_names(self) -> tuple[str, ...]:
        return self.network.layer_names

    def canonical_name(self, layer: str) -> str:
        return self.network.canonical_name(layer)

    def compute(self, image: Image, layers: tuple[str, ...]) -> Features:
        """See `Extractor.compute`; after the activation, and dense layers as [1, 1, C]."""
        self.network.check_weights(self.params, layers[-1])
        variables = {"params": self.params, "prepared": self.prepared}
        module = FeatureExtractor(self.network, layers, self.platform)
        features: Any = module.apply(variables, image)  # without a tuple, as nothing is mutable
        return features

    def check_image(self, shape: tuple[int, ...], layer: str) -> None:
        self.network.check_image(shape, layer)

    def with_offset(self, input_offset: Offset) -> "BoundNetwork":
        return dataclasses.replace(self, network=self.network.with_offset(input_offset))

    def prepare(
        self, layers: tuple[str, ...], shape: tuple[int, ...], *, rescale: bool = True
    ) -> "BoundNetwork":
        """Rescales the weights to the range that float32 likes and prepares the kernels.

        See `Extractor.prepare` and `rescaling.rescale_weights`.
        """
        self.network.check_weights(self.params, layers[-1])
        params = self.params
        if rescale:
            params, _ = rescale_weights(self.network, params, layers[-1])
        prepared = prepare_kernels(
            self.network, params, layers[-1], shape=shape, platform=self.platform
        )
        return dataclasses.replace(self, params=params, prepared=prepared)

    def for_one_evaluation(self) -> "BoundNetwork":
        return dataclasses.replace(self, network=self.network.for_one_evaluation())

    def scale_exponents(self, prepared: Any) -> dict[str, int]:
        found, exponent = {IMAGE_LAYER: 0}, 0
        for layer in walk_layers(self.network.layers):
            if layer.name in prepared.params:
                pair = self.params[layer.name]["kernel"], prepared.params[layer.name]["kernel"]
                exponent += find_exponent(*pair)
            found[layer.name] = exponent
        return found


def features(
    network: Network, params: Params, image: Image, layers: str | Sequence[str]
) -> Features:
    """Computes the features of an image at the layers named.

    Args:
      network: the architecture.
      params: weights of all layers down to the deepest one named.
      image: [H, W, 3], RGB in [0, 1].
      layers: one name or several; `relu4_1` means `conv4_1`.

    Returns:
      {layer: [h, w, C]} under the canonical names: after the activation, pooling layers after
      pooling, fully connected ones as [1, 1, C], `fc8` without activation.

    Raises:
      UserError: for an unknown layer, an image that does not reach it, or missing weights.

    Example:
      >>> import jax
      >>> from randviz.networks.vgg import VGG19
      >>> from randviz.networks.weights import random_weights
      >>> params = random_weights(jax.random.key(0), VGG19, last_layer="conv2_1")
      >>> maps = features(VGG19, params, jnp.ones((12, 16, 3)), ("relu1_2", "pool1"))
      >>> {name: x.shape for name, x in maps.items()}
      {'conv1_2': (12, 16, 64), 'pool1': (6, 8, 64)}

    References:
      He, Wang, Hopcroft (2016), section 2, "Inverting deep representations": F^l.
    """
    return network.bind(params)(image, layers)
