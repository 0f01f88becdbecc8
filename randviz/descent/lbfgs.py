"""L-BFGS on one image, compiled, in chunks; the only file that knows which library does the work.

`jaxopt` (the default) is jaxopt's L-BFGS with a line search of our own: its two-loop recursion and
memory are kept, its zoom search is replaced because it wastes two thirds of its evaluations on
textures. `optax` is optax's L-BFGS and `adam` optax's Adam, for comparison.

There is no stopping rule. jaxopt's and scipy's default one is an absolute gradient norm, so an
objective scaled by 1e-8 stops after one step and reports success. A descent here takes as many
steps as it was asked for, and what went wrong on the way stands in its trace.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from randviz.descent.line_search import search_line
from randviz.types import Array, Image, UserError

with warnings.catch_warnings():
    # Importing jaxopt warns that it is no longer developed, which we know (BUILD_NOTES.md).
    warnings.simplefilter("ignore", DeprecationWarning)
    import jaxopt

Objective = Callable[[Image], Array]

# How many steps L-BFGS remembers by default. With 40 in place of 20, textures and styles come down
# to the same loss in a tenth to a third fewer steps (BUILD_NOTES.md).
MEMORY = 40

_GREY_LEVEL = 1 / 255
_ADAM_LEARNING_RATE = 0.02  # about five grey levels a step, the size that Adam's steps have
# The cosine between a step and the change of gradient it caused below which the pair says nothing
# about curvature but rounding. Relative, so that a scaled objective takes the same path.
_SMALLEST_COSINE = 1e-6
_SMALLEST_CAPACITY = 64  # steps that a compiled program has room for in its trace, at the least


class State(NamedTuple):
    """What a descent carries from step to step: arrays only, so that it can be saved.

    Attributes:
      image: [H, W, 3], where the descent stands.
      loss: the objective there.
      failures: int32, how many of the last steps failed without a good one between them.
      inner: the solver's own state.
    """

    image: Image
    loss: Array
    failures: Array
    inner: Any


class Trace(NamedTuple):
    """What happened, step by step.

    Attributes:
      loss: [T], the objective after each step.
      gradient_norm: [T], Euclidean norm of its gradient; not finite where that was refused.
      step_size: [T], in units of the direction; 0 where the step failed.
      evaluations: [T], int32, how often value and gradient were computed in the step.
      failed: [T], whether the step led nowhere: to a value that is not finite, or, with L-BFGS, to
        nothing better. With jaxopt the image then stayed as it was; optax may rise, as Adam may
        without failing.
    """

    loss: Array
    gradient_norm: Array
    step_size: Array
    evaluations: Array
    failed: Array


class Result(NamedTuple):
    """The end of a descent.

    Attributes:
      image: [H, W, 3], not clipped.
      trace: how it got there, [T] each.
    """

    image: Image
    trace: Trace


class _Found(NamedTuple):
    """A search's result in the words that jaxopt's update reads."""

    params: Array
    value: Array
    grad: Array
    aux: None
    failed: Array
    iter_num: Array
    num_grad_eval: Array
    num_fun_eval: Array


class _Lbfgs(jaxopt.LBFGS):
    """jaxopt's L-BFGS with its line search replaced and guards added."""

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
        point = found.point
        evaluations = found.evaluations
        return point.step, _Found(
            point.image,
            point.loss,
            point.grad,
            None,
            found.failed,
            evaluations,
            evaluations,
            evaluations,
        )


def _first_gamma(grad: Array) -> Array:
    """The scale at which a step straight downhill moves a pixel by about one grey level."""
    size = jnp.mean(jnp.abs(grad))
    return jnp.where(size > 0, _GREY_LEVEL / size, 0.0)


def _jaxopt_solver(memory: int) -> _Lbfgs:
    return _Lbfgs(
        fun=lambda image, objective: objective(image),
        history_size=memory,
        linesearch_init="current",  # first tries the step that stands in the state
        implicit_diff=False,
    )


def _init_jaxopt(objective: Objective, image: Image, memory: int):
    inner = _jaxopt_solver(memory).init_state(image, objective)
    return inner.value, inner._replace(gamma=_first_gamma(inner.grad))


