"""Makes more of a texture, as untrained networks see it.

Usage: randviz texture --texture_image=TEXTURE [--flag=value ...]

Examples:
  randviz texture --texture_image=gravel --image_size=128 --out_dir=out/gravel
  randviz texture --texture_image=brick --output_size=512x256
  randviz texture --texture_image=grass --tileable
  randviz texture --texture_image=gravel --image_size=128 --method=paper
"""

import dataclasses
import functools
import re

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
from randviz.host.settings import run_command, setting
from randviz.objectives.statistics.catalog import find_statistic
from randviz.tasks import texture
from randviz.tasks.painting import plan_texture
from randviz.tasks.texture import Texture
from randviz.types import UserError


@dataclasses.dataclass(frozen=True)
class Settings(MethodSettings):
    """Settings of `randviz texture`."""

    texture_image: str | tuple[str, ...] = setting(
        "",
        "The texture: a file, a sample, or a folder. A folder stands for many; so does a"
        " pattern, as 'bark/*.jpg', and each result has a folder of its own in --out_dir.",
        several=True,
    )
    layers: tuple[str, ...] = setting(
        (),
        "The layers whose statistics are matched, separated by commas; by default the first at each"
        " of the first four resolutions, conv1_1 to conv4_1 in VGG-19.",
        rare=True,
    )
    output_size: str = setting(
        "", "Width and height of the result, as 512x256. The texture's if not given."
    )
    tileable: bool = setting(
        False,
        "Makes a picture that repeats without a seam. With --method=paper, --padding=periodic does"
        " nearly the same.",
    )
    out_dir: str = "out/texture"


def plan(settings: Settings) -> Task:
    """Plans the synthesis of one texture."""
    picture = load_picture(
        "texture_image", settings.texture_image, settings.image_size, square=settings.square
    )
    shape = read_size(settings.output_size) or picture.image.shape[:2]
    check_method(settings, "layers")
    if settings.tileable and settings.method != "filters":
        raise UserError(
            "--tileable belongs to --method=filters; leave it out, or take --padding=periodic."
        )
    make = _plan_filters if settings.method == "filters" else _plan_paper
    return make(settings, picture, shape)


def run(settings: Settings) -> None:
    """Makes more of one texture, or of many."""
    run_pictures("texture", plan, "texture_image", settings)


def _plan_filters(settings: Settings, picture: Picture, shape: tuple[int, ...]) -> Task:
    plan = plan_texture(
        make_statistics_key(settings.seed),
        picture.image,
        shape=shape,
        tileable=settings.tileable,
        **find_plan_options(settings, max(shape)),
    )
    return make_painting(
        "texture",
        settings,
        plan,
        {"texture_image": picture},
        sources=[picture],
        noise_std=texture.NOISE_STD,
        flags="--image_size or --min_size",
    )


def _plan_paper(settings: Settings, picture: Picture, shape: tuple[int, ...]) -> Task:
    choice = choose_network(settings).with_offset(texture.INPUT_OFFSET)
    network = choice.network
    layers = network.canonical_names(settings.layers or network.scale_layers[:4])
    check_reach(picture, network, layers[-1])
    network.check_image((*shape, 3), layers[-1])
    task = Texture(
        layers=layers,
        statistic=find_statistic(settings.statistic),
        shape=shape,
        weighting=settings.weighting,
        gradient_reduction=settings.gradient_reduction,
    )
    return make_task(
        "texture",
        settings,
        choice,
        task,
        {"texture_image": picture},
        images=(picture.image,),
        last_layer=layers[-1],
        shape=shape,
        noise_std=texture.NOISE_STD,
    )


def read_size(text: str) -> tuple[int, ...] | None:
    """Reads "WIDTHxHEIGHT" into (H, W), or None from the empty string.

    Raises:
      UserError: for anything else.
    """
    if not text:
        return None
    match = re.fullmatch(r"([1-9][0-9]{0,4})[x×]([1-9][0-9]{0,4})", text)
    if not match or max(int(match[1]), int(match[2])) > LARGEST_SIDE:
        raise UserError(
            f"--output_size={text[:60]} is not a size; write width x height, as 512x256, each at"
            f" most {LARGEST_SIDE}."
        )
    return int(match[2]), int(match[1])


main = functools.partial(
    run_command,
    "randviz texture",
    Settings,
    watchable("texture", "texture_image", run),
    doc=__doc__,
)
