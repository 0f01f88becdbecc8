"""ranVGG, the stacked network: layer by layer, the draw that reconstructs an image best is kept.

A candidate is a number: draw k of a layer is that layer's weights from the network's key folded
with k (`weights.candidate_key`). So a chosen network is a key and a list of small numbers.
"""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from randviz.descent import descent
from randviz.descent.solver import State
from randviz.networks.gaussian import sample_noise_image
from randviz.networks.network import PAPER_SCALE, Network
from randviz.networks.rescaling import rescale_weights
from randviz.networks.weights import candidate_key, sample_weights, weight_shapes
from randviz.objectives.objective import Objective
from randviz.tasks.inversion import NOISE_STD, Inversion
from randviz.types import Array, Image, Key, Params, UserError

# Of ω L, whose size at a zero target is about a quarter of the number of pixel values. Features
# carry a relative error of some 1e-7 in float32, and the loss its square: below this share the
# order of two candidates would depend on the order of additions. They are tied, and the one drawn
# first is kept.
_RESOLUTION = 1e-13


class LayerChoice(NamedTuple):
    """What became of a layer's candidates.

    Attributes:
      draw: int32, which candidate is kept: the first with the smallest of `losses`.
      losses: [K], ω L after each candidate's last step, but not less than 1e-13 of the number of
        pixel values, below which float32 cannot tell.
      raw_losses: [K], L itself, at the scale of the weights as drawn; it rewards small weights.
      images: [K, H, W, 3], the reconstructions, not clipped.
      num_steps: [K], int32, steps each candidate was given; fewer for those that a race dropped.
    """

    draw: Array
    losses: Array
    raw_losses: Array
    images: Array
    num_steps: Array


class Selection(NamedTuple):
    """A chosen network.

    Attributes:
      params: its weights, down to the last layer selected.
      choices: {layer: LayerChoice}, in forward order.
    """

    params: Params
    choices: Mapping[str, LayerChoice]