def _step_jaxopt(objective: Objective, state: State):
    old = state.inner
    solver = _jaxopt_solver(old.rho_history.shape[0])
    # After two failures in a row, the second from a fresh memory, the descent has arrived: a first
    # step of 0 asks for no search.
    old = old._replace(stepsize=jnp.where(state.failures < 2, 1.0, 0.0))
    image, new = solver.update(state.image, old, objective)
    newest = old.iter_num % solver.history_size
    s, y = new.s_history[newest], new.y_history[newest]
    sizes = jnp.sqrt(jnp.vdot(s, s)) * jnp.sqrt(jnp.vdot(y, y))
    curved = jnp.vdot(s, y) > _SMALLEST_COSINE * sizes
    rho = new.rho_history.at[newest].set(jnp.where(curved, new.rho_history[newest], 0.0))
    gamma = jnp.where(curved, new.gamma, old.gamma)
    # A failed search empties the memory and goes on with a cautious step downhill, as in L-BFGS-B.
    failed = new.failed_linesearch
    inner = new._replace(
        rho_history=jnp.where(failed, 0.0, rho),
        gamma=jnp.where(failed, _first_gamma(new.grad), gamma),
    )
    evaluations = new.num_grad_eval - old.num_grad_eval
    return image, inner, Trace(new.value, new.error, new.stepsize, evaluations, failed)


def _optax_solver(memory: int):
    return optax.lbfgs(memory_size=memory)


def _init_optax(objective: Objective, image: Image, memory: int):
    return objective(image), _optax_solver(memory).init(image)


def _step_optax(objective: Objective, state: State):
    memory = optax.tree.get(state.inner, "weights_memory").shape[0]
    solver = _optax_solver(memory)
    known = jnp.isfinite(optax.tree.get(state.inner, "value"))
    loss, grad = optax.value_and_grad_from_state(objective)(state.image, state=state.inner)
    updates, inner = solver.update(
        grad, state.inner, state.image, value=loss, grad=grad, value_fn=objective
    )
    found = inner[-1]
    searched = found.info.num_linesearch_steps
    return (
        state.image + updates,
        inner,
        Trace(
            loss=found.value,
            gradient_norm=jnp.linalg.norm(found.grad),
            step_size=found.learning_rate,
            evaluations=searched + jnp.where(known, 0, 1),
            failed=~(found.value < loss),
        ),
    )


def _init_adam(objective: Objective, image: Image, memory: int):
    del memory
    loss, grad = jax.value_and_grad(objective)(image)
    return loss, (optax.adam(_ADAM_LEARNING_RATE).init(image), grad)


def _step_adam(objective: Objective, state: State):
    adam, grad = state.inner
    updates, adam = optax.adam(_ADAM_LEARNING_RATE).update(grad, adam)
    image = state.image + updates
    # Evaluated where the step ends, so that a bad place is known before it is kept.
    loss, grad = jax.value_and_grad(objective)(image)
    row = Trace(
        loss=loss,
        gradient_norm=jnp.linalg.norm(grad),
        step_size=jnp.float32(_ADAM_LEARNING_RATE),
        evaluations=jnp.int32(1),
        failed=jnp.zeros((), bool),
    )
    return image, (adam, grad), row


_SOLVERS = {
    "jaxopt": (_init_jaxopt, _step_jaxopt),
    "optax": (_init_optax, _step_optax),
    "adam": (_init_adam, _step_adam),
}
SOLVERS = tuple(_SOLVERS)


def check_solver(solver: str) -> None:
    """Raises UserError if there is no such solver."""
    if solver not in SOLVERS:
        raise UserError(f"solver {solver!r} is unknown; use one of {', '.join(SOLVERS)}.")


@functools.partial(jax.jit, static_argnames=("solver", "memory"))
def init(
    objective: Objective, image: Image, *, solver: str = "jaxopt", memory: int = MEMORY
) -> State:
    """Prepares a descent.

    Args:
      objective: a callable pytree, image → scalar.
      image: [H, W, 3], the start.
      solver: "jaxopt", "optax" or "adam".
      memory: how many steps L-BFGS remembers.

    Returns:
      The state before the first step.

    Raises:
      UserError: for an unknown solver.
    """
    check_solver(solver)
    loss, inner = _SOLVERS[solver][0](objective, image, memory)
    return State(image, loss, jnp.int32(0), inner)


