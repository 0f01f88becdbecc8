"""Trained filters rescaled to a mean activation of one, which the network does not notice."""

import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from randviz.networks.layers import Conv, walk_layers
from randviz.networks.network import Network, features
from randviz.types import Array, Image, Params, UserError

# A filter that answers at a smaller share of positions is as good as dead.
_SPARSE = 1e-3


def average_activations(
    network: Network, params: Params, images: Sequence[Image], *, last_layer: str | None = None
) -> dict[str, tuple[Array, Array]]:
    """Averages each filter's activation over images and positions.

    Args:
      network: the architecture.
      params: its weights.
      images: [H, W, 3] each, of any sizes that reach the last layer.
      last_layer: the deepest layer wanted; by default the last convolutional one.

    Returns:
      {layer: (mean activation, share of positions where it is above 0)}, [C] both, of all
      convolutions down to the last layer.

    Raises:
      UserError: for no images, an unknown layer, missing weights, or an image that does not reach
        the layer.
    """
    if not images:
        raise UserError("no image is given to average activations over; give at least one.")
    last_layer = last_layer or network.last_convolutional()
    path = walk_layers(network.up_to(last_layer))
    layers = tuple(layer.name for layer in path if isinstance(layer, Conv))
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
      network: the architecture, all of whose layers are in a row and `rescalable`.
      params: its weights.
      scales: {layer: [C]}, positive; other layers keep their activations.

    Returns:
      The rescaled weights, of the same layers.

    Raises:
      UserError: for a network that does not commute: with response normalisation, skip
        connections, parallel layers or an activation that is not homogeneous.
    """
    if not network.rescalable:
        raise UserError(
            f"the filters of {network.name} cannot be rescaled, because its response normalisation,"
            " skip connections, parallel layers or activation would notice; leave its weights as"
            " they are."
        )
    rescaled, incoming = {}, jnp.ones(3, jnp.float32)
    for layer in walk_layers(network.layers):
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
      in a thousand positions, or whose mean activation is not positive, stays as it is.

    Raises:
      UserError: as `average_activations` and `rescale_filters`.

    References:
      Gatys, Ecker, Bethge (2015), "Texture synthesis using convolutional neural networks", section
      2; He, Wang, Hopcroft (2016), section 2, call the trained network so rescaled VGG.
      Differs: filters that hardly ever answer. VGG-19's conv2_1 has one that does at four of
      163,072 positions; with a mean like the others', those four would drown all the rest.
    """
    found = average_activations(network, params, images, last_layer=last_layer)
    # Differs: see above.
    scales = {
        layer: jnp.where((share < _SPARSE) | (mean <= 0), 1.0, mean)
        for layer, (mean, share) in found.items()
    }
    return rescale_filters(network, params, scales)
