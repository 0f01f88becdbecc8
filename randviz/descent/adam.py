"""Adam, for objectives that are redrawn at each step, where a line search has no meaning."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from randviz.descent.solver import Objective, Solver, State, Trace
from randviz.objectives.objective import objective_at
from randviz.types import Array, Image

_EPSILON = 1e-20


@dataclasses.dataclass(frozen=True)
class Adam(Solver):
    """optax's Adam, with a cosine decay of its rate and an average of the last iterates.

    Attributes:
      learning_rate: of the first step, in units of the image; 0.02 is about five grey levels, the
        size that Adam's steps have.
      final_rate: share of it that is left at the last step.
      average: decay of an exponential average of the iterates over the second half of the planned
        steps, which is the result; 0 returns the last iterate.
      momentum: β₁, the decay of the average over gradients.
    """

    learning_rate: float = 0.02
    final_rate: float = 1.0
    average: float = 0.0
    momentum: float = 0.9
    takes_redrawn = True

    def init(self, objective: Objective, image: Image, num_steps: Array) -> tuple[Array, Any]:
        del objective  # the first step evaluates it, so that one program compiles it and not two
        loss = jnp.full((), jnp.inf, image.dtype)
        return loss, (self._scale().init(image), image, image, num_steps)

    def _scale(self) -> optax.GradientTransformation:
        # Differs from Kingma and Ba (2015), whose ε is 1e-8: gradients of means over positions are
        # about as small in a picture of 4096 pixels a side, and steps would be half as long there.
        return optax.scale_by_adam(b1=self.momentum, eps=_EPSILON)

    def move(self, objective: Objective, state: State) -> tuple[Image, Any, Trace]:
        moments, image, average, num_steps = state.inner
        # Where the step before leads is evaluated before it is kept; the first looks at the start.
        loss, grad = jax.value_and_grad(objective_at(objective, state.step))(image)
        updates: Any  # a pytree, here an image
        updates, moments = self._scale().update(grad, moments)
        progress = state.step / jnp.maximum(num_steps, 1).astype(jnp.float32)
        # Beyond the plan the rate stays; without one it does not decay.
        progress = jnp.where(num_steps > 0, jnp.minimum(progress, 1.0), 0.0)
        decay = self.final_rate + (1 - self.final_rate) * (1 + jnp.cos(jnp.pi * progress)) / 2
        rate = (self.learning_rate * decay).astype(jnp.float32)
        keep = jnp.where(2 * state.step >= num_steps, self.average, 0.0).astype(image.dtype)
        average = keep * average + (1 - keep) * image
        trace = Trace(
            loss=loss,
            gradient_norm=jnp.linalg.norm(grad),
            step_size=rate,
            evaluations=jnp.int32(1),
            failed=jnp.zeros((), bool),
        )
        return image, (moments, image - rate * updates, average, num_steps), trace

    def next_place(self, state: State) -> Image:
        return state.inner[1]

    def result(self, state: State) -> Image:
        return state.inner[2]