def plan_rounds(num_candidates: int, num_steps: int) -> tuple[tuple[int, ...], ...]:
    """Plans a race by successive halving.

    Args:
      num_candidates: K.
      num_steps: T, what a candidate that is never dropped gets in all.

    Returns:
      (candidates, steps) of each round: half of them, rounded up, go on to the next.

    Example:
      >>> plan_rounds(5, 200)
      ((5, 66), (3, 66), (2, 68))

    References:
      Karnin, Koren, Somekh (2013), "Almost optimal exploration in multi-armed bandits".
    """
    counts = [num_candidates]
    while counts[-1] > 2:
        counts.append(-(-counts[-1] // 2))
    share = num_steps // len(counts)
    steps = [share] * (len(counts) - 1)
    return tuple(zip(counts, [*steps, num_steps - sum(steps)], strict=True))


@functools.partial(
    jax.jit,
    static_argnames=("network", "layer", "num_candidates", "num_steps", "batch_size", "racing"),
)
def select_layer(
    key: Key,
    network: Network,
    params: Params,
    image: Image,
    *,
    layer: str,
    num_candidates: int = 5,
    num_steps: int = 200,
    scale: float | Array = PAPER_SCALE,
    bias_scale: float | Array = 0.0,
    batch_size: int = 1,
    racing: bool = False,
    first_draw: int | Array = 0,
) -> LayerChoice:
    """Tries several draws of one layer's weights and keeps the best.

    Every candidate starts from the same noise. They are compared on ω L, because the raw loss
    rewards weights that happen to be small.

    Args:
      key: of the whole network: weights and the common noise.
      network: the architecture.
      params: the weights of the layers before this one, chosen already.
      image: [H, W, 3], the reference image, RGB in [0, 1].
      layer: a layer with weights.
      num_candidates: K.
      num_steps: T, of each reconstruction.
      scale: σ of the kernels.
      bias_scale: standard deviation of the biases.
      batch_size: candidates that descend together, under `vmap`. It turns the convolution with
        each candidate's kernels into a grouped one: faster on a GPU, slower on a CPU, and as many
        times the memory.
      racing: whether the worst half is dropped at checkpoints of the descent (`plan_rounds`).
      first_draw: number of the first candidate, for a caller that tries them in portions.

    Returns:
      The choice among draws `first_draw` to `first_draw + K - 1`.

    Raises:
      UserError: for no candidates or steps, a layer without weights, or an image that does not
        reach the layer.

    References:
      He, Wang, Hopcroft (2016), section 2, 'a "stacked" random weight network'.
      Differs: the paper does not say what "the smallest loss" is measured in; ω L here.
    """
    if num_candidates < 1 or num_steps < 1 or batch_size < 1:
        raise UserError(
            f"{num_candidates} candidates, {num_steps} steps and batches of {batch_size} were asked"
            " for; each must be at least 1."
        )
    layer = network.canonical_name(layer)
    start = sample_noise_image(candidate_key(key, "noise", 0), image.shape[:2], std=NOISE_STD)

    def sample(name: str, number: int | Array) -> dict[str, Array]:
        return sample_weights(key, network, name, draw=number, scale=scale, bias_scale=bias_scale)

    # A block is computed as a whole, although its first layers do not depend on its last.
    names = [step.name for step in network.weighted_layers(layer)]
    others = {name: sample(name, 0) for name in names if name not in (layer, *params)}

    def draw(number: Array) -> Params:
        return {**others, **params, layer: sample(layer, number)}

    def make_objective(number: Array) -> Objective:
        return Inversion(layer).of(network.bind(draw(number)), image)

    def begin(number: Array) -> State:
        return descent.init(make_objective(number), start)

    def go_on(pair: tuple[Array, State], num_steps: int) -> State:
        number, state = pair
        return descent.advance(make_objective(number), state, num_steps=num_steps)[0]

    def unweigh(pair: tuple[Array, Array]) -> Array:
        number, loss = pair
        _, exponents = rescale_weights(network, draw(number), layer)
        weight = make_objective(number).layer_weights()["content"][layer]
        return jnp.ldexp(loss / weight, -2 * exponents[layer])

    each = functools.partial(_each, batch_size=batch_size)
    numbers = first_draw + jnp.arange(num_candidates)
    states = each(begin, numbers)
    losses, images = states.loss, states.image
    taken = jnp.zeros(num_candidates, jnp.int32)
    standing = jnp.arange(num_candidates)  # best first, once there is a best
    rounds = plan_rounds(num_candidates, num_steps) if racing else ((num_candidates, num_steps),)
    resolution = _RESOLUTION * image.size
    for count, steps in rounds:
        standing, states = _take((standing, states), slice(count))
        advance = functools.partial(go_on, num_steps=steps)
        states = each(advance, (numbers[standing], states))
        losses = losses.at[standing].set(jnp.maximum(states.loss, resolution))
        images = images.at[standing].set(states.image)
        taken = taken.at[standing].add(steps)
        # Stable, and in order of draw before: ties go to the one drawn first.
        standing, states = _take((standing, states), jnp.lexsort((standing, losses[standing])))
    raw_losses = each(unweigh, (numbers, losses))
    return LayerChoice(numbers[standing[0]], losses, raw_losses, images, taken)


def _each(function, xs, batch_size: int):
    """The function of each, one after another or several at a time under vmap."""
    return lax.map(function, xs, batch_size=None if batch_size == 1 else batch_size)


def _take(tree, indices):
    return jax.tree.map(lambda leaf: leaf[indices], tree)


def select_weights(
    key: Key,
    network: Network,
    image: Image,
    *,
    num_candidates: int = 5,
    num_steps: int = 200,
    last_layer: str | None = None,
    scale: float | Array = PAPER_SCALE,
    bias_scale: float | Array = 0.0,
    batch_size: int = 1,
    racing: bool = False,
) -> Selection:
    """Builds ranVGG: samples, selects and fixes the weights of each layer in forward order.

    Args:
      key, network, num_candidates, num_steps, scale, bias_scale, batch_size, racing: as in
        `select_layer`.
      image: [H, W, 3], the reference image, RGB in [0, 1].
      last_layer: the deepest layer selected, as in `random_weights`.

    Returns:
      The weights and how they were chosen. They are those of
      `random_weights(key, network, ..., draws=...)` with the numbers chosen.

    Raises:
      UserError: as `select_layer`.

    References:
      He, Wang, Hopcroft (2016), section 2, "Inverting deep representations", last paragraph.
    """
    last_layer = network.last_convolutional() if last_layer is None else last_layer
    network.check_image(image.shape, last_layer)
    params, choices = {}, {}
    for layer in weight_shapes(network, last_layer):
        choices[layer] = select_layer(
            key, network, params, image, layer=layer, num_candidates=num_candidates,
            num_steps=num_steps, scale=scale, bias_scale=bias_scale, batch_size=batch_size,
            racing=racing,
        )  # fmt: skip
        params[layer] = sample_weights(
            key, network, layer, draw=choices[layer].draw, scale=scale, bias_scale=bias_scale
        )
    return Selection(params, choices)
