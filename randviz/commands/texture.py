"""Makes more of a texture, as untrained networks see it.

Examples:
  randviz texture --texture_image=gravel --image_size=128 --out_dir=out/gravel
  randviz texture --texture_image=bark.jpg --output_size=512x256
  randviz texture --texture_image=bark.jpg --tileable
  randviz texture --texture_image=gravel --image_size=128 --method=paper
"""

import dataclasses
import re
from collections.abc import Sequence

from randviz.commands.descent import (
    MethodSettings,
    Task,
    check_first_sizes,
    check_method,
    describe_choice,
    find_plan_options,
    make_schedule,
    make_source,
    make_start,
    plan_task,
    run_task,
)
from randviz.commands.inputs import (
    LARGEST_SIDE,
    Picture,
    check_reach,
    load_picture,
    make_keys,
    make_statistics_key,
)
from randviz.commands.network_choice import choose_network
from randviz.host.settings import run_command, setting
from randviz.objectives.statistics.catalog import find_statistic
from randviz.tasks import texture
from randviz.tasks.painting import plan_texture
from randviz.tasks.task import Descent
from randviz.tasks.texture import Texture
from randviz.types import UserError


@dataclasses.dataclass(frozen=True)
class Settings(MethodSettings):
    """Settings of `randviz texture`."""

    texture_image: str = setting("", "The texture: a path, or the name of a sample.")
    layers: tuple[str, ...] = setting(
        (),
        "The layers whose statistics are matched, separated by commas; by default the first at each"
        " of the first four resolutions, conv1_1 to conv4_1 in VGG-19.",
    )
    output_size: str = setting(
        "", "Size of the result in pixels, as 512x256 (width first); the texture's if not given."
    )
    tileable: bool = setting(
        False,
        "Makes a picture that repeats without a seam; with --method=paper, --padding=periodic does"
        " nearly the same.",
    )
    out_dir: str = "out/texture"


def run(settings: Settings) -> None:
    """Synthesises one texture."""
    picture = load_picture(
        "texture_image", settings.texture_image, settings.image_size, square=settings.square
    )
    shape = read_size(settings.output_size) or picture.image.shape[:2]
    check_method(settings, "layers")
    if settings.tileable and settings.method != "filters":
        raise UserError(
            "--tileable belongs to --method=filters; leave it out, or take --padding=periodic."
        )
    plan = _plan_filters if settings.method == "filters" else _plan_paper
    task = plan(settings, picture, shape)
    run_task(task._replace(pictures={"texture_image": picture, **task.pictures}))


def _plan_filters(settings: Settings, picture: Picture, shape: tuple[int, ...]) -> Task:
    plan = plan_texture(
        make_statistics_key(settings.seed),
        picture.image,
        shape=shape,
        tileable=settings.tileable,
        **find_plan_options(settings, max(shape)),
    )
    extra = {}
    if settings.init == "image":
        _, noise_key = make_keys(settings.seed)
        start, extra = make_start(settings, noise_key, shape, texture.NOISE_STD)
        plan = plan._replace(start=start)
    check_first_sizes([picture], plan, "--image_size or --min_size")
    return plan_task("texture", settings, plan, extra)


def _plan_paper(settings: Settings, picture: Picture, shape: tuple[int, ...]) -> Task:
    choice = choose_network(settings)
    network = choice.network.with_offset(texture.INPUT_OFFSET)
    layers = network.canonical_names(settings.layers or network.scale_layers[:4])
    check_reach(picture, network, layers[-1])
    network.check_image((*shape, 3), layers[-1])
    _, noise_key = make_keys(settings.seed)
    choice = choice._replace(network=network)
    texture_task = Texture(
        layers=layers,
        statistic=find_statistic(settings.statistic),
        shape=shape,
        weighting=settings.weighting,
        gradient_reduction=settings.gradient_reduction,
    )
    start, extra = make_start(settings, noise_key, shape, texture.NOISE_STD)
    return Task(
        name="texture",
        settings=settings,
        network=describe_choice(choice),
        descent=Descent(
            texture_task,
            make_source(settings, choice, layers[-1]),
            (picture.image,),
            make_statistics_key(settings.seed),
            settings.redraw,
        ),
        shape=shape,
        schedule=make_schedule(settings, max(shape)),
        start=start,
        pictures=extra,
    )


def read_size(text: str) -> tuple[int, ...] | None:
    """Reads "WIDTHxHEIGHT" into (H, W), or None from the empty string.

    Raises:
      UserError: for anything else.
    """
    if not text:
        return None
    match = re.fullmatch(r"([1-9][0-9]*)[x×]([1-9][0-9]*)", text)
    if not match or max(int(match[1]), int(match[2])) > LARGEST_SIDE:
        raise UserError(
            f"--output_size={text} is not a size; write width x height, as 512x256, each at most"
            f" {LARGEST_SIDE}."
        )
    return int(match[2]), int(match[1])


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit code."""
    return run_command("randviz texture", Settings, run, argv, __doc__)
