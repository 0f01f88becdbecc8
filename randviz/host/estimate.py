"""What a descent will take, said beforehand: memory at its peak, and seconds a step.

Memory comes from XLA, which plans all of it when it compiles a program; nothing of the size in
question is allocated to find out. Time comes from a few steps that are really taken.
"""

import pathlib
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import psutil

from randviz.descent import descent
from randviz.descent.solver import Objective, Solver
from randviz.host.progress import format_seconds
from randviz.types import Image, UserError

_MIB = 2**20
_GROUPS = "/sys/fs/cgroup"  # where Linux says what a container may use
# What a process holds that no analysis reports: the programs that prepare a descent and what the
# compiler leaves behind. Measured (BUILD_NOTES.md), and the same for pictures of 256 and 1024.
_PREPARATION = 190 * _MIB
_PACE_SECONDS = 2.0  # at least so long, or two steps, is the pace measured


def check_resources(
    name: str,
    make_objective: Callable[[], Objective],
    start: Image | jax.ShapeDtypeStruct,
    *,
    num_steps: int,
    dry_run: bool,
    solver: Solver | str = "jaxopt",
    num_together: int = 1,
    num_workers: int = 1,
    shape: tuple[int, ...] | None = None,
) -> bool:
    """What a command does before its descents: it refuses what will not fit; or only reports.

    Args:
      name: of the command.
      make_objective: makes the objective of the largest of its descents.
      start: [H, W, 3], where that one starts, or its shape.
      num_steps: of all descents together.
      dry_run: whether the command only reports.
      solver: as in `descent.init`.
      num_together: how many descents share one program.
      num_workers: how many processes do so; the time that is reported is that of one.
      shape: (H, W) of the result, if a margin of what descends is cut off.

    Returns:
      Whether the command has reported, and ends here.

    Raises:
      UserError: if the descent does not fit into memory.
    """
    estimate = estimate_descent(make_objective, start, num_together=num_together, solver=solver)
    height, width = shape or start.shape[:2]
    check_memory(estimate, max(height, width))
    together = num_workers * estimate.peak  # each has what this process has, too
    if num_workers > 1 and together > estimate.free:
        raise UserError(
            f"--num_workers={num_workers} need about {format_bytes(together)} of memory together"
            f" and {format_bytes(estimate.free)} are free; take fewer."
        )
    if dry_run:
        began = time.monotonic()
        pace = measure_pace(make_objective(), start.shape, solver=solver)
        seconds = time.monotonic() - began + num_steps * pace
        alone = " in one process" if num_workers > 1 else ""
        print(
            f"{name}: {width}×{height} pixels take about"
            f" {format_bytes(estimate.peak)} of memory at the peak ({format_bytes(estimate.free)}"
            f" are free) and about {format_seconds(seconds)} at {1 / pace:.2g} steps/s{alone}."
        )
    return dry_run


class Estimate(NamedTuple):
    """Memory that a descent will take, in bytes.

    Attributes:
      peak: of the whole process on a CPU; of the device's memory elsewhere.
      more: how much of it is still to be allocated.
      growing: how much of that grows with the number of pixels.
      free: what is there to be allocated.
    """

    peak: int
    more: int
    growing: int
    free: int


def estimate_descent(
    make_objective: Callable[[], Objective],
    start: Image | jax.ShapeDtypeStruct,
    *,
    solver: Solver | str = "jaxopt",
    num_together: int = 1,
) -> Estimate:
    """Compiles a descent's step and reads from it what the descent will take.

    Args:
      make_objective: makes the objective; only traced, so that nothing is allocated.
      start: [H, W, 3], or its shape.
      solver: as in `descent.init`.
      num_together: how many such descents one program makes, under `vmap`.

    Returns:
      The estimate. The program is kept by JAX, and the descent itself need not compile it again.
    """
    objective = jax.eval_shape(make_objective)
    init = lambda objective, image: descent.init(objective, image, solver=solver)
    state = jax.eval_shape(init, objective, start)
    plan = descent.compile_steps(objective, state, solver=solver).memory_analysis()
    used = _count_bytes((objective, state))
    used += plan.output_size_in_bytes + plan.temp_size_in_bytes
    # The weights' size does not depend on the image's.
    growing = num_together * (used - _count_bytes(getattr(objective, "extractor", ())))
    more = num_together * used
    if jax.default_backend() == "cpu":
        more += _PREPARATION
        before, free = psutil.Process().memory_info().rss, _read_free_memory()
    else:
        # Some allocators say nothing.
        stats = jax.devices()[0].memory_stats() or {}
        before = stats.get("bytes_in_use", 0)
        free = stats.get("bytes_limit", sys.maxsize) - before
    return Estimate(before + more, more, growing, free)


def _count_bytes(tree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _read_free_memory() -> int:
    """Bytes that this process may still allocate: the machine's, or its container's."""
    free = psutil.virtual_memory().available
    for folder, limit, used, cached in (
        ("", "memory.max", "memory.current", "inactive_file"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        group = pathlib.Path(_GROUPS, folder)
        try:
            numbers = [int((group / name).read_text()) for name in (limit, used)]
            lines = (group / "memory.stat").read_text().splitlines()
            # Files that were read count as used, and are forgotten where room is asked for.
            reclaimable = int(dict(line.split() for line in lines)[cached])
        except (OSError, ValueError, KeyError):
            continue  # no such group, or "max"
        free = min(free, numbers[0] - numbers[1] + reclaimable)
    return free


def check_memory(estimate: Estimate, longest: int) -> None:
    """Refuses a descent that will not fit.

    Args:
      estimate: of the descent.
      longest: longest side of its result, in pixels.

    Raises:
      UserError: naming what it needs, what is free, and the longest side that would fit.
    """
    if estimate.more <= estimate.free:
        return
    said = (
        f"this needs about {format_bytes(estimate.more)} more memory and"
        f" {format_bytes(estimate.free)} are free"
    )
    room = estimate.free - (estimate.more - estimate.growing)
    side = int(longest * max(room / estimate.growing, 0) ** 0.5)
    if side < 16:
        raise UserError(f"{said}; no picture would fit, but a shallower layer may.")
    raise UserError(f"{said}; a picture with a longest side of {side} pixels would fit.")


def measure_pace(
    objective: Objective, shape: tuple[int, ...], *, solver: Solver | str = "jaxopt"
) -> float:
    """Takes a few steps and returns the seconds of one evaluation, compilation not counted.

    A step is one evaluation and now and then two.
    """
    state = descent.init(objective, jnp.full(shape, 0.5, jnp.float32), solver=solver)
    state, _ = descent.advance(objective, state, num_steps=1, solver=solver)
    jax.block_until_ready(state)
    began, steps, evaluations = time.monotonic(), 0, 0
    while steps < 2 or time.monotonic() - began < _PACE_SECONDS:
        state, trace = descent.advance(objective, state, num_steps=1, solver=solver)
        evaluations += int(trace.evaluations[0])
        steps += 1
    return (time.monotonic() - began) / max(evaluations, 1)


def format_bytes(count: float) -> str:
    """Writes a number of bytes as people read it.

    Example:
      >>> format_bytes(4.4e9), format_bytes(3e8)
      ('4.4 GB', '300 MB')
    """
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