def advance(
    objective: Objective, state: State, *, num_steps: int, solver: str = "jaxopt"
) -> tuple[State, Trace]:
    """Descends some steps further.

    One compiled program serves every number of steps up to its trace's capacity, and two chunks
    give the same bits as one.

    Args:
      objective: as given to `init`.
      state: from `init` or an earlier `advance`.
      num_steps: T, how many steps.
      solver: as given to `init`.

    Returns:
      The state after the last step, and the trace of these steps, [T] each. A step to a value that
      is not finite leaves the image as it was and says so in the trace.

    Raises:
      UserError: for an unknown solver or a negative number of steps.

    Example:
      >>> from jax.tree_util import Partial
      >>> bowl = Partial(lambda image: jnp.sum(jnp.square(image - 0.25)))
      >>> state = init(bowl, jnp.ones((4, 5, 3)))
      >>> state, trace = advance(bowl, state, num_steps=8)
      >>> bool(jnp.allclose(state.image, 0.25)), trace.loss.shape
      (True, (8,))
    """
    check_solver(solver)
    if num_steps < 0:
        raise UserError(f"num_steps is {num_steps}; it must not be negative.")
    capacity = max(_SMALLEST_CAPACITY, 1 << (num_steps - 1).bit_length())
    state, trace = _advance(objective, state, num_steps, capacity=capacity, solver=solver)
    return state, jax.tree.map(lambda values: values[:num_steps], trace)


@functools.partial(jax.jit, static_argnames=("capacity", "solver"))
def _advance(objective: Objective, state: State, num_steps: Array, *, capacity: int, solver: str):
    step = _SOLVERS[solver][1]
    empty = Trace(*(jnp.zeros(capacity, dtype) for dtype in (jnp.float32,) * 3 + (jnp.int32, bool)))

    def body(index, carry):
        state, trace = carry
        image, inner, row = step(objective, state)
        finite = jnp.isfinite(row.loss) & jnp.isfinite(row.gradient_norm)
        row = row._replace(failed=row.failed | ~finite)
        failures = jnp.where(row.failed, state.failures + 1, 0)
        new = State(image, row.loss, failures, inner)
        if solver != "jaxopt":  # whose search accepts no such place
            # The last good state is kept whole, the solver's memory included.
            kept = state._replace(failures=failures)
            new = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, kept)
        row = row._replace(loss=new.loss, step_size=jnp.where(row.failed, 0.0, row.step_size))
        return new, jax.tree.map(lambda all, one: all.at[index].set(one), trace, row)

    # The number of steps is an argument, not a constant: another chunk length is the same program.
    return lax.fori_loop(0, num_steps, body, (state, empty))


def compile_steps(objective: Objective, state: State, *, solver: str = "jaxopt"):
    """Compiles what `advance` runs for up to 64 steps, without running it.

    Args:
      objective: as given to `init`, or what `jax.eval_shape` makes of it.
      state: likewise.
      solver: as given to `init`.

    Returns:
      The compiled program, for `memory_analysis()` and `cost_analysis()`. JAX keeps it, so that
      `advance` does not compile it again.
    """
    capacity = _SMALLEST_CAPACITY
    return _advance.lower(objective, state, 1, capacity=capacity, solver=solver).compile()


def minimize(
    objective: Objective,
    image: Image,
    *,
    num_steps: int,
    solver: str = "jaxopt",
    memory: int = MEMORY,
) -> Result:
    """Descends from an image in one go: `init`, then `advance`.

    Args:
      objective: a callable pytree, image → scalar.
      image: [H, W, 3], the start.
      num_steps: T.
      solver: "jaxopt", "optax" or "adam".
      memory: how many steps L-BFGS remembers.

    Returns:
      The last image and the trace, [T] each.
    """
    state = init(objective, image, solver=solver, memory=memory)
    state, trace = advance(objective, state, num_steps=num_steps, solver=solver)
    return Result(state.image, trace)
