"""A descent on one image, compiled, in chunks of steps."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from randviz.descent.adam import Adam
from randviz.descent.lbfgs import JaxoptLbfgs, OptaxLbfgs
from randviz.descent.solver import Objective, Result, Solver, State, Trace, choose
from randviz.types import Array, Image, UserError, as_image

# A new solver is a file beside this one, and a line here.
SOLVERS: dict[str, Solver] = {
    "jaxopt": JaxoptLbfgs(),
    "optax": OptaxLbfgs(),
    "adam": Adam(),
    "averaged_adam": Adam(final_rate=0.02, average=0.95),
}

_NUM_REPORTS = 20  # to `progress`, about
_SMALLEST_CAPACITY = 64  # steps that a compiled program has room for in its trace, at the least


class Iterate(NamedTuple):
    """A descent on its way; a notebook shows its picture.

    Attributes:
      step: how many steps were taken.
      image: [H, W, 3], the result if the descent ended here; not clipped.
      loss: the objective after the last step.
    """

    step: int
    image: Image
    loss: float


Progress = Callable[[Iterate], None]


def find_solver(solver: Solver | str, *, memory: int | None = None) -> Solver:
    """A solver, given as a value or by name.

    Args:
      solver: a value, or a name in `SOLVERS`.
      memory: how many steps an L-BFGS named remembers; None leaves its default.

    Raises:
      UserError: for an unknown name.
    """
    if isinstance(solver, Solver):
        return solver
    if solver not in SOLVERS:
        raise UserError(f"solver {solver!r} is unknown; use one of {', '.join(SOLVERS)}.")
    found = SOLVERS[solver]
    if memory is None or not hasattr(found, "memory"):
        return found
    return dataclasses.replace(found, memory=memory)


def init(
    objective: Objective,
    image: Image,
    *,
    num_steps: int = 0,
    solver: Solver | str = "jaxopt",
) -> State:
    """Prepares a descent.

    Args:
      objective: a callable pytree, image → scalar, or one that is redrawn (`Redrawn`).
      image: [H, W, 3], the start.
      num_steps: how many steps are planned in all; a decaying rate depends on it.
      solver: a value, or its name.

    Returns:
      The state before the first step.

    Raises:
      UserError: for an unknown solver, one that does not take a redrawn objective, or an image
        that is none.
    """
    solver = find_solver(solver)
    _check_redrawn(objective, solver)
    return _init(objective, as_image(image), num_steps, solver=solver)


@functools.partial(jax.jit, static_argnames="solver")
def _init(objective: Objective, image: Image, num_steps: Array, *, solver: Solver) -> State:
    loss, inner = solver.init(objective, image, jnp.int32(num_steps))
    return State(image, loss, jnp.int32(0), jnp.int32(0), inner)


def _check_redrawn(objective: Objective, solver: Solver) -> None:
    if hasattr(objective, "at") and not solver.takes_redrawn:
        fitting = [name for name, known in SOLVERS.items() if known.takes_redrawn]
        raise UserError(
            "a line search cannot descend an objective that is redrawn at each step; use the"
            f" solver {' or '.join(fitting)}."
        )


def advance(
    objective: Objective, state: State, *, num_steps: int, solver: Solver | str = "jaxopt"
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
    state, trace = take_steps(objective, state, num_steps=num_steps, solver=solver)
    return state, jax.tree.map(lambda values: values[:num_steps], trace)


def take_steps(
    objective: Objective, state: State, *, num_steps: int, solver: Solver | str = "jaxopt"
) -> tuple[State, Trace]:
    """As `advance`, but with room in the trace for more steps than are taken.

    To cut it to its length on the device takes a program of its own for each length.
    """
    solver = find_solver(solver)
    num_steps = int(num_steps)
    if num_steps < 0:
        raise UserError(f"num_steps is {num_steps}; it must not be negative.")
    capacity = max(_SMALLEST_CAPACITY, 1 << (num_steps - 1).bit_length())
    return _advance(objective, state, num_steps, capacity=capacity, solver=solver)


@functools.partial(jax.jit, static_argnames=("capacity", "solver"))
def _advance(
    objective: Objective, state: State, num_steps: Array, *, capacity: int, solver: Solver
) -> tuple[State, Trace]:
    empty = Trace(*(jnp.zeros(capacity, dtype) for dtype in (jnp.float32,) * 3 + (jnp.int32, bool)))

    def body(index, carry):
        state, trace = carry
        image, inner, line = solver.move(objective, state)
        finite = jnp.isfinite(line.loss) & jnp.isfinite(line.gradient_norm)
        line = line._replace(failed=line.failed | ~finite)
        failures = jnp.where(line.failed, state.failures + 1, 0)
        new = State(image, line.loss, failures, state.step + 1, inner)
        if not solver.refuses_non_finite:
            # The last good state is kept whole, the solver's memory included.
            kept = state._replace(failures=failures, step=state.step + 1)
            new = choose(finite, new, kept)
        line = line._replace(loss=new.loss, step_size=jnp.where(line.failed, 0.0, line.step_size))
        return new, jax.tree.map(lambda all, one: all.at[index].set(one), trace, line)

    # The number of steps is an argument, not a constant: another chunk length is the same program.
    return lax.fori_loop(0, num_steps, body, (state, empty))


def compile_steps(objective: Objective, state: State, *, solver: Solver | str = "jaxopt"):
    """Compiles what `advance` runs for up to 64 steps, without running it.

    Args:
      objective: as given to `init`, or what `jax.eval_shape` makes of it.
      state: likewise.
      solver: as given to `init`.

    Returns:
      The compiled program, for `memory_analysis()` and `cost_analysis()`. JAX keeps it, so that
      `advance` does not compile it again.
    """
    capacity, solver = _SMALLEST_CAPACITY, find_solver(solver)
    return _advance.lower(objective, state, 1, capacity=capacity, solver=solver).compile()


def minimize(
    objective: Objective,
    image: Image,
    *,
    num_steps: int,
    solver: Solver | str = "jaxopt",
    progress: Progress | None = None,
) -> Result:
    """Descends from an image in one go: `init`, then `advance`.

    Args:
      objective: a callable pytree, image → scalar, or one that is redrawn (`Redrawn`).
      image: [H, W, 3], the start.
      num_steps: T.
      solver: a value, or its name.
      progress: called with an `Iterate` some twenty times on the way, the last at the end; not
        under `jit`. The result is the same, bit for bit.

    Returns:
      The result's image and the trace, [T] each.

    Raises:
      UserError: as `init` and `advance`.
    """
    solver = find_solver(solver)
    if progress is None or num_steps < 1:
        state = init(objective, image, num_steps=num_steps, solver=solver)
        state, trace = advance(objective, state, num_steps=num_steps, solver=solver)
        return Result(solver.result(state), trace)
    every = min(max(num_steps // _NUM_REPORTS, 1), _SMALLEST_CAPACITY)
    traces: list[Trace] = []
    for found, trace in _advance_often(objective, image, num_steps, every, solver):
        traces.append(trace)
        progress(found)
        image = found.image
    return Result(image, jax.tree.map(lambda *parts: jnp.concatenate(parts), *traces))


def _advance_often(
    objective: Objective, image: Image, num_steps: int, every: int, solver: Solver
) -> Iterator[tuple[Iterate, Trace]]:
    """A descent in chunks of so many steps: where each ends, and its trace."""
    state = init(objective, image, num_steps=num_steps, solver=solver)
    for step in range(0, num_steps, every):
        count = min(every, num_steps - step)
        state, trace = advance(objective, state, num_steps=count, solver=solver)
        yield Iterate(step + count, solver.result(state), float(trace.loss[-1])), trace


def iterate(
    objective: Objective,
    image: Image,
    *,
    num_steps: int,
    every: int = 1,
    solver: Solver | str = "jaxopt",
) -> Iterator[Iterate]:
    """Descends a few steps at a time, so that the caller can look, plot and stop.

    Args:
      objective: a callable pytree, image → scalar, or one that is redrawn (`Redrawn`).
      image: [H, W, 3], the start.
      num_steps: T, at most.
      every: steps between two iterates.
      solver: a value, or its name.

    Yields:
      Iterates: after every so many steps, and after the last one.

    Raises:
      UserError: as `init` and `advance`, or for no steps between two iterates.

    Example:
      >>> from jax.tree_util import Partial
      >>> bowl = Partial(lambda image: jnp.sum(jnp.square(image - 0.25)))
      >>> [found.step for found in iterate(bowl, jnp.ones((4, 5, 3)), num_steps=5, every=2)]
      [2, 4, 5]
    """
    if every < 1:
        raise UserError(f"every is {every}; it must be at least 1.")
    for found, _ in _advance_often(objective, image, num_steps, every, find_solver(solver)):
        yield found
