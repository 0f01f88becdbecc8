"""Other weights for the same network: rescalings that its function does not notice.

ReLU and pooling commute with positive factors. So weights can be brought to a size that float32
likes, or each filter to a mean activation of one, without changing what the network computes but
for known factors.
"""

import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from randviz.networks.conv import choose_method, platform_of, prepare_kernel
from randviz.networks.network import (
    Conv,
    Dense,
    Network,
    Pool,
    ResponseNorm,
    check_weights,
    features,
)
from randviz.types import Array, Image, Params, UserError

# A filter that answers at a smaller share of positions is as good as dead.
_SPARSE = 1e-3


def rescale_weights(
    network: Network, params: Params, last_layer: str
) -> tuple[Params, dict[str, Array]]:
    """Rescales weights to the range that float32 likes, changing nothing that the tasks compute.

    ReLU and pooling commute with a positive factor, so multiplying a layer's kernel by c and every
    bias by the product of the c up to its layer multiplies the features by that product. At
    σ = 0.015 the layers' μ span 17 orders of magnitude; in He's scale all features are of order
    one. The factors are powers of two, hence exact, and ω and μ undo them exactly. Local response
    normalisation is not homogeneous: what comes before it is left as it is.

    Args:
      network: the architecture.
      params: its weights, with any biases, at any scale.
      last_layer: the deepest layer wanted; weights beyond it are left out.

    Returns:
      The rescaled weights and {layer: whole number k}: the features of the layer grew by 2^k.

    Raises:
      UserError: for an unknown layer or missing weights.
    """
    check_weights(network, params, last_layer)
    path = network.up_to(last_layer)
    norms = [index for index, layer in enumerate(path) if isinstance(layer, ResponseNorm)]
    fixed = path[: norms[-1]] if norms else ()
    names = [layer.name for layer in path if isinstance(layer, Conv | Dense)]
    normalized = {layer.name: dict(params[layer.name]) for layer in fixed if layer.name in names}
    exponents = dict.fromkeys((layer.name for layer in path), jnp.int32(0))
    names = names[len(normalized) :]
    if not names:
        return normalized, exponents

    # All layers' numbers are one vector: apart, each would be compiled on its own.
    kernels = [params[name]["kernel"] for name in names]
    # He's scale, as the mean size of normal numbers: unlike the root of their mean square, it is a
    # single sum, soonest compiled, and bears very small weights.
    wanted = np.array([(4 / np.pi * kernel.shape[-1] / kernel.size) ** 0.5 for kernel in kernels])
    if not fixed:
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
    for layer in path:
        if layer.name in names:
            exponent = sums[names.index(layer.name)]
        exponents[layer.name] = exponent
    return normalized, exponents


