"""Other weights for the same network: rescalings that its function does not notice.

ReLU and pooling commute with positive factors. So weights can be brought to a size that float32
likes, or each filter to a mean activation of one, without changing what the network computes but
for known factors.
"""

import math
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from randviz.networks.conv import choose_method, platform_of, prepare_kernel
from randviz.networks.extractor import IMAGE_LAYER
from randviz.networks.layers import ACTIVATIONS, Conv, walk_layers, walk_sides
from randviz.types import Array, Params

if TYPE_CHECKING:
    from randviz.networks.network import Network


def rescale_weights(
    network: "Network", params: Params, last_layer: str
) -> tuple[Params, dict[str, Array]]:
    """Rescales weights to the range that float32 likes, changing nothing that the tasks compute.

    ReLU and pooling commute with a positive factor, so multiplying a layer's kernel by c and every
    bias by the product of the c up to its layer multiplies the features by that product. At
    σ = 0.015 the layers' μ span 17 orders of magnitude; in He's scale all features are of order
    one. The factors are powers of two, hence exact, and ω and μ undo them exactly. What comes
    before a layer that is not `rescalable` (response normalisation, a skip connection) is left as
    it is, and so is every weight where the activation is not homogeneous.

    Args:
      network: the architecture.
      params: its weights, with any biases, at any scale.
      last_layer: the deepest layer wanted; weights beyond it are left out.

    Returns:
      The rescaled weights and {layer: whole number k}: the features of the layer grew by 2^k.

    Raises:
      UserError: for an unknown layer.
    """
    activation = ACTIVATIONS[network.activation]
    path = network.up_to(last_layer)
    fixed = [index for index, layer in enumerate(path, 1) if not layer.rescalable]
    num_fixed = (fixed or [0])[-1] if activation.homogeneous else len(path)
    names = [layer.name for layer in walk_layers(path[num_fixed:]) if layer.has_weights]
    normalized = {
        layer.name: dict(params[layer.name])
        for layer in walk_layers(path[:num_fixed])
        if layer.has_weights
    }
    reached = (IMAGE_LAYER, *(layer.name for layer in walk_layers(path)))
    exponents: dict[str, Array] = {name: jnp.int32(0) for name in reached}
    if not names:
        return normalized, exponents

    # All layers' numbers are one vector: apart, each would be compiled on its own.
    kernels = [params[name]["kernel"] for name in names]
    # He's scale, as the mean size of normal numbers: unlike the root of their mean square, it is a
    # single sum, soonest compiled, and bears very small weights.
    square = 2 * activation.gain / np.pi
    wanted = np.array([(square * kernel.shape[-1] / kernel.size) ** 0.5 for kernel in kernels])
    if not num_fixed:
        wanted[0] /= 255 * np.mean(network.input_scale)  # pixels reach 255
    sizes = jnp.stack([jnp.mean(jnp.abs(kernel)) for kernel in kernels])
    ideal = jnp.where(sizes > 0, jnp.log2(wanted.astype(np.float32) / sizes), 0.0)
    # The sum is rounded, not each factor, so that errors do not add up with depth.
    sums = jnp.round(jnp.cumsum(ideal)).astype(jnp.int32)
    factors = jnp.ldexp(jnp.float32(1), jnp.diff(sums, prepend=0))
    # A bias's factor may be beyond float32 where the bias is not.
    halves = jnp.ldexp(jnp.float32(1), jnp.stack([sums // 2, sums - sums // 2]))
    for index, name in enumerate(names):
        normalized[name] = {
            "kernel": kernels[index] * factors[index],
            "bias": params[name]["bias"] * halves[0, index] * halves[1, index],
        }
    exponent = jnp.int32(0)
    for layer in walk_layers(path):
        if layer.name in names:
            exponent = sums[names.index(layer.name)]
        exponents[layer.name] = exponent
    return normalized, exponents


def prepare_kernels(
    network: "Network",
    params: Params,
    last_layer: str,
    *,
    shape: tuple[int, ...],
    platform: str | None = None,
) -> dict[str, dict[str, Any]]:
    """Computes once what many convolutions with the same kernels need of them.

    Args:
      network: the architecture.
      params: its weights.
      last_layer: the deepest layer wanted.
      shape: (H, W) of the image that will be evaluated, on which it depends how its convolutions
        are best computed. Images of other sizes are evaluated too, if more slowly.
      platform: where they will be computed, such as "cpu"; by default where the weights are.

    Returns:
      {layer: {"kernel": what `conv.prepare_kernel` makes of it}} for all convolutions.
    """
    prepared = {}
    for layer, sides in walk_sides(network.up_to(last_layer), shape):
        if isinstance(layer, Conv):
            kernel = params[layer.name]["kernel"]
            method = choose_method(
                (*sides, kernel.shape[2] * layer.groups),
                kernel.shape,
                convolution=network.convolution,
                stride=layer.stride,
                groups=layer.groups,
                platform=platform or platform_of(params),
            )
            ready = prepare_kernel(
                kernel,
                method=method,
                shape=tuple(sides),
                groups=layer.groups,
                padding_mode=network.padding_mode,
            )
            prepared[layer.name] = {"kernel": ready}
    return prepared


def find_exponent(before: Array, after: Array) -> int:
    """k of the 2^k that a kernel was multiplied by.

    Read from the kernels by NumPy: as part of `rescale_weights` it would be compiled again, which
    takes longer than the first steps of a descent.
    """
    kernels = (np.asarray(kernel) for kernel in (before, after))
    sizes = [max(float(kernel.max()), -float(kernel.min())) for kernel in kernels]
    return round(math.log2(sizes[1] / sizes[0])) if all(sizes) else 0
