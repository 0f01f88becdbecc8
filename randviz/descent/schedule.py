"""Coarse to fine: descents at growing sizes, each from the result of the one before."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from randviz.descent.descent import Progress, minimize
from randviz.descent.solver import Objective, Result, Solver, Trace
from randviz.types import Image, UserError


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Sizes and steps of a descent from coarse to fine.

    Attributes:
      sizes: longest sides in pixels, growing; S of them.
      steps: of the descent at each size; S of them.

    Raises:
      UserError: for no sizes, sizes that do not grow, or not as many steps as sizes.
    """

    sizes: tuple[int, ...]
    steps: tuple[int, ...]

    def __post_init__(self):
        sizes, steps = (",".join(map(str, numbers)) for numbers in (self.sizes, self.steps))
        if not self.sizes or list(self.sizes) != sorted({*self.sizes}) or self.sizes[0] < 1:
            raise UserError(f"the sizes {sizes or 'given'} do not grow; give growing numbers.")
        if len(self.steps) != len(self.sizes) or min(self.steps) < 0:
            raise UserError(
                f"there are sizes {sizes} and steps {steps}; give one number of steps, at least 0,"
                " for each size."
            )

    @property
    def num_steps(self) -> int:
        """Of all sizes together."""
        return sum(self.steps)

    def shapes(self, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        """The shapes of an image at each size.

        Args:
          shape: (H, W) of the image in full; further numbers are ignored.

        Returns:
          (H, W) at each size; the last is the full one if its longest side is the last size.
        """
        return [scale_shape(shape[:2], size / max(shape[:2])) for size in self.sizes]


def plan_schedule(
    size: int,
    num_steps: int,
    *,
    min_size: int | None = None,
    num_scales: int | None = None,
    ratio: float = math.sqrt(2),
) -> Schedule:
    """Plans a schedule up to a size, its sizes in a geometric series.

    Args:
      size: the last longest side, in pixels.
      num_steps: of all sizes together, divided so that coarse sizes get more: in proportion to
        one over the size.
      min_size: the first longest side; with `num_scales` alone, each size is `ratio` times the one
        before.
      num_scales: how many sizes; with `min_size` alone, as many as come nearest to the ratio. With
        neither there is one size.
      ratio: above 1; not used with both.

    Returns:
      The schedule.

    Raises:
      UserError: if min_size is above size, or there is no scale.

    Example:
      >>> plan_schedule(256, 290, min_size=128)
      Schedule(sizes=(128, 181, 256), steps=(131, 93, 66))
    """
    if num_scales is not None and num_scales < 1:
        raise UserError(f"{num_scales} scales were asked for; there must be at least 1.")
    if min_size is None:
        min_size = max(1, round(size * ratio ** -((num_scales or 1) - 1)))
    if not 1 <= min_size <= size:
        raise UserError(f"the smallest size {min_size} is not between 1 and the size {size}.")
    if num_scales is None:
        num_scales = 1 + round(math.log(size / min_size, ratio))
        num_scales = max(num_scales, 1 + (min_size < size))
    num_scales = min(num_scales, size)  # there are no more whole numbers
    ratios = [index / max(num_scales - 1, 1) for index in range(num_scales)]
    sizes = sorted({round(min_size * (size / min_size) ** ratio) for ratio in ratios[:-1]} | {size})
    return Schedule(tuple(sizes), share_steps(num_steps, [1 / size for size in sizes]))


def share_steps(num_steps: int, shares: Sequence[float]) -> tuple[int, ...]:
    """Divides steps in proportion to shares, so that they sum up exactly.

    Args:
      num_steps: of all shares together.
      shares: at least 0, not all 0.

    Returns:
      The steps of each share.
    """
    ends = [round(num_steps * sum(shares[: i + 1]) / sum(shares)) for i in range(len(shares))]
    return tuple(end - begin for begin, end in zip([0, *ends[:-1]], ends, strict=True))


def scale_shape(shape: Sequence[int], factor: float) -> tuple[int, ...]:
    """Scales (H, W); neither side falls below one pixel."""
    height, width = (max(1, round(side * factor)) for side in shape)
    return height, width


def resize(image: Image, shape: tuple[int, ...], *, periodic: bool = False) -> Image:
    """Scales an image, as a photograph is reduced and a result enlarged.

    Args:
      image: [H, W, 3], or a mask [H, W].
      shape: (H', W').
      periodic: whether the image repeats beyond its edges.

    Returns:
      [H', W', 3], which may leave the range of the image a little; or [H', W'], which does not.
    """
    if image.shape[:2] == tuple(shape):
        return image
    smaller = shape[0] * shape[1] < image.shape[0] * image.shape[1]
    method = "linear" if image.ndim == 2 else "lanczos3" if smaller else "cubic"
    shape = (*shape, *image.shape[2:])
    if not periodic:
        return jax.image.resize(image, shape, method, antialias=True)
    scales = [after / before for after, before in zip(shape[:2], image.shape[:2], strict=True)]
    # As far as the kernels reach, three pixels of the smaller image.
    margins = [math.ceil(3 / min(1, scale)) for scale in scales]
    rest = [(0, 0)] * (image.ndim - 2)
    wrapped = jnp.pad(image, [(margin, margin) for margin in margins] + rest, "wrap")
    moves = [-margin * scale for margin, scale in zip(margins, scales, strict=True)]
    scales, moves = (jnp.array(values, jnp.float32) for values in (scales, moves))
    return jax.image.scale_and_translate(wrapped, shape, (0, 1), scales, moves, method)


def minimize_coarse_to_fine(
    make_objective: Callable[[int], Objective],
    image: Image,
    shape: tuple[int, ...],
    schedule: Schedule,
    *,
    solver: Solver | str = "jaxopt",
    periodic: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Descends at each size of a schedule, from the result of the size before.

    Args:
      make_objective: number of the size in the schedule, from 0 → the objective there.
      image: [h, w, 3], the start, of any size; it is scaled to the first size.
      shape: (H, W) in full size.
      schedule: sizes and steps.
      solver: a value, or its name.
      periodic: whether the image repeats beyond its edges, where it is scaled.
      progress: as in `minimize`; steps are counted over all sizes.

    Returns:
      The last result and the traces of all sizes, one after another.

    Raises:
      UserError: as `minimize`.
    """
    traces: list[Trace] = []
    shapes = schedule.shapes(shape)
    for scale, (each, num_steps) in enumerate(zip(shapes, schedule.steps, strict=True)):
        start = resize(image, each, periodic=periodic)
        result = minimize(
            make_objective(scale),
            start,
            num_steps=num_steps,
            solver=solver,
            progress=progress and _count_from(progress, sum(schedule.steps[:scale])),
        )
        image = result.image
        traces.append(result.trace)
    return Result(image, jax.tree.map(lambda *parts: jnp.concatenate(parts), *traces))


def _count_from(progress: Progress, first: int) -> Progress:
    """The same, told of steps after earlier ones."""
    return lambda found: progress(found._replace(step=first + found.step))
