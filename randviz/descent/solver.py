"""What solvers share: their state, their trace, and what a solver is."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from randviz.types import Array, Image

Objective = Callable[[Image], Array]


class State(NamedTuple):
    """What a descent carries from step to step: arrays only, so that it can be saved.

    Attributes:
      image: [H, W, 3], where the descent stands.
      loss: the objective there; infinity where it was not evaluated yet.
      failures: int32, how many of the last steps failed without a good one between them.
      step: int32, how many steps were taken.
      inner: the solver's own state.
    """

    image: Image
    loss: Array
    failures: Array
    step: Array
    inner: Any


class Trace(NamedTuple):
    """What happened, step by step.

    Attributes:
      loss: [T], the objective after each step; of a redrawn objective, as drawn for the step.
      gradient_norm: [T], Euclidean norm of its gradient; not finite where that was refused.
      step_size: [T], in units of the direction; 0 where the step failed.
      evaluations: [T], int32, how often value and gradient were computed in the step.
      failed: [T], whether the step made no progress: it led to a value that is not finite, or, with
        L-BFGS, to nothing better, and the image stayed as it was. Adam may rise without failing.
    """

    loss: Array
    gradient_norm: Array
    step_size: Array
    evaluations: Array
    failed: Array


class Result(NamedTuple):
    """The end of a descent; a notebook shows its picture.

    Attributes:
      image: [H, W, 3], not clipped.
      trace: how it got there, [T] each.
    """

    image: Image
    trace: Trace


@dataclasses.dataclass(frozen=True)
class Solver:
    """A method of descent: a value, static and hashable.

    A subclass has `init` and `move`.
    """

    # Whether `init` and `move` take an objective that is redrawn at each step.
    takes_redrawn = False
    # Whether `move` itself never accepts a place where the loss is not finite.
    refuses_non_finite = False

    def init(self, objective: Objective, image: Image, num_steps: Array) -> tuple[Array, Any]:
        """Prepares a descent.

        Args:
          objective: image → scalar.
          image: [H, W, 3], the start.
          num_steps: int32, how many steps are planned in all.

        Returns:
          The loss at the start, infinity if the first step is to find it, and the solver's own
          state.
        """
        raise NotImplementedError

    def move(self, objective: Objective, state: State) -> tuple[Image, Any, Trace]:
        """Takes one step.

        Args:
          objective: image → scalar.
          state: where the descent stands.

        Returns:
          The new image, the solver's own state, and the step's line of the trace.
        """
        raise NotImplementedError

    def next_place(self, state: State) -> Image:
        """Where the next step evaluates the objective first, [H, W, 3]."""
        return state.image

    def result(self, state: State) -> Image:
        """The image that the descent returns, [H, W, 3]: where it stands, or an average."""
        return state.image


def choose(condition: Array, new: Any, old: Any) -> Any:
    """The one pytree or the other, leaf by leaf."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)