def prepare_descent(
    network: Network, params: Params, last_layer: str, *, shape: tuple[int, int]
) -> Params:
    """Makes the weights ready for many evaluations: in a good gauge, with prepared kernels.

    Args:
      network: the architecture.
      params: its weights, at any scale.
      last_layer: the deepest layer wanted; weights beyond it are left out.
      shape: (H, W) of the image that will descend, on which it depends how its convolutions are
        best computed. Images of other sizes are evaluated too, if more slowly.

    Returns:
      {layer: {"kernel": ..., "bias": ..., "prepared": ...}}, convolutions with what
      `conv.prepare_kernel` makes of the kernel. The gradient with respect to the kernel stays
      right.

    Raises:
      UserError: for an unknown layer or missing weights.
    """
    params, _ = rescale_weights(network, params, last_layer)
    sides = shape
    for layer in network.up_to(last_layer):
        if isinstance(layer, Conv):
            weights = params[layer.name]
            kernel = weights["kernel"]
            options = {"stride": layer.stride, "groups": layer.groups}
            method = choose_method(
                (*sides, kernel.shape[2] * layer.groups),
                kernel.shape,
                convolution=network.convolution,
                platform=platform_of(params),
                **options,
            )
            weights["prepared"] = prepare_kernel(
                kernel, method=method, shape=tuple(sides), groups=layer.groups
            )
        if isinstance(layer, Conv | Pool):
            sides = [(side + 2 * layer.border - layer.size) // layer.stride + 1 for side in sides]
    return params


def mean_activations(
    network: Network, params: Params, images: Sequence[Image], *, last_layer: str | None = None
) -> dict[str, Array]:
    """Averages each filter's activation over images and positions.

    Args:
      network: the architecture.
      params: its weights.
      images: [H, W, 3] each, of any sizes that reach the last layer.
      last_layer: the deepest layer wanted; by default the last convolutional one.

    Returns:
      {layer: [C]} of all convolutions down to the last layer, at least 0.

    Raises:
      UserError: for no images, an unknown layer, missing weights, or an image that does not reach
        the layer.
    """
    found = _average_activations(network, params, images, last_layer)
    return {layer: mean for layer, (mean, _) in found.items()}


def _average_activations(network, params, images, last_layer):
    """{layer: (mean activation, share of positions with an answer)}, [C] both."""
    if not images:
        raise UserError("no image is given to average activations over; give at least one.")
    last_layer = last_layer or network.last_convolutional()
    layers = tuple(layer.name for layer in network.up_to(last_layer) if isinstance(layer, Conv))
    sums = [_sum_activations(network, params, image, layers) for image in images]
    totals = jax.tree.map(lambda *leaves: sum(leaves), *sums)
    return {
        layer: (total / count, answers / count) for layer, (total, answers, count) in totals.items()
    }


@functools.partial(jax.jit, static_argnames=("network", "layers"))
def _sum_activations(network, params, image, layers):
    maps = features(network, params, image, layers)
    return {
        layer: (x.sum((0, 1)), (x > 0).sum((0, 1)), jnp.float32(x.shape[0] * x.shape[1]))
        for layer, x in maps.items()
    }


def rescale_filters(network: Network, params: Params, scales: Mapping[str, Array]) -> Params:
    """Divides the activation of each filter by a number, and makes the next layer undo it.

    W'[in, out] = W[in, out] s_in / s_out and b' = b / s_out. ReLU and pooling, average or maximum,
    commute with positive factors: the features of a layer, and of the pooling after it, are
    divided by its scales, and those of all other layers stay as they are.

    Args:
      network: the architecture, without response normalisation.
      params: its weights.
      scales: {layer: [C]}, positive; other layers keep their activations.

    Returns:
      The rescaled weights, of the same layers.

    Raises:
      UserError: for a network with response normalisation, which does not commute.
    """
    rescaled, incoming = {}, jnp.ones(3)
    for layer in network.layers:
        if isinstance(layer, ResponseNorm):
            raise UserError(
                f"the filters of {network.name} cannot be rescaled, because its response"
                " normalisation would notice; leave its weights as they are."
            )
        if layer.name not in params:
            continue
        kernel, bias = params[layer.name]["kernel"], params[layer.name]["bias"]
        outgoing = scales.get(layer.name, jnp.ones_like(bias))
        if isinstance(layer, Conv):
            # [groups, inputs of each] → [inputs of each, outputs]
            parts = incoming.reshape(layer.groups, -1)
            undo = jnp.repeat(parts, layer.channels // layer.groups, axis=0).T
        else:
            undo = jnp.tile(incoming, kernel.shape[0] // incoming.size)[:, None]
        rescaled[layer.name] = {"kernel": kernel * undo / outgoing, "bias": bias / outgoing}
        incoming = outgoing
    return rescaled


def normalize_activations(
    network: Network, params: Params, images: Sequence[Image], *, last_layer: str | None = None
) -> Params:
    """Rescales filters so that the mean activation of each, over images and positions, is 1.

    Whatever positive factors the filters had before, the features come out the same.

    Args:
      network: the architecture; its pooling, average or maximum, is the one averaged under.
      params: its weights.
      images: [H, W, 3] each, of any sizes that reach the last layer.
      last_layer: the deepest layer rescaled; by default the last convolutional one. Deeper layers
        undo it and keep their activations.

    Returns:
      The rescaled weights, of the same layers. A filter that answers nowhere, or at less than one
      in a thousand positions, stays as it is.

    Raises:
      UserError: as `mean_activations` and `rescale_filters`.

    References:
      Gatys, Ecker, Bethge (2015), "Texture synthesis using convolutional neural networks", section
      2; He, Wang, Hopcroft (2016), section 2, call the trained network so rescaled VGG.
      Differs: filters that hardly ever answer. VGG-19's conv2_1 has one that does at four of
      163,072 positions; with a mean like the others', those four would drown all the rest.
    """
    found = _average_activations(network, params, images, last_layer)
    scales = {}
    for layer, (mean, share) in found.items():
        # Differs: see above.
        scales[layer] = jnp.where(share < _SPARSE, 1.0, mean)
    return rescale_filters(network, params, scales)
