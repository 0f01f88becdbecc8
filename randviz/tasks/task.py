"""What the three tasks share: an objective for each size, fixed or redrawn, and the descent."""

from typing import Any, NamedTuple

import jax

from randviz.descent.descent import Progress, minimize
from randviz.descent.schedule import Schedule, minimize_coarse_to_fine, resize, scale_shape
from randviz.descent.solver import Result, Solver
from randviz.networks.extractor import Extractor
from randviz.objectives.objective import Objective, Redrawn, Sampler, Task
from randviz.types import Image, Key


class Descent(NamedTuple):
    """What descends: a task, its images in full size, and what is random about it.

    Attributes:
      task: `Inversion`, `Texture` or `Style`.
      source: an extractor, or what weights are drawn from anew at each step.
      images: the task's arguments, a pytree of images [H, W, 3].
      key: of what is drawn, once or at each step.
      redraw: whether random parts of the statistics are drawn anew at each step, although the
        extractor stays.
      solver: what descends where none is named; None for L-BFGS, or the averaged Adam where
        something is redrawn.
      periodic: whether the image that descends repeats beyond its edges.
    """

    task: Task
    source: Extractor | Sampler
    images: tuple[Any, ...]
    key: Key
    redraw: bool = False
    solver: Solver | None = None
    periodic: bool = False

    @property
    def is_redrawn(self) -> bool:
        """Whether the objective is another one at each step."""
        return self.redraw or not isinstance(self.source, Extractor)

    def objective(self, factor: float = 1.0, scale: int = 0) -> Objective | Redrawn:
        """Makes the objective at one size.

        Args:
          factor: what all images are scaled by.
          scale: number of the size in its schedule, for a key of its own.

        Raises:
          UserError: as the task's `of`.
        """
        images = jax.tree.map(lambda x: resize(x, scale_shape(x.shape[:2], factor)), self.images)
        key = jax.random.fold_in(self.key, scale)
        if self.redraw or not isinstance(self.source, Extractor):
            return Redrawn(key, self.source, self.task, images)
        return self.task.of(self.source, *images, key=key)

    def default_solver(self) -> Solver | str:
        """The solver where none is asked for."""
        return self.solver or ("averaged_adam" if self.is_redrawn else "jaxopt")


def first_shape(shape: tuple[int, ...], schedule: Schedule | None) -> tuple[int, ...]:
    """The shape of a descent's first image, (H, W) of the result if there is no schedule."""
    return tuple(shape) if schedule is None else schedule.shapes(shape)[0]


def run(
    descent: Descent,
    start: Image,
    shape: tuple[int, ...],
    num_steps: int,
    solver: Solver | str | None,
    schedule: Schedule | None,
    progress: Progress | None = None,
) -> Result:
    """Runs a descent, at one size or from coarse to fine.

    Args:
      descent: what descends.
      start: [h, w, 3], of any size with a schedule.
      shape: (H, W) of the result.
      num_steps: T, where there is no schedule.
      solver: a value or a name; None for the descent's default.
      schedule: sizes and steps, or None.
      progress: as in `minimize`.

    Returns:
      The result's image and the trace.

    Raises:
      UserError: as the task, the solver and the schedule.
    """
    solver = descent.default_solver() if solver is None else solver
    if schedule is None:
        return minimize(
            descent.objective(), start, num_steps=num_steps, solver=solver, progress=progress
        )
    factors = [size / max(shape) for size in schedule.sizes]
    make_objective = lambda scale: descent.objective(factors[scale], scale)
    return minimize_coarse_to_fine(
        make_objective,
        start,
        shape,
        schedule,
        solver=solver,
        periodic=descent.periodic,
        progress=progress,
    )
