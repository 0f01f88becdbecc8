"""Painting and texture by random filters: the method beyond the paper, and its constants.

The paper's network is cut down to one layer and drawn anew at each step: random filters on two
octaves, whose responses are compared by the means of clipped linear features; of cosines where a
texture grows out of noise. What descends is the expectation over all such networks, from coarse to
fine. The same constants serve all pictures and sizes (BUILD_NOTES.md says how they were chosen).
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from randviz.descent.adam import Adam
from randviz.descent.descent import Progress
from randviz.descent.schedule import Schedule, plan_schedule, scale_shape, share_steps
from randviz.descent.solver import Result
from randviz.networks.conv import pad_sides
from randviz.networks.extractor import IMAGE_LAYER
from randviz.networks.filter_pyramid import RandomPyramid, smallest_side
from randviz.networks.gaussian import as_key, same_draws, split_key
from randviz.objectives.statistics.random_features import CosineMeans, ThresholdMeans
from randviz.tasks.style import Style, as_blend_weights, as_list, as_mask, match_colors
from randviz.tasks.task import Descent, run
from randviz.tasks.texture import Texture
from randviz.types import Array, Image, Key, UserError, as_image

FILTERS = RandomPyramid()
LAYERS = ("octave1", "octave2")
# Where a response is far from all of the painting's, only a wide function has a slope.
STATISTIC = ThresholdMeans("absolute", num_features=4, widest=3.0)
# From noise clipped functions leave the lines of bricks in pieces; cosines take twice their time.
TEXTURE_STATISTIC = CosineMeans("absolute", num_features=4, lowest=1.0, highest=75.0)
SOLVER = Adam(final_rate=0.0, average=0.9, momentum=0.8)
STRENGTH = 0.5
NOISE_STD = 0.1

# The content's weight at strength 1/2 and a longest side of 256 pixels, and the power of the size
# that it falls with: at a constant weight large pictures keep the photograph's detail and lose the
# painting's.
_CONTENT_WEIGHT, _CONTENT_DECAY = 1.5, 1.5
# Patches at the edge of an image are fewer than elsewhere. So the image that descends is larger by
# a margin on each side, which is cut off at the end: at least so many pixels, and such a share of
# the longest side, because coarse scales have a margin in proportion.
_LEAST_MARGIN, _MARGIN_SHARE = 8, 0.05
# A texture has no edges while it descends: it is continued periodically by half a window of the
# coarsest octave. A margin is cut off, unless the result is to repeat.
_WRAP = FILTERS.size * 2 ** (FILTERS.num_octaves - 1) // 2
# A side of the smallest image with a patch on every octave, and a pixel more: sizes are rounded.
_SMALLEST = smallest_side(FILTERS.size, FILTERS.num_octaves) + 1
# Steps at a scale: many where pixels are few, twice as many at the last.
_STEPS, _TEXTURE_STEPS, _FEWEST_STEPS, _REFERENCE_SIZE = 80, 200, 20, 181
# The first size of a texture; of a painting at strength 0, half of it at strength 1.
_TEXTURE_MIN_SIZE, _MIN_SIZE = 24, 128
# About how much larger each size is than the one before. A painting starts from the photograph,
# and loses nearly nothing by few sizes, each of which takes a program of its own.
_TEXTURE_RATIO, _RATIO = 2**0.5, 1.7


class Plan(NamedTuple):
    """A painting or texture about to be made.

    Attributes:
      descent: what descends.
      start: [h, w, 3], where it starts, scaled to the first size.
      canvas: (H', W') of the image that descends, margins included.
      shape: (H, W) of the result.
      schedule: sizes of the canvas, and steps.
    """

    descent: Descent
    start: Image
    canvas: tuple[int, ...]
    shape: tuple[int, ...]
    schedule: Schedule

    def extend(self, image: Image) -> Image:
        """Continues an image into the margin, by its reflection.

        Args:
          image: [H, W, 3], of the result's shape.

        Returns:
          [H', W', 3], the canvas at its last size.
        """
        return pad_sides(image, (self.canvas[0] - self.shape[0]) // 2, "reflect")

    def crop(self, image: Image) -> Image:
        """Cuts the margin off.

        Args:
          image: [h', w', 3], the canvas at any size.

        Returns:
          [h, w, 3]; the result's shape, if the canvas is at its last size.
        """
        shape = scale_shape(self.shape, max(image.shape[:2]) / max(self.canvas))
        top, left = ((a - b) // 2 for a, b in zip(image.shape, shape, strict=False))
        return image[top : top + shape[0], left : left + shape[1]]

    def run(self, progress: Progress | None = None) -> Result:
        """Makes the picture.

        Args:
          progress: called with an `Iterate`, without margins, some twenty times at each size.

        Returns:
          image: [H, W, 3], not clipped; trace: [T] each.
        """
        show = None
        if progress is not None:
            show = lambda found: progress(found._replace(image=self.crop(found.image)))
        result = run(self.descent, self.start, self.canvas, 0, None, self.schedule, show)
        return result._replace(image=self.crop(result.image))


def plan_painting(
    key: Key,
    content_image: Image,
    style_images: Sequence[Image],
    *,
    strength: float = STRENGTH,
    style_blend_weights: Sequence[float] | None = None,
    style_masks: Sequence[Array] | None = None,
    num_steps: int | None = None,
    schedule: Schedule | None = None,
    mesh: Mesh | None = None,
) -> Plan:
    """Plans a painting, see `paint`."""
    if not 0 <= strength <= 1:
        raise UserError(f"the strength is {strength:g}; give a number from 0 to 1.")
    content = as_image(content_image, "the content image")
    styles = [as_image(style, "a style image") for style in style_images]
    masks = None
    if style_masks is not None:
        masks = [as_mask(mask, content.shape[:2]) for mask in style_masks]
    weights = as_blend_weights(style_blend_weights, masks, len(styles))
    shares = [jnp.float32(weight) for weight in weights] if masks is None else masks
    amount = min(1.0, strength / STRENGTH)
    content = (1 - amount) * content + amount * _recolor(content, styles, shares)
    margin = _find_margin(content.shape)
    canvas = pad_sides(content, margin, "reflect")
    images = (canvas, styles)
    if masks is not None:
        images += ([pad_sides(mask, margin, "edge") for mask in masks],)
    if schedule is None:
        shapes = [image.shape for image in (content, *styles)]
        schedule = _plan(shapes, round(_MIN_SIZE / 2**strength), _RATIO, _STEPS, num_steps)
    style = Style(
        # Only the ratio of the two counts for Adam; at strength 0 the photograph stays.
        content_weight=2 * _CONTENT_WEIGHT * (1 - strength) ** 2,
        style_weight=strength**2,
        tv_weight=0.0,
        style_blend_weights=style_blend_weights,
        style_statistic=STATISTIC,
        content_layers=(IMAGE_LAYER,),
        style_layers=LAYERS,
        weighting="none",
        content_decay=_CONTENT_DECAY,
    )
    descent = Descent(
        style, dataclasses.replace(FILTERS, mesh=mesh), images, as_key(key), True, SOLVER
    )
    shape = content.shape[:2]
    return Plan(descent, canvas, canvas.shape[:2], shape, _with_margins(schedule, shape, margin))


def plan_texture(
    key: Key,
    image: Image,
    *,
    shape: tuple[int, ...] | None = None,
    tileable: bool = False,
    num_steps: int | None = None,
    schedule: Schedule | None = None,
    mesh: Mesh | None = None,
) -> Plan:
    """Plans a texture, see `paint_texture`."""
    noise_key, draw_key = split_key(as_key(key))
    image = as_image(image)
    shape = image.shape[:2] if shape is None else (int(shape[0]), int(shape[1]))
    margin = 0 if tileable else _find_margin(shape)
    canvas = tuple(side + 2 * margin for side in shape)
    if schedule is None:
        shapes = [shape, image.shape]
        schedule = _plan(shapes, _TEXTURE_MIN_SIZE, _TEXTURE_RATIO, _TEXTURE_STEPS, num_steps)
    schedule = _with_margins(schedule, shape, margin)
    with same_draws():
        noise = jax.random.normal(noise_key, (*schedule.shapes(canvas)[0], 3), jnp.float32)
    start = jnp.mean(image, (0, 1)) + NOISE_STD * noise
    task = Texture(LAYERS, TEXTURE_STATISTIC, shape=canvas, weighting="none", wrap=_WRAP)
    source = dataclasses.replace(FILTERS, mesh=mesh)
    descent = Descent(task, source, (image,), draw_key, True, SOLVER, periodic=True)
    return Plan(descent, start, canvas, shape, schedule)


@jax.jit
def _recolor(content: Image, styles: Sequence[Image], shares: Sequence[Array]) -> Image:
    """The photograph in the paintings' colours, blended as the paintings are, [] or [H, W] each.

    Otherwise it would hold on to colours that no painting has, and where it is brighter than all of
    them the two come to terms in specks. Where no painting counts it keeps its own.
    """
    blended = jnp.asarray(
        sum(
            share[..., None] * match_colors(content, style)
            for share, style in zip(shares, styles, strict=True)
        )
    )
    total = jnp.asarray(sum(shares))[..., None]
    counts = total > 0
    return jnp.where(counts, jnp.clip(blended / jnp.where(counts, total, 1.0), 0.0, 1.0), content)


def _find_margin(shape: Sequence[int]) -> int:
    return max(_LEAST_MARGIN, round(_MARGIN_SHARE * max(shape)))


def _with_margins(schedule: Schedule, shape: tuple[int, ...], margin: int) -> Schedule:
    """The same of the canvas; sizes so small that they coincide are given a pixel more."""
    factor = (max(shape) + 2 * margin) / max(shape)
    sizes = itertools.accumulate(
        schedule.sizes, lambda last, size: max(last + 1, round(size * factor)), initial=0
    )
    return Schedule(tuple(sizes)[1:], schedule.steps)


def _plan(
    shapes: Sequence[Sequence[int]],
    min_size: int,
    ratio: float,
    most: int,
    num_steps: int | None,
) -> Schedule:
    """Sizes up to the first image's longest side; the method's steps, or as many in proportion.

    Of long and narrow images the first size has more pixels: each must be larger than a filter.
    """
    longest = max(shapes[0])
    reaching = math.ceil(_SMALLEST * longest / min(min(shape[:2]) for shape in shapes))
    min_size = min(max(min_size, reaching), longest)
    sizes = plan_schedule(longest, 1, min_size=min_size, ratio=ratio).sizes
    steps = [max(_FEWEST_STEPS, round(most * min(1, _REFERENCE_SIZE / size))) for size in sizes]
    steps[-1] *= 2
    if num_steps is not None:
        steps = share_steps(num_steps, steps)
    return Schedule(sizes, tuple(steps))


def paint(
    key: Key,
    content_image: Image,
    style_images: Image | Sequence[Image],
    *,
    progress: Progress | None = None,
    **options: Any,
) -> Result:
    """Paints the content of one image in the style of another, by random filters.

    Args:
      key: of all filters.
      content_image: [H, W, 3], RGB in [0, 1], the photograph.
      style_images: [h0, w0, 3], the painting, or several of any sizes, blended; or, with masks,
        each in its own region.
      progress: called with an `Iterate` some twenty times at each size; see `show_progress`.
      options: strength, from 0, the photograph, to 1, nothing but the painting's patches;
        style_blend_weights and style_masks, as in `Style`; num_steps, of all scales together;
        schedule, sizes and steps in place of the method's own; mesh, of one axis, the devices that
        share the work, with which the result is the same up to rounding.

    Returns:
      image: [H, W, 3], not clipped; trace: [T] each.

    Raises:
      UserError: for a strength outside 0 to 1, an image smaller than a filter, or as `Style.of`.

    References:
      Amir and Weiss (2021), "Understanding and simplifying perceptual distances".
      Differs from the paper: see the module.
    """
    return plan_painting(key, content_image, as_list(style_images), **options).run(progress)


def paint_texture(
    key: Key, image: Image, *, progress: Progress | None = None, **options: Any
) -> Result:
    """Makes an image with a texture's patches, starting from noise, by random filters.

    Args:
      key: of the noise and all filters.
      image: [h0, w0, 3], the texture, RGB in [0, 1].
      progress: as in `paint`.
      options: shape, (H, W) of the result, the texture's own by default; tileable, whether copies
        of the result side by side show no seam; num_steps, schedule and mesh, as in `paint`.

    Returns:
      image: [H, W, 3], not clipped; trace: [T] each.

    Raises:
      UserError: for an image smaller than a filter.
    """
    return plan_texture(key, image, **options).run(progress)
