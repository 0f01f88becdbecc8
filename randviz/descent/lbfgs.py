"""L-BFGS, jaxopt's and optax's, both with a line search of our own.

Their two-loop recursion and memory are kept. Their zoom searches are replaced because they waste
evaluations: jaxopt's wastes two thirds of them on textures. optax leaves the search to the caller.
jaxopt does not: a subclass replaces its search and adds guards, which needs internals of jaxopt
0.8.5, its last version. So the dependency is bounded, and a test says when the internals move.

There is no stopping rule. jaxopt's and scipy's default one is an absolute gradient norm, so an
objective scaled by 1e-8 stops after one step and reports success. A descent here takes as many
steps as it was asked for, and what went wrong on the way stands in its trace.
"""

import dataclasses
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from randviz.descent.line_search import search_line
from randviz.descent.solver import Objective, Solver, State, Trace, choose
from randviz.types import Array, Image

with warnings.catch_warnings():
    # Importing jaxopt warns that it is no longer developed, which we know (BUILD_NOTES.md).
    warnings.simplefilter("ignore", DeprecationWarning)
    import jaxopt

# How many steps L-BFGS remembers by default. With 40 in place of 20, textures and styles come down
# to the same loss in a tenth to a third fewer steps (BUILD_NOTES.md).
MEMORY = 40

_GREY_LEVEL = 1 / 255
# The cosine between a step and the change of gradient it caused below which the pair says nothing
# about curvature but rounding. Relative, so that a scaled objective takes the same path.
_SMALLEST_COSINE = 1e-6


@dataclasses.dataclass(frozen=True)
class Lbfgs(Solver):
    """What both have.

    Attributes:
      memory: how many steps are remembered.
    """

    memory: int = MEMORY
    refuses_non_finite = True


class JaxoptLbfgs(Lbfgs):
    """jaxopt's L-BFGS."""

    def init(self, objective: Objective, image: Image, num_steps: Array) -> tuple[Array, Any]:
        inner = self._solver().init_state(image, objective)
        return jnp.asarray(inner.value), inner._replace(gamma=_first_gamma(inner.grad))

    def move(self, objective: Objective, state: State) -> tuple[Image, Any, Trace]:
        old = state.inner._replace(stepsize=_first_step(state))
        image, new = self._solver().update(state.image, old, objective)
        newest = old.iter_num % self.memory
        s, y = new.s_history[newest], new.y_history[newest]
        sizes = jnp.sqrt(jnp.vdot(s, s)) * jnp.sqrt(jnp.vdot(y, y))
        curved = jnp.vdot(s, y) > _SMALLEST_COSINE * sizes
        rho = new.rho_history.at[newest].set(jnp.where(curved, new.rho_history[newest], 0.0))
        gamma = jnp.where(curved, new.gamma, old.gamma)
        # A failed search empties the memory and goes on with a cautious step, as in L-BFGS-B.
        failed = new.failed_linesearch
        inner = new._replace(
            rho_history=jnp.where(failed, 0.0, rho),
            gamma=jnp.where(failed, _first_gamma(new.grad), gamma),
        )
        evaluations = new.num_grad_eval - old.num_grad_eval
        return image, inner, Trace(new.value, new.error, new.stepsize, evaluations, failed)

    def _solver(self) -> "_Lbfgs":
        return _Lbfgs(
            fun=lambda image, objective: objective(image),
            history_size=self.memory,
            linesearch_init="current",  # first tries the step that stands in the state
            implicit_diff=False,
        )


class OptaxLbfgs(Lbfgs):
    """optax's L-BFGS."""

    def init(self, objective: Objective, image: Image, num_steps: Array) -> tuple[Array, Any]:
        loss, grad = jax.value_and_grad(objective)(image)
        return loss, (grad, self._solver().init(image))

    def move(self, objective: Objective, state: State) -> tuple[Image, Any, Trace]:
        grad, memory = state.inner
        direction: Any  # a pytree, here an image
        direction, memory = self._solver().update(grad, memory, state.image)
        found = search_line(
            jax.value_and_grad(objective),
            state.image,
            state.loss,
            grad,
            direction,
            _first_step(state),
        )
        # As in `JaxoptLbfgs`: a failed search empties the memory.
        memory = choose(found.failed, self._solver().init(state.image), memory)
        point = found.point
        norm = jnp.linalg.norm(point.grad)
        trace = Trace(point.loss, norm, point.step, found.evaluations, found.failed)
        return point.image, (point.grad, memory), trace

    def _solver(self) -> optax.GradientTransformationExtraArgs:
        return optax.lbfgs(memory_size=self.memory, linesearch=None)


def _first_step(state: State) -> Array:
    """The step that a search tries first.

    After two failures in a row, the second from a fresh memory, the descent has arrived: a first
    step of 0 asks for no search.
    """
    return jnp.where(state.failures < 2, 1.0, 0.0).astype(state.loss.dtype)


def _first_gamma(grad: Array) -> Array:
    """The scale at which a step straight downhill moves a pixel by about one grey level."""
    size = jnp.mean(jnp.abs(grad))
    return jnp.where(size > 0, _GREY_LEVEL / size, 0.0)


class _Found(NamedTuple):
    """A search's result under the names that jaxopt's update reads."""

    params: Array
    value: Array
    grad: Array
    aux: None
    failed: Array
    iter_num: Array
    num_grad_eval: Array
    num_fun_eval: Array


class _Lbfgs(jaxopt.LBFGS):
    """jaxopt's L-BFGS with its line search replaced."""

    def __post_init__(self):
        super().__post_init__()
        self.run_ls = self._search

    def _search(
        self, init_stepsize, params, *, value, grad, descent_direction, fun_args, fun_kwargs
    ):
        found = search_line(
            lambda image: self._value_and_grad_fun(image, *fun_args, **fun_kwargs),
            params,
            value,
            grad,
            descent_direction,
            init_stepsize,
        )
        point, evaluations = found.point, (found.evaluations,) * 3
        return point.step, _Found(
            point.image, point.loss, point.grad, None, found.failed, *evaluations
        )
