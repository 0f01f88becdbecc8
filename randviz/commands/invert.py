"""Rebuilds a picture from what one layer of an untrained network keeps of it.

Usage: randviz invert --image=PICTURE [--layer=LAYER] [--flag=value ...]

Examples:
  randviz invert --image=chelsea --layer=pool4 --image_size=128 --num_steps=300 --out_dir=out/cat
  randviz invert --image=rocket --layer=pool5 --tv_weight=0.01
  randviz invert --image=astronaut --layer=fc6 --square --image_size=256
"""

import dataclasses
import functools

from randviz.commands.descent import Task, make_task
from randviz.commands.descent_settings import DescentSettings
from randviz.commands.inputs import check_reach, load_picture
from randviz.commands.network_choice import choose_network
from randviz.commands.pictures import run_pictures
from randviz.commands.studio import watchable
from randviz.host.quality import compare_images
from randviz.host.settings import run_command, setting
from randviz.tasks import inversion
from randviz.tasks.inversion import Inversion


@dataclasses.dataclass(frozen=True)
class Settings(DescentSettings):
    """Settings of `randviz invert`."""

    image: str | tuple[str, ...] = setting(
        "",
        "The picture: a file, a sample, or a folder. A folder stands for many; so does a"
        " pattern, as 'photos/*.jpg', and each result has a folder of its own in --out_dir.",
        several=True,
    )
    layer: str = setting("pool4", "The layer that the picture is rebuilt from.")
    tv_weight: float = setting(
        0.0,
        "How smooth: 0.003 to 0.01 helps deep layers. γ of the total variation; the paper has 0.",
        lower_bound=0,
    )
    tv_power: float = setting(
        2.0,
        "β, to which differences of pixels are raised in it.",
        lower_bound=1,
        upper_bound=10,
        rare=True,
    )
    alpha_weight: float = setting(
        0.0,
        "Of the α-norm of the picture around mid-grey; the paper has none.",
        lower_bound=0,
        rare=True,
    )
    alpha_power: int = setting(6, "α of that norm.", lower_bound=2, upper_bound=20, rare=True)
    weighting: str = setting(
        "omega",
        "What the loss is multiplied by: omega, the paper's ω; or energy, one over the energy of"
        " the target's features, as Mahendran and Vedaldi did.",
        choices=inversion.WEIGHTINGS,
        rare=True,
    )
    out_dir: str = "out/invert"


def plan(settings: Settings) -> Task:
    """Plans the inversion of one layer's features of one picture."""
    picture = load_picture("image", settings.image, settings.image_size, square=settings.square)
    choice = choose_network(settings).with_offset(inversion.INPUT_OFFSET)
    check_reach(picture, choice.network, settings.layer)
    task = Inversion(
        layer=settings.layer,
        tv_weight=settings.tv_weight,
        tv_power=settings.tv_power,
        alpha_weight=settings.alpha_weight,
        alpha_power=settings.alpha_power,
        weighting=settings.weighting,
        gradient_reduction=settings.gradient_reduction,
    )
    return make_task(
        "invert",
        settings,
        choice,
        task,
        {"image": picture},
        images=(picture.image,),
        last_layer=settings.layer,
        shape=picture.image.shape[:2],
        noise_std=inversion.NOISE_STD,
        measure=lambda image: compare_images(image, picture.image),
    )


def run(settings: Settings) -> None:
    """Rebuilds one picture, or many."""
    run_pictures("invert", plan, "image", settings)


main = functools.partial(
    run_command, "randviz invert", Settings, watchable("invert", "image", run), doc=__doc__
)
