"""Networks as values, their features by layer name, and random weights from keys.

A network is a frozen value: layers in forward order and the conventions of its input. Its weights
are a separate pytree, `{layer: {"kernel": ..., "bias": ...}}`. One Flax module reads both.
"""

import dataclasses
import functools
import zlib

import flax.linen as nn
import jax
import jax.numpy as jnp

from randviz.conv import PADDINGS, POOLINGS, adjoint_kernel, convolve, pool
from randviz.gaussian import draw_gaussians
from randviz.types import Array, Features, Image, Key, Params, UserError

PAPER_SCALE = 0.015  # σ of section 2
IMAGENET_MEAN = (123.68, 116.779, 103.939)  # RGB, 0 to 255


@dataclasses.dataclass(frozen=True)
class Conv:
    """A convolution of square kernels, then ReLU."""

    name: str
    channels: int
    size: int = 3


@dataclasses.dataclass(frozen=True)
class Pool:
    """Pooling over 2×2 blocks."""

    name: str


@dataclasses.dataclass(frozen=True)
class Dense:
    """A fully connected layer over all positions, then ReLU unless it is the scores' layer."""

    name: str
    channels: int
    rectified: bool = True


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

    Raises:
      UserError: if pooling or padding is none of the words above.
    """

    name: str
    layers: tuple[Conv | Pool | Dense, ...]
    fc_image_size: int | None = None
    pooling: str = "avg"
    padding: str = "zero"
    input_offset: float | tuple[float, float, float] | None = None

    def __post_init__(self):
        if self.pooling not in POOLINGS:
            raise UserError(f"pooling {self.pooling!r} is unknown; use {' or '.join(POOLINGS)}.")
        if self.padding not in PADDINGS:
            raise UserError(f"padding {self.padding!r} is unknown; use {', '.join(PADDINGS)}.")

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

    def last_convolutional(self) -> str:
        """The last layer before the fully connected ones."""
        return next(layer.name for layer in reversed(self.layers) if not isinstance(layer, Dense))

    def up_to(self, layer: str) -> tuple[Conv | Pool | Dense, ...]:
        """The layers in forward order down to and including the one named."""
        return self.layers[: self.layer_names.index(self.canonical_name(layer)) + 1]

    def check_image(self, shape: tuple[int, ...], layer: str) -> None:
        """Says whether an image of this shape reaches the layer.

        Args:
          shape: (H, W, 3).
          layer: the deepest layer wanted.

        Raises:
          UserError: if the shape is not (H, W, 3), the image is too small for the poolings
            before the layer, or it is not of the one size that fully connected layers take.
        """
        if len(shape) != 3 or shape[2] != 3:
            raise UserError(f"an image has shape (height, width, 3), not {tuple(shape)}.")
        height, width = shape[:2]
        path = self.up_to(layer)
        # Reflecting one pixel beyond the border needs two within it.
        smallest = 2 ** sum(isinstance(step, Pool) for step in path)
        smallest *= 2 if self.padding == "reflect" else 1
        if min(height, width) < smallest:
            raise UserError(
                f"the image is {width}×{height} pixels, too small for layer {layer!r}, which needs"
                f" {smallest} a side; take a larger image or a shallower layer."
            )
        if isinstance(path[-1], Dense) and {height, width} != {self.fc_image_size}:
            raise UserError(
                f"the image is {width}×{height} pixels, but layer {layer!r} is fully connected and"
                f" needs exactly {self.fc_image_size}×{self.fc_image_size}."
            )


def _vgg19_layers():
    for block, (depth, channels) in enumerate(((2, 64), (2, 128), (4, 256), (4, 512), (4, 512)), 1):
        for index in range(1, depth + 1):
            yield Conv(f"conv{block}_{index}", channels)
        yield Pool(f"pool{block}")
    yield Dense("fc6", 4096)
    yield Dense("fc7", 4096)
    yield Dense("fc8", 1000, rectified=False)


VGG19 = Network("vgg19", tuple(_vgg19_layers()), fc_image_size=256)
NETWORKS = {VGG19.name: VGG19}


class Weights(nn.Module):
    """The kernel and bias of one layer, and its adjoint kernel if it was prepared."""

    shape: tuple[int, ...]

    @nn.compact
    def __call__(self) -> tuple[Array, Array, Array | None]:
        kernel = self.param("kernel", nn.initializers.normal(PAPER_SCALE), self.shape)
        bias = self.param("bias", nn.initializers.zeros, self.shape[-1:])
        return kernel, bias, self.get_variable("params", "adjoint")


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
        x = 255 * image - offset
        features = {}
        for layer in self.network.up_to(deepest):
            if isinstance(layer, Conv):
                shape = (layer.size, layer.size, x.shape[-1], layer.channels)
                kernel, bias, adjoint = Weights(shape, name=layer.name)()
                maps = convolve(x, kernel, padding=self.network.padding, adjoint=adjoint)
                x = nn.relu(maps + bias)
            elif isinstance(layer, Pool):
                x = pool(x, pooling=self.network.pooling)
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
      >>> params = random_weights(jax.random.key(0), VGG19, last_layer="conv2_1")
      >>> maps = features(VGG19, params, jnp.ones((12, 16, 3)), ("relu1_2", "pool1"))
      >>> {name: x.shape for name, x in maps.items()}
      {'conv1_2': (12, 16, 64), 'pool1': (6, 8, 64)}

    References:
      He, Wang, Hopcroft (2016), section 2, "Inverting deep representations": F^l.
    """
    layers = network.canonical_names((layers,) if isinstance(layers, str) else tuple(layers))
    network.check_image(image.shape, layers[-1])
    _check_weights(network, params, layers[-1])
    return FeatureExtractor(network, layers).apply({"params": params}, image)


