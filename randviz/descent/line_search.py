"""A line search that tries the step it is given and looks further only when that one fails.

A quasi-Newton direction comes with a step, 1, that is nearly always good. jaxopt's zoom search
starts elsewhere and needs 3.4 evaluations a step on textures; this one needs little more than one.
The objective stands at one place in the compiled program, inside the loop, which matters: compiling
a deep network several times takes longer than a hundred small steps of descent.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from randviz.descent.solver import choose
from randviz.types import Array, Image

_DECREASE = 1e-4  # c1 of the Wolfe conditions
_CURVATURE = 0.9  # c2
# Relative rounding of a loss summed in float32: a rise within it is no rise (Hager and Zhang's
# approximate Wolfe conditions), or the search would fail wherever the loss has become flat.
_ROUNDING = 1e-6
# Where a ReLU bends the loss there may be no place with a small slope. Once the bracket is this
# narrow, relative to its far end, a place with enough decrease will do, as in L-BFGS-B.
_NARROW = 0.1


class Point(NamedTuple):
    """One place on the line.

    Attributes:
      step: its distance from the start, in units of the direction.
      image: [H, W, 3].
      loss: the objective there.
      grad: [H, W, 3], its gradient there.
      slope: the gradient along the direction.
    """

    step: Array
    image: Image
    loss: Array
    grad: Array
    slope: Array


class Search(NamedTuple):
    """What a search found.

    Attributes:
      point: the accepted place; the start itself if the search failed.
      evaluations: how often the objective was evaluated, int32.
      failed: whether no better place was found and the image stayed as it was.
    """

    point: Point
    evaluations: Array
    failed: Array


class _Carry(NamedTuple):
    trial: Array
    low: Point  # the best place so far
    high_step: Array  # the other end of the bracket, once there is one
    high_loss: Array
    high_slope: Array
    bracketed: Array
    accepted: Array
    evaluations: Array


def search_line(
    value_and_grad: Callable[[Image], tuple[Array, Array]],
    image: Image,
    loss: Array,
    grad: Array,
    direction: Array,
    first_step: Array,
    *,
    max_evaluations: int = 20,
) -> Search:
    """Finds a step along a direction that satisfies the strong Wolfe conditions, or nearly.

    Args:
      value_and_grad: image → (loss, gradient).
      image: [H, W, 3], the start.
      loss: the objective at the start.
      grad: [H, W, 3], its gradient at the start.
      direction: [H, W, 3]; one that does not lead down counts as failed, unsearched.
      first_step: the step tried first; 0 asks for no search at all, which counts as failed.
      max_evaluations: after so many, the best place so far is taken.

    Returns:
      What was found. A place where the loss is not finite is never accepted.

    References:
      Nocedal and Wright, Numerical Optimization (2006), algorithms 3.5 and 3.6, as one loop.
      Hager and Zhang (2005), eq. 4.1, for the test that survives rounding.
    """
    start = Point(jnp.zeros_like(loss), image, loss, grad, jnp.vdot(grad, direction))

    def look(carry: _Carry) -> _Carry:
        trial_image = image + carry.trial * direction
        trial_loss, trial_grad = value_and_grad(trial_image)
        slope = jnp.vdot(trial_grad, direction)
        trial = Point(carry.trial, trial_image, trial_loss, trial_grad, slope)
        finite = jnp.isfinite(trial_loss) & jnp.isfinite(slope)
        decreased = trial_loss <= loss + _DECREASE * carry.trial * start.slope
        level = (trial_loss <= loss + _ROUNDING * jnp.abs(loss)) & (
            slope <= (2 * _DECREASE - 1) * start.slope
        )
        flat = jnp.abs(slope) <= -_CURVATURE * start.slope
        accepted = finite & (decreased | level) & flat

        low = carry.low
        beyond = ~finite | ~decreased | ((low.step > 0) & (trial_loss >= low.loss))
        towards_high = jnp.where(carry.bracketed, carry.high_step - low.step, 1.0)
        crossed = ~beyond & (slope * towards_high >= 0)
        high: tuple[Array, Array, Array] = (carry.high_step, carry.high_loss, carry.high_slope)
        high = choose(crossed, (low.step, low.loss, low.slope), high)
        high = choose(beyond, (trial.step, trial.loss, trial.slope), high)
        bracketed = carry.bracketed | beyond | crossed
        new_low = choose(accepted | ~beyond, trial, low)
        ends = jnp.stack([new_low.step, high[0]])
        narrow = jnp.ptp(ends) <= _NARROW * jnp.max(ends)
        accepted = accepted | (bracketed & narrow & (new_low.step > 0))
        following = jnp.where(bracketed, _inside(new_low, *high), _further(low, trial))
        return _Carry(following, new_low, *high, bracketed, accepted, carry.evaluations + 1)

    worth_looking = (first_step > 0) & (start.slope < 0)

    def unfinished(carry: _Carry) -> Array:
        return worth_looking & ~carry.accepted & (carry.evaluations < max_evaluations)

    zero, no = jnp.zeros_like(loss), jnp.zeros((), bool)
    carry = _Carry(first_step, start, zero, zero, zero, no, no, jnp.int32(0))
    carry = lax.while_loop(unfinished, look, carry)
    # A step too small to change the image is none, whatever its number says.
    return Search(carry.low, carry.evaluations, jnp.all(carry.low.image == image))


def _inside(low: Point, high_step: Array, high_loss: Array, high_slope: Array) -> Array:
    """The minimum of the cubic through both ends of a bracket, kept away from the ends."""
    width = high_step - low.step
    chord = low.slope + high_slope - 3 * (high_loss - low.loss) / width
    root = jnp.sqrt(jnp.maximum(chord**2 - low.slope * high_slope, 0)) * jnp.sign(width)
    share = 1 - (high_slope + root - chord) / (high_slope - low.slope + 2 * root)
    # Beyond a place that is not finite nothing is known but that it is too far.
    share = jnp.where(jnp.isfinite(share), jnp.clip(share, 0.1, 0.9), 0.1)
    return low.step + share * width


def _further(low: Point, trial: Point) -> Array:
    """A longer step, where the slope would vanish if it went on changing as it did."""
    gone = trial.step - low.step
    share = trial.slope / (low.slope - trial.slope)
    share = jnp.where(share > 0, jnp.clip(share, 0.5, 4.0), 4.0)
    return trial.step + share * gone
