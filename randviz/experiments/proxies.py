"""Scores of untrained networks that others proposed, and the trivial ones: weights, operations."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from randviz.experiments.classification import as_input
from randviz.networks.layers import Block, InstanceNorm, Layer
from randviz.networks.modules import ModuleNetwork
from randviz.networks.network import Network
from randviz.types import Array


@functools.partial(jax.jit, static_argnums=(0, 3))
def _find_codes(network: Any, params: Any, images: Array, layers: tuple[str, ...]) -> Array:
    """[N, units], which features are above 0."""
    measure = lambda image: network.bind(params).for_one_evaluation().compute(image, layers)
    features = jax.vmap(measure)(as_input(images))
    return jnp.concatenate([features[layer].reshape(len(images), -1) > 0 for layer in layers], 1)


def measure_naswot(
    network: Network | ModuleNetwork, params: Any, layers: tuple[str, ...], images: Array
) -> float:
    """How differently a network's units respond to different images.

    Args:
      network: the architecture.
      params: its weights.
      layers: whose units count.
      images: [N, h, w], grey in [0, 1].

    Returns:
      log |K|, K the numbers of units in which two images agree whether they are above 0, over the
      number of all units; −∞ if two images agree in all.

    References:
      Mellor, Turner, Storkey, Crowley (2021), "Neural architecture search without training".
      Differs: K is divided by the number of units, so that larger networks do not count more.
    """
    codes = np.asarray(_find_codes(network, params, images, layers), np.float32)
    kernel = (codes @ codes.T + (1 - codes) @ (1 - codes).T) / codes.shape[1]
    sign, found = np.linalg.slogdet(kernel.astype(float))
    return float(found) if sign > 0 else -math.inf


def measure_synflow(network: Network | ModuleNetwork, params: Any, layer: str, size: int) -> float:
    """How much all weights together let through.

    Args:
      network: the architecture; its normalisations are left out.
      params: its weights.
      layer: whose features are summed.
      size: of the image of ones that goes in, in pixels a side.

    Returns:
      log Σ |θ ∂R/∂θ|, R the sum of the features under the absolute values of the weights.

    References:
      Tanaka, Kunin, Yamins, Ganguli (2020), "Pruning neural networks without any data by
      iteratively conserving synaptic flow", eq. 1; Abdelfattah et al. (2021), "Zero-cost proxies
      for lightweight NAS": as a score.
    """
    if isinstance(network, Network):
        network = dataclasses.replace(
            network,
            layers=_without_norms(network.layers),
            input_offset=0.0,
            input_scale=1 / 255,
        )
    # Deep networks let more through than float32 holds.
    with jax.enable_x64(True):
        positive = jax.tree.map(lambda x: jnp.abs(jnp.asarray(x, jnp.float64)), params)
        image = jnp.ones((size, size, 3), jnp.float64)
        total = lambda weights: jnp.sum(
            network.bind(weights).for_one_evaluation().compute(image, (layer,))[layer]
        )
        gradient = jax.jit(jax.grad(total))(positive)
        flows = jax.tree.map(lambda x, y: float(jnp.sum(jnp.abs(x * y))), positive, gradient)
    return math.log(sum(jax.tree.leaves(flows)))


def _without_norms(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    kept = [layer for layer in layers if not isinstance(layer, InstanceNorm)]
    return tuple(
        dataclasses.replace(layer, body=_without_norms(layer.body))
        if isinstance(layer, Block)
        else layer
        for layer in kept
    )


def count_operations(
    network: Network | ModuleNetwork, params: Any, layer: str, shape: tuple[int, int, int]
) -> float:
    """Counts the floating-point operations of one image's features, as XLA does before it compiles.

    Args:
      network: the architecture.
      params: its weights, or their shapes.
      layer: down to which.
      shape: (H, W, 3) of the image.
    """
    measure = lambda weights, image: (
        network.bind(weights).for_one_evaluation().compute(image, (layer,))[layer]
    )
    lowered = jax.jit(measure).lower(params, jax.ShapeDtypeStruct(shape, jnp.float32))
    return float(lowered.cost_analysis()["flops"])


def count_weights(params: Any) -> int:
    """The numbers in a tree of weights."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