def _check_weights(network: Network, params: Params, last_layer: str) -> None:
    for layer in network.up_to(last_layer):
        if not isinstance(layer, Pool) and layer.name not in params:
            raise UserError(
                f"the weights end before layer {layer.name!r}, which {last_layer!r} needs; draw or"
                f" load them down to there."
            )


def weight_shapes(network: Network, last_layer: str) -> dict[str, dict[str, tuple[int, ...]]]:
    """The shapes of all kernels and biases down to a layer, in forward order.

    Args:
      network: the architecture.
      last_layer: the deepest layer wanted.

    Returns:
      {layer: {"kernel": (s, s, C_in, C_out) or (inputs, C), "bias": (C,)}}.
    """
    layer = network.canonical_name(last_layer)
    size = network.fc_image_size or 64
    image = jax.ShapeDtypeStruct((size, size, 3), jnp.float32)
    variables = jax.eval_shape(FeatureExtractor(network, (layer,)).init, jax.random.key(0), image)
    shapes = jax.tree.map(lambda leaf: leaf.shape, variables.get("params", {}))
    return {step.name: shapes[step.name] for step in network.up_to(layer) if step.name in shapes}


@functools.partial(jax.jit, static_argnames=("network", "last_layer", "draws"))
def random_weights(
    key: Key,
    network: Network,
    *,
    scale: float | Array = PAPER_SCALE,
    bias_scale: float | Array = 0.0,
    last_layer: str | None = None,
    draws: tuple[int, ...] = (),
) -> Params:
    """Draws every kernel from N(0, σ).

    Each layer has a key of its own, made from its name, so the weights of a shallower cut of the
    network are the first layers of a deeper one, bit for bit.

    Args:
      key: one Threefry key for the whole network.
      network: the architecture.
      scale: σ, the standard deviation of the kernels.
      bias_scale: the standard deviation of the biases.
      last_layer: the deepest layer wanted; by default the last before the fully connected ones,
        which are large (VGG-19's fc6 alone has 134 million weights).
      draws: which draw of each layer, in forward order; layers beyond the last number are draw 0.
        A stacked network (see `selection`) is these numbers and the key.

    Returns:
      {layer: {"kernel": [s, s, C_in, C_out], "bias": [C_out]}}; dense kernels are [inputs, C].

    Example:
      >>> params = random_weights(jax.random.key(0), VGG19, last_layer="conv1_2")
      >>> params["conv1_2"]["kernel"].shape
      (3, 3, 64, 64)

    References:
      He, Wang, Hopcroft (2016), section 2: N(0, σ), σ = 0.015. The paper does not mention biases;
      they are zero by default.
    """
    shapes = weight_shapes(network, last_layer or network.last_convolutional())
    draws = draws + (0,) * (len(shapes) - len(draws))
    layer_keys = [draw_key(key, *which) for which in zip(shapes, draws, strict=False)]
    kernel_keys, bias_keys = zip(*map(jax.random.split, layer_keys), strict=True)
    kernels = draw_gaussians(kernel_keys, [shape["kernel"] for shape in shapes.values()])
    biases = draw_gaussians(bias_keys, [shape["bias"] for shape in shapes.values()])
    return {
        layer: {"kernel": scale * kernel, "bias": bias_scale * bias}
        for layer, kernel, bias in zip(shapes, kernels, biases, strict=True)
    }


