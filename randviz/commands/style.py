"""Paints the content of one picture in the style of another.

Usage: randviz style --content_image=PHOTOGRAPH --style_image=PAINTING [--flag=value ...]

Examples:
  randviz style --content_image=chelsea --style_image=starry_night --out_dir=out/starry_cat
  randviz style --content_image=columns --style_image=great_wave --strength=0.7 --original_colors
  randviz style --content_image='photos/*.jpg' --style_image=the_scream   (many, a folder each)
  randviz style --content_image=astronaut --style_image=la_calanque --method=paper
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from randviz.commands.descent import (
    Task,
    find_plan_options,
    make_painting,
    make_task,
)
from randviz.commands.descent_settings import MethodSettings, check_method
from randviz.commands.inputs import (
    LARGEST_SIDE,
    Picture,
    check_reach,
    load_picture,
    make_statistics_key,
)
from randviz.commands.network_choice import choose_network
from randviz.commands.pictures import run_pictures
from randviz.commands.studio import watchable
from randviz.descent.schedule import resize
from randviz.host.settings import run_command, setting
from randviz.networks.extractor import IMAGE_LAYER
from randviz.networks.network import Network
from randviz.objectives.statistics.catalog import find_statistic
from randviz.tasks import style
from randviz.tasks.painting import STRENGTH, plan_painting
from randviz.tasks.style import Style, as_blend_weights, keep_colors, match_colors
from randviz.types import Array, Image, UserError

# Masks below this are black, in [0, 1].
_BLACK = 0.01
# Read by the paper's method only.
PAPER_FLAGS = ("content_layers", "style_layers", "content_weight", "style_weight", "tv_weight")


@dataclasses.dataclass(frozen=True)
class Settings(MethodSettings):
    """Settings of `randviz style`."""

    content_image: str | tuple[str, ...] = setting(
        "",
        "The photograph: a file, a sample, or a folder. A folder stands for many; so does a"
        " pattern, as 'photos/*.jpg', and each is painted into a folder of its own in --out_dir.",
        several=True,
    )
    style_image: tuple[str, ...] = setting(
        (),
        "The painting, a file or a sample; or several: a,b. Several are blended; a name with a"
        " comma in it stands in double quotes.",
    )
    style_blend_weights: tuple[str, ...] = setting(
        (),
        "How much each of several paintings counts: 2,1. Equally if not given.",
    )
    style_masks: tuple[str, ...] = setting(
        (),
        "Where each painting counts: a mask for each. It is laid over the"
        " photograph, white in the painting's region, black outside, grey where paintings blend.",
    )
    strength: float = setting(
        STRENGTH,
        "How much style, from 0, the photograph, to 1. Of --method=filters.",
        lower_bound=0,
        upper_bound=1,
    )
    style_scale: float = setting(
        1.0,
        "Size of the strokes: 2 for twice as large. The painting's size, as a multiple of"
        " --image_size.",
        lower_bound=0.1,
        upper_bound=10,
    )
    content_layers: tuple[str, ...] = setting(
        (),
        "Layers whose features are matched to the photograph's; by default conv2_2, and in a"
        " network without it the first at the second resolution, or the image itself.",
        rare=True,
    )
    style_layers: tuple[str, ...] = setting(
        (),
        "Layers whose statistics are matched to the painting's; by default the first at each of the"
        " first five resolutions, conv1_1 to conv5_1 in VGG-19.",
        rare=True,
    )
    content_weight: float = setting(
        style.CONTENT_WEIGHT, "α, of the content.", lower_bound=0, rare=True
    )
    style_weight: float = setting(style.STYLE_WEIGHT, "β, of the style.", lower_bound=0, rare=True)
    tv_weight: float = setting(
        style.TV_WEIGHT,
        "γ, of the total variation: the larger, the smoother.",
        lower_bound=0,
        rare=True,
    )
    original_colors: bool = setting(
        False,
        "Paints the brightness only, and keeps the colours. They are the photograph's own.",
    )
    match_colors: bool = setting(
        False,
        "Gives the painting the photograph's colours first. It takes their mean and covariance.",
    )
    init: str = setting(
        "content",
        "Where the descent starts: the photograph, noise, or --init_image.",
        choices=("content", "noise", "image"),
        rare=True,
    )
    out_dir: str = "out/style"


def plan(settings: Settings) -> Task:
    """Plans the transfer of one style, or of a blend of several, to one photograph."""
    content = load_picture(
        "content_image", settings.content_image, settings.image_size, square=settings.square
    )
    if not settings.style_image:
        raise UserError("no picture is given; name a file or a sample with --style_image=.")
    painting_size = find_painting_size(settings.image_size, settings.style_scale)
    paintings = [
        load_picture("style_image", source, painting_size, square=settings.square)
        for source in settings.style_image
    ]
    if settings.match_colors:
        # Unclipped, the descent would aim at colours that no picture has.
        paintings = [
            painting._replace(image=jnp.clip(match_colors(painting.image, content.image), 0, 1))
            for painting in paintings
        ]
    shares = read_blend_weights(settings.style_blend_weights, len(paintings))
    drawn, masks = load_masks(settings, content.image.shape[:2])
    check_method(settings, *PAPER_FLAGS)
    pictures = {"content_image": content}
    pictures |= {f"style_image {index}": painting for index, painting in enumerate(paintings, 1)}
    pictures |= {f"style_mask {index}": mask for index, mask in enumerate(drawn, 1)}
    make = _plan_filters if settings.method == "filters" else _plan_paper
    task = make(settings, content, paintings, shares, masks, pictures)
    if settings.original_colors:
        crop = task.finish

        def keep(image: Image) -> Image:
            # Pictures on the way may be those of a smaller scale.
            image = crop(image)
            return keep_colors(image, resize(content.image, image.shape[:2]))

        task = task._replace(finish=keep)
    return task


def run(settings: Settings) -> None:
    """Paints one photograph, or many."""
    run_pictures("style", plan, "content_image", settings)


def _plan_filters(
    settings: Settings,
    content: Picture,
    paintings: Sequence[Picture],
    shares: Sequence[float] | None,
    masks: Sequence[Array] | None,
    pictures: Mapping[str, Picture],
) -> Task:
    if settings.strength == 0 and settings.init != "content":
        raise UserError("--strength=0 is the photograph itself; take more, or --init=content.")
    plan = plan_painting(
        make_statistics_key(settings.seed),
        content.image,
        [painting.image for painting in paintings],
        strength=settings.strength,
        style_blend_weights=shares,
        style_masks=masks,
        **find_plan_options(settings, max(content.image.shape)),
    )
    return make_painting(
        "style",
        settings,
        plan,
        pictures,
        sources=paintings,
        noise_std=style.NOISE_STD,
        flags="--style_scale or --min_size",
    )


def _plan_paper(
    settings: Settings,
    content: Picture,
    paintings: Sequence[Picture],
    shares: Sequence[float] | None,
    masks: Sequence[Array] | None,
    pictures: Mapping[str, Picture],
) -> Task:
    choice = choose_network(settings).with_offset(style.INPUT_OFFSET)
    network = choice.network
    content_layers = network.canonical_names(settings.content_layers or find_content_layer(network))
    style_layers = network.canonical_names(settings.style_layers or network.scale_layers[:5])
    deepest = network.canonical_names(tuple({content_layers[-1], style_layers[-1]}))[-1]
    check_reach(content, network, deepest)
    for painting in paintings:
        check_reach(painting, network, style_layers[-1])
    task = Style(
        style_statistic=find_statistic(settings.statistic),
        weighting=settings.weighting,
        content_layers=content_layers,
        style_layers=style_layers,
        content_weight=settings.content_weight,
        style_weight=settings.style_weight,
        tv_weight=settings.tv_weight,
        style_blend_weights=shares,
        gradient_reduction=settings.gradient_reduction,
    )
    images = (content.image, [painting.image for painting in paintings])
    return make_task(
        "style",
        settings,
        choice,
        task,
        pictures,
        images=(*images, masks) if masks else images,
        last_layer=deepest,
        shape=content.image.shape[:2],
        noise_std=style.NOISE_STD,
    )


def find_content_layer(network: Network) -> str:
    """The layer whose features keep the content, where none is named."""
    (preferred,) = style.CONTENT_LAYERS
    if preferred in network.layer_names:
        return preferred
    return network.scale_layers[1] if len(network.scale_layers) > 1 else IMAGE_LAYER


def find_painting_size(image_size: int, style_scale: float) -> int:
    """The longest side of the paintings, in pixels.

    Raises:
      UserError: if it is larger than pictures may be.
    """
    size = max(1, round(image_size * style_scale))
    if size > LARGEST_SIDE:
        raise UserError(
            f"--style_scale={style_scale:g} makes the painting {size} pixels long, more than"
            f" {LARGEST_SIDE}; give a smaller one, or a smaller --image_size."
        )
    return size


def load_masks(
    settings: Settings, shape: tuple[int, ...]
) -> tuple[list[Picture], list[Array] | None]:
    """Loads the masks of the paintings' regions.

    Args:
      settings: of the command.
      shape: (H, W) of the photograph.

    Returns:
      The pictures as they were read; and [H, W] each, which sum to 1 everywhere, or None if no
      masks are asked for.

    Raises:
      UserError: if they are not as many as the paintings, one cannot be read or is black, or they
        leave a place uncovered.
    """
    sources = settings.style_masks
    if not sources:
        return [], None
    flag = f"--style_masks={','.join(sources)}"
    if len(sources) != len(settings.style_image):
        raise UserError(
            f"{flag} must be {len(settings.style_image)} pictures, one for each style image,"
            " separated by commas."
        )
    if settings.style_blend_weights:
        raise UserError(
            "--style_blend_weights are of paintings without regions; leave them or --style_masks"
            " out."
        )
    pictures = [
        load_picture("style_masks", source, None, square=settings.square) for source in sources
    ]
    masks = [resize(jnp.mean(picture.image, -1), shape) for picture in pictures]
    for source, mask in zip(sources, masks, strict=True):
        if jnp.max(mask) < _BLACK:
            raise UserError(f"the mask {source} is black everywhere; leave its painting out.")
    total = sum(masks)
    if jnp.min(total) < _BLACK:
        row, column = np.unravel_index(int(jnp.argmin(total)), shape)
        raise UserError(
            f"{flag} are all black at row {row + 1}, column {column + 1} of the photograph's"
            f" {shape[1]}×{shape[0]} pixels; make one of them white there."
        )
    return pictures, [mask / total for mask in masks]


def read_blend_weights(values: Sequence[str], count: int) -> list[float] | None:
    """Reads one number for each painting, or None from none.

    Raises:
      UserError: if they are not as many as the paintings, not numbers, or as `as_blend_weights`.
    """
    if not values:
        return None
    try:
        return as_blend_weights([float(value) for value in values], None, count)
    except ValueError as error:
        raise UserError(
            f"--style_blend_weights={','.join(values)} must be {count} numbers of at least 0, not"
            " all 0, one for each style image, separated by commas."
        ) from error


main = functools.partial(
    run_command, "randviz style", Settings, watchable("style", "content_image", run), doc=__doc__
)
