"""Painting one image's content in another's style (section 2, "Style transfer")."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.core import Tracer

from randviz.descent.descent import Progress
from randviz.descent.schedule import Schedule
from randviz.descent.solver import Result, Solver
from randviz.networks.extractor import Extractor, as_names
from randviz.networks.gaussian import as_key, sample_noise_image, split_key
from randviz.networks.network import IMAGENET_MEAN
from randviz.objectives.building import check_weighting, make_terms
from randviz.objectives.objective import Objective, Part, Sampler
from randviz.objectives.regularizers import Regularizer, total_variation
from randviz.objectives.statistics.base import Statistic
from randviz.objectives.statistics.features import Features
from randviz.objectives.statistics.gram import Gram
from randviz.tasks.task import Descent, first_shape, run
from randviz.types import Array, Image, Key, Offset, UserError, as_image

# Differs from the paper: it does not say what is subtracted; un-centred input copies the layout.
INPUT_OFFSET = IMAGENET_MEAN
NOISE_STD = 30 / 255
CONTENT_LAYERS = ("conv2_2",)
STYLE_LAYERS = ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")
# Differs from the paper: 100 : 1 : 1000 shows no style (BUILD_NOTES.md).
CONTENT_WEIGHT, STYLE_WEIGHT, TV_WEIGHT = 1.0, 50.0, 2.0

_REFERENCE_SIZE = 256  # pixels, of `content_decay`
_LEAST_VARIANCE = 1e-6  # of colours; what varies less is not amplified

# Rows: luma and two colour differences of ITU-R BT.601, for keeping a photograph's own colours.
_LUMA = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


@struct.dataclass
class Style:
    """What is minimized to transfer style: α Σ ω L(x, xc, l) + β Σ μ E(x, xs, l) + γ R(x).

    Attributes:
      content_weight, style_weight, tv_weight: α, β, γ.
      style_blend_weights: how much each style image counts, scaled to sum to 1; equal if None.
      content_statistic: of the content's features; the features themselves in the paper.
      style_statistic: of the style's features; the Gram matrix in the paper.
      content_layers, style_layers: whose features are compared; static.
      weighting: of the layers: "gradient", the paper's ω and μ; or "none"; static.
      gradient_reduction: of eq. 4 and 8, see `layer_weights`; static.
      input_offset: for a network that leaves it open; static.
      content_decay: p: at a longest side of L pixels the content counts α (256 / L)^p; 0 in the
        paper; static.
    """

    content_weight: float | Array = CONTENT_WEIGHT
    style_weight: float | Array = STYLE_WEIGHT
    tv_weight: float | Array = TV_WEIGHT
    style_blend_weights: Sequence[float] | Array | None = None
    content_statistic: Statistic = Features()
    style_statistic: Statistic = Gram()
    content_layers: tuple[str, ...] = struct.field(pytree_node=False, default=CONTENT_LAYERS)
    style_layers: tuple[str, ...] = struct.field(pytree_node=False, default=STYLE_LAYERS)
    weighting: str = struct.field(pytree_node=False, default="gradient")
    gradient_reduction: str = struct.field(pytree_node=False, default="mean_abs")
    input_offset: Offset = struct.field(pytree_node=False, default=INPUT_OFFSET)
    content_decay: float = struct.field(pytree_node=False, default=0.0)

    def __post_init__(self):
        object.__setattr__(self, "content_layers", as_names(self.content_layers))
        object.__setattr__(self, "style_layers", as_names(self.style_layers))

    def of(
        self,
        extractor: Extractor,
        content_image: Image,
        style_images: Image | Sequence[Image],
        style_masks: Sequence[Array] | None = None,
        *,
        key: Key | None = None,
    ) -> Objective:
        """Makes the objective of one photograph and one or several paintings.

        Args:
          extractor: whose features are compared.
          content_image: [H, W, 3], RGB in [0, 1], xc.
          style_images: [h0, w0, 3], xs, or several of any sizes, whose statistics and μ are
            blended; or, with masks, each matched in its own region.
          style_masks: [H, W] each, at least 0: where each style image counts; None for no regions.
          key: of the statistics' random parts, if they have any.

        Returns:
          A callable pytree, image of the content image's size → scalar.

        Raises:
          UserError: for an unknown layer, an image that does not reach it, no style image, blend
            weights or masks that are not one for each style image, or as `as_mask`.

        References:
          He, Wang, Hopcroft (2016), eq. 9.
        """
        check_weighting(self.weighting)
        styles = as_list(style_images)
        weights = as_blend_weights(self.style_blend_weights, style_masks, len(styles))
        task = dataclasses.replace(
            self,
            content_layers=extractor.canonical_names(self.content_layers),
            style_layers=extractor.canonical_names(self.style_layers),
            style_blend_weights=jnp.asarray(weights, jnp.float32),
        )
        content = as_image(content_image, "the content image")
        styles = [as_image(style, "a style image") for style in styles]
        if style_masks is not None:
            style_masks = [as_mask(mask, content.shape[:2]) for mask in style_masks]
        return _make(task, extractor, content, styles, style_masks, key)


@jax.jit
def _make(
    task: Style,
    extractor: Extractor,
    content: Image,
    styles: list[Image],
    masks: Sequence[Array] | None,
    key: Key | None,
) -> Objective:
    shape = content.shape[:2]
    extractor = extractor.with_offset(task.input_offset)
    layers = extractor.canonical_names(tuple({*task.content_layers, *task.style_layers}))
    extractor = extractor.prepare(layers, shape, rescale=task.weighting != "none")
    keys: Any = [None] * 2 if key is None else split_key(key)
    options: dict[str, Any] = {
        "weighting": task.weighting,
        "gradient_reduction": task.gradient_reduction,
    }
    content_terms = make_terms(
        extractor, [content], task.content_layers, task.content_statistic, key=keys[0], **options
    )
    weights = jnp.asarray(task.style_blend_weights)
    weights = weights / jnp.sum(weights)
    compare = (task.style_layers, task.style_statistic)
    if masks is None:
        style_terms = make_terms(
            extractor, styles, *compare, blend_weights=weights, key=keys[1], **options
        )
    else:
        style_keys = [None] * len(styles) if key is None else split_key(keys[1], len(styles))
        each = [
            make_terms(extractor, [style], *compare, mask=mask, key=style_key, **options)
            for style, mask, style_key in zip(styles, masks, style_keys, strict=True)
        ]
        # A region counts as much as its share of the image, so that regions add up to a whole.
        shares = jnp.stack([jnp.mean(mask) for mask in masks])
        style_terms = tuple(
            dataclasses.replace(term, weight=term.weight * share)
            for terms, share in zip(each, shares / jnp.sum(shares), strict=True)
            for term in terms
        )
    decay = (_REFERENCE_SIZE / max(shape)) ** task.content_decay
    parts = {
        "content": Part(jnp.float32(task.content_weight) * decay, content_terms),
        "style": Part(jnp.float32(task.style_weight), style_terms),
        "tv": Part(jnp.float32(task.tv_weight), (Regularizer(total_variation, 2.0),)),
    }
    return Objective(extractor, parts)


def transfer(
    key: Key,
    extractor: Extractor | Sampler,
    content_image: Image,
    style_images: Image | Sequence[Image],
    *,
    style_masks: Sequence[Array] | None = None,
    init: str = "content",
    num_steps: int = 2000,
    solver: Solver | str | None = None,
    schedule: Schedule | None = None,
    redraw: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> Result:
    """Paints the content of one image in the style of another.

    Args:
      key: of everything that is random.
      extractor: whose features are compared; or what weights are drawn from anew at each step.
      content_image, style_images, style_masks: as in `Style.of`.
      init: where the descent starts: "content" or "noise".
      num_steps: T.
      solver: a value or a name; by default jaxopt's L-BFGS, or the averaged Adam where something
        is redrawn.
      schedule: sizes and steps from coarse to fine, in place of `num_steps`.
      redraw: whether random parts of the statistics are drawn anew at each step.
      progress: called with an `Iterate` some twenty times at each size; see `show_progress`.
      options: fields of `Style`.

    Returns:
      image: [H, W, 3], the content image's size, not clipped; trace: [T] each.

    Raises:
      UserError: as `Style.of`, or for an unknown solver or init.

    References:
      He, Wang, Hopcroft (2016), section 2, "Style transfer".
      Differs: α : β : γ = 1 : 50 : 2 in place of 100 : 1 : 1000, which shows no style at all; the
      start is the content image in place of noise; the input offset is the ImageNet mean.
    """
    if init not in ("content", "noise"):
        raise UserError(f"init {init!r} is unknown; use content or noise.")
    noise_key, draw_key = split_key(as_key(key))
    start = content = as_image(content_image, "the content image")
    if init == "noise":
        first = first_shape(content.shape[:2], schedule)
        start = sample_noise_image(noise_key, first, std=NOISE_STD)
    images = (content, [as_image(style, "a style image") for style in as_list(style_images)])
    if style_masks is not None:
        # At full size, or a wrong shape would be told as it is scaled.
        images += ([as_mask(mask, content.shape[:2]) for mask in style_masks],)
    descent = Descent(Style(**options), extractor, images, draw_key, redraw)
    return run(descent, start, content.shape[:2], num_steps, solver, schedule, progress)


def as_blend_weights(
    weights: Sequence[float] | Array | None, masks: Sequence[Array] | None, num_styles: int
) -> list[float]:
    """Takes weights as those of so many style images, and checks that there are as many masks.

    Args:
      weights: one for each style image; None for equal ones.
      masks: one for each style image, or None.
      num_styles: how many style images there are.

    Returns:
      [num_styles], as given; 1 each for None.

    Raises:
      UserError: if there is no style image, or another number of weights or masks; if a weight is
        negative, or none (where their values are known) is above 0.
    """
    weights = [1.0] * num_styles if weights is None else list(weights)
    if not num_styles or len(weights) != num_styles:
        raise UserError(
            f"there are {num_styles} style images and {len(weights)} blend weights; give at"
            " least one image and one weight for each."
        )
    known = not any(isinstance(weight, Tracer) for weight in weights)
    if known and not (min(weights) >= 0 and 0 < sum(weights) < math.inf):
        raise UserError(
            f"the blend weights are {', '.join(f'{weight:g}' for weight in weights)}; give finite"
            " numbers of at least 0, not all 0."
        )
    if masks is not None and len(masks) != num_styles:
        raise UserError(
            f"there are {num_styles} style images and {len(masks)} masks; give one mask for each."
        )
    return weights


def as_mask(mask: Any, shape: tuple[int, ...]) -> Array:
    """Takes an array of any type as a mask.

    Args:
      mask: [H, W], NumPy or JAX.
      shape: (H, W) that it must have.

    Returns:
      The same as a float32 JAX array.

    Raises:
      UserError: if it has another shape, or (where the values are known) a negative value or
        nothing but zeros.
    """
    mask = jnp.asarray(mask, jnp.float32)
    if mask.shape != tuple(shape):
        raise UserError(f"a mask has shape {mask.shape}; give the content image's, {shape}.")
    if not isinstance(mask, Tracer):
        lowest, highest = float(jnp.min(mask)), float(jnp.max(mask))
        if not lowest >= 0:
            raise UserError(
                f"a mask has negative values, or no numbers: down to {lowest:g}; give 0 or more."
            )
        if highest == 0:
            raise UserError("a mask is 0 everywhere; leave out its style image.")
    return mask


def as_list(images: Image | Sequence[Image]) -> list[Image]:
    """Takes one image, [H, W, 3], or several, as a list."""
    given: Any = images
    return [given] if hasattr(given, "ndim") else list(given)


def keep_colors(image: Image, photograph: Image) -> Image:
    """Takes the brightness from one image and the colours from another.

    Args:
      image: [H, W, 3], the stylised picture, RGB.
      photograph: [H, W, 3], whose colours are kept.

    Returns:
      [H, W, 3], not clipped.
    """
    luma = jnp.asarray(_LUMA, jnp.float32)
    brightness = image @ luma[0]
    mixed = jnp.concatenate([brightness[..., None], photograph @ luma[1:].T], axis=-1)
    return mixed @ jnp.linalg.inv(luma).T


def match_colors(image: Image, reference: Image) -> Image:
    """Gives one image the colours of another: the mean and the covariance of its RGB values.

    Args:
      image: [H, W, 3], the painting, RGB.
      reference: [h, w, 3], the photograph, whose colours are taken.

    Returns:
      [H, W, 3], not clipped. The covariance of a grey image has one direction, and so has that of
      the result.

    References:
      Gatys, Bethge, Hertzmann, Shechtman (2016), "Preserving color in neural artistic style
      transfer", with symmetric square roots.
    """
    mean, _, inverse_root = _measure_colors(image)
    other_mean, root, _ = _measure_colors(reference)
    return (image - mean) @ inverse_root @ root + other_mean


def _measure_colors(image: Image) -> tuple[Array, Array, Array]:
    """[3], the mean; [3, 3] each, the symmetric root of the covariance and the root's inverse."""
    colors = image.reshape(-1, 3)
    mean = jnp.mean(colors, 0)
    covariance = (colors - mean).T @ (colors - mean) / len(colors)
    values, vectors = jnp.linalg.eigh(covariance)
    roots = jnp.sqrt(jnp.maximum(values, 0.0))
    inverse_roots = roots / jnp.maximum(values, _LEAST_VARIANCE)
    return mean, (vectors * roots) @ vectors.T, (vectors * inverse_roots) @ vectors.T