@functools.partial(jax.jit, static_argnames=("network", "layer"))
def draw_weights(
    key: Key,
    network: Network,
    layer: str,
    *,
    draw: int | Array,
    scale: float | Array = PAPER_SCALE,
    bias_scale: float | Array = 0.0,
) -> dict[str, Array]:
    """Draws one layer's weights, the same as `random_weights` draws for it.

    Args:
      key, network, scale, bias_scale: as in `random_weights`.
      layer: a layer with weights.
      draw: which draw of it.

    Returns:
      {"kernel": [s, s, C_in, C_out], "bias": [C_out]}; a dense kernel is [inputs, C].

    Raises:
      UserError: if the layer has no weights.
    """
    layer = network.canonical_name(layer)
    shapes = weight_shapes(network, layer)
    if layer not in shapes:
        raise UserError(f"layer {layer!r} has no weights; name a convolution or an fc layer.")
    keys = jax.random.split(draw_key(key, layer, draw))
    kernel, bias = draw_gaussians(list(keys), [shapes[layer][name] for name in ("kernel", "bias")])
    return {"kernel": scale * kernel, "bias": bias_scale * bias}


def draw_key(key: Key, layer: str, draw: int | Array) -> Key:
    """The key of one draw of a layer's weights: the network's key folded with name and number."""
    layer_key = jax.random.fold_in(key, zlib.crc32(layer.encode()))
    return jax.random.fold_in(layer_key, draw)


def normalize_gauge(
    network: Network, params: Params, last_layer: str
) -> tuple[Params, dict[str, Array]]:
    """Rescales weights to the range that float32 likes, changing nothing that the tasks compute.

    ReLU and pooling commute with a positive factor, so multiplying a layer's kernel by c and every
    bias by the product of the c up to its layer multiplies the features by that product. At
    σ = 0.015 the layers' μ span 17 orders of magnitude; in He's scale all features are of order
    one. The factors are powers of two, hence exact, and ω and μ undo them exactly.

    Args:
      network: the architecture.
      params: its weights, with any biases, at any scale.
      last_layer: the deepest layer wanted; weights beyond it are left out.

    Returns:
      The rescaled weights and {layer: whole number k}: the features of the layer grew by 2^k.

    Raises:
      UserError: for an unknown layer or missing weights.
    """
    normalized, exponents = {}, {}
    ideal, exponent = 0.0, jnp.int32(0)
    _check_weights(network, params, last_layer)
    for layer in network.up_to(last_layer):
        if not isinstance(layer, Pool):
            kernel, bias = params[layer.name]["kernel"], params[layer.name]["bias"]
            fan_in = kernel.size // kernel.shape[-1]
            largest = jnp.max(jnp.abs(kernel))
            # Relative to the largest, or the squares of very small weights would vanish.
            size = largest * jnp.sqrt(jnp.mean(jnp.square(kernel / largest)))
            wanted = (2 / fan_in) ** 0.5 / (1 if normalized else 255)  # pixels reach 255
            ideal += jnp.where(size > 0, jnp.log2(wanted / size), 0.0)
            # The sum is rounded, not each factor, so that errors do not add up with depth.
            previous, exponent = exponent, jnp.round(ideal).astype(jnp.int32)
            normalized[layer.name] = {
                "kernel": jnp.ldexp(kernel, exponent - previous),
                "bias": jnp.ldexp(bias, exponent),
            }
        exponents[layer.name] = exponent
    return normalized, exponents


def prepare_descent(network: Network, params: Params, last_layer: str) -> Params:
    """Makes the weights ready for many evaluations: in a good gauge, with adjoint kernels.

    Args:
      network: the architecture.
      params: its weights, at any scale.
      last_layer: the deepest layer wanted; weights beyond it are left out.

    Returns:
      {layer: {"kernel": ..., "bias": ..., "adjoint": ...}}, convolutions with the adjoint kernel
      that `conv.convolve` takes. With it the gradient with respect to the kernel stays right.

    Raises:
      UserError: for an unknown layer or missing weights.
    """
    params, _ = normalize_gauge(network, params, last_layer)
    return {
        layer: {**weights, "adjoint": adjoint_kernel(weights["kernel"])}
        if weights["kernel"].ndim == 4
        else weights
        for layer, weights in params.items()
    }
