"""Random weights from keys: every layer of a network is drawn from a key of its own."""

import functools
import math
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from randviz.networks.gaussian import as_key, sample_gaussians, split_key
from randviz.networks.layers import ACTIVATIONS, Block, Layer, walk_layers
from randviz.networks.network import PAPER_SCALE, FeatureExtractor, Network
from randviz.types import Array, Key, Params, UserError


def weight_shapes(network: Network, last_layer: str) -> dict[str, dict[str, tuple[int, ...]]]:
    """The shapes of all kernels and biases down to a layer, in forward order.

    Args:
      network: the architecture.
      last_layer: the deepest layer wanted.

    Returns:
      {layer: {"kernel": (s, s, C_in, C_out) or (inputs, C), "bias": (C,)}}.
    """
    found = _find_shapes(network.for_one_evaluation(), network.canonical_name(last_layer))
    return {layer: dict(shapes) for layer, shapes in found.items()}


@functools.lru_cache(maxsize=256)
def _find_shapes(network, layer):
    size = network.fc_image_size or 64
    image = jax.ShapeDtypeStruct((size, size, 3), jnp.float32)
    variables = jax.eval_shape(FeatureExtractor(network, (layer,)).init, jax.random.key(0), image)
    shapes = jax.tree.map(lambda leaf: leaf.shape, variables.get("params", {}))
    return {step.name: shapes[step.name] for step in network.weighted_layers(layer)}


@functools.partial(jax.jit, static_argnames=("network", "last_layer"))
def random_weights(
    key: Key,
    network: Network,
    *,
    scale: float | Array = PAPER_SCALE,
    bias_scale: float | Array = 0.0,
    last_layer: str | None = None,
    draws: tuple[int, ...] = (),
) -> Params:
    """Draws every kernel from N(0, σ), or as the network's `initialization` says.

    "normal" is the paper's: one σ for all layers. "he" takes σ = √(gain / inputs) in each layer, so
    that features are of order one through the depth: the gain is the activation's, the first layer
    counts pixel values by the middle of their range, and the last convolution of a block with a
    skip connection is divided by the root of the number of such blocks, or their sum would grow.
    "unit_norm" scales each filter to norm 1. The last two are multiplied by scale / 0.015.

    Each layer has a key of its own, made from its name, so the weights of a shallower cut of the
    network are the first layers of a deeper one, bit for bit.

    Args:
      key: one Threefry key for the whole network, typed or old-style (see `gaussian.as_key`).
      network: the architecture.
      scale: σ, the standard deviation of the kernels.
      bias_scale: the standard deviation of the biases.
      last_layer: the deepest layer wanted; by default the last before the fully connected ones,
        which are large (VGG-19's fc6 alone has 134 million weights).
      draws: which draw of each layer, in forward order; layers beyond the last number are draw 0.
        A stacked network (see `selection`) is these numbers and the key.

    Returns:
      {layer: {"kernel": [s, s, C_in, C_out], "bias": [C_out]}}; dense kernels are [inputs, C].

    Raises:
      UserError: if the key is not a Threefry key.

    Example:
      >>> from randviz.networks.vgg import VGG19
      >>> params = random_weights(jax.random.key(0), VGG19, last_layer="conv1_2")
      >>> params["conv1_2"]["kernel"].shape
      (3, 3, 64, 64)

    References:
      He, Wang, Hopcroft (2016), section 2: N(0, σ), σ = 0.015. The paper does not mention biases;
      they are zero by default.
      Differs: networks that are not VGG's may be drawn otherwise, see above. "he": He, Zhang, Ren,
      Sun (2015), "Delving deep into rectifiers", section 2.2.
    """
    shapes = weight_shapes(network, last_layer or network.last_convolutional())
    if not shapes:
        return {}
    numbers_of_draws = (draws + (0,) * len(shapes))[: len(shapes)]
    # All layers' keys at once: one by one, each would be compiled on its own, for over a second.
    names = jnp.array([_number_of(layer) for layer in shapes], jnp.uint32)
    layer_keys = jax.vmap(_fold, in_axes=(None, 0, 0))(
        as_key(key), names, jnp.array(numbers_of_draws, jnp.uint32)
    )
    keys = jax.vmap(split_key)(layer_keys).reshape(-1)  # kernel, bias, kernel, ...
    sizes = [shape[name] for shape in shapes.values() for name in ("kernel", "bias")]
    numbers = sample_gaussians(keys, sizes)
    return {
        layer: _scale(network, layer, kernel, bias, scale, bias_scale)
        for layer, kernel, bias in zip(shapes, numbers[::2], numbers[1::2], strict=True)
    }


@functools.partial(jax.jit, static_argnames=("network", "layer"))
def sample_weights(
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
      UserError: if the layer has no weights, or the key is not a Threefry key.
    """
    layer = network.canonical_name(layer)
    shapes = weight_shapes(network, layer)
    if layer not in shapes:
        raise UserError(f"layer {layer!r} has no weights; name a convolution or an fc layer.")
    keys = split_key(candidate_key(key, layer, draw))
    kernel, bias = sample_gaussians(keys, [shapes[layer][name] for name in ("kernel", "bias")])
    return _scale(network, layer, kernel, bias, scale, bias_scale)


def _scale(network, layer, kernel, bias, scale, bias_scale) -> dict[str, Array]:
    """Brings numbers of N(0, 1) to the scale of the network's initialization."""
    # A float64 scale, which `jax_enable_x64` admits, must not make float64 weights.
    scale, bias_scale = jnp.asarray(scale, jnp.float32), jnp.asarray(bias_scale, jnp.float32)
    scaled = _scale_kernel(network, layer, kernel, scale)
    return {"kernel": scaled.astype(jnp.float32), "bias": bias_scale * bias}


def _scale_kernel(network: Network, layer: str, kernel: Array, scale: Array) -> Array:
    initialization = network.initialization
    if initialization == "auto":
        initialization = "normal" if network.rescalable else "he"
    if initialization == "normal":
        return scale * kernel
    # Differs from the paper: it has one σ for all layers.
    scale = scale / PAPER_SCALE
    if initialization == "unit_norm":
        norms = jnp.sqrt(jnp.sum(jnp.square(kernel), axis=tuple(range(kernel.ndim - 1))))
        return scale * kernel / norms
    fan_in = kernel.size // kernel.shape[-1]
    he_scale = math.sqrt(ACTIVATIONS[network.activation].gain / fan_in)
    if layer in _find_first(network.layers):
        he_scale /= 255 / 2 * float(np.mean(network.input_scale))
    ends = _find_block_ends(network.layers)
    if layer in ends:
        he_scale /= math.sqrt(len(ends))
    return scale * he_scale * kernel


def _find_first(layers: tuple[Layer, ...]) -> set[str]:
    """Names of the layers with weights whose input is the image."""
    for index, layer in enumerate(layers):
        if layer.has_weights:
            return {layer.name}
        if layer.branches:
            rest = layers[index + 1 :]
            return set().union(*(_find_first((*branch, *rest)) for branch in layer.branches))
    return set()


def _find_block_ends(layers: tuple[Layer, ...]) -> list[str]:
    """Names of the last layers with weights in the bodies of blocks with a skip connection."""
    return [
        [inner.name for inner in walk_layers(block.body) if inner.has_weights][-1]
        for block in walk_layers(layers)
        if isinstance(block, Block) and block.shortcut is not None
    ]


def candidate_key(key: Key, layer: str, draw: int | Array) -> Key:
    """The key of one draw of a layer's weights: the network's key folded with name and number."""
    return _fold(as_key(key), _number_of(layer), draw)


def _number_of(layer: str) -> int:
    return zlib.crc32(layer.encode())


def _fold(key: Key, number: int | Array, draw: int | Array) -> Key:
    return jax.random.fold_in(jax.random.fold_in(key, number), draw)
