"""Rebuilds a picture from what one layer of an untrained network keeps of it.

Examples:
  randviz invert --image=chelsea --layer=pool4 --image_size=128 --num_steps=300 --out_dir=out/cat
  randviz invert --image=me.jpg --layer=pool5 --tv_weight=0.01
"""

import dataclasses
from collections.abc import Sequence

from randviz import inversion
from randviz.commands.descent import (
    DescentSettings,
    Task,
    make_start,
    paper_layer_weights,
    run_task,
)
from randviz.commands.inputs import choose_network, load_picture, make_keys
from randviz.inversion import Inversion
from randviz.quality import compare_images
from randviz.settings import run_command, setting


@dataclasses.dataclass(frozen=True)
class Settings(DescentSettings):
    """Settings of `randviz invert`."""

    image: str = setting("", "The picture: a path, or the name of a sample.")
    layer: str = setting("pool4", "The layer whose features are matched.")
    tv_weight: float = setting(
        0.0,
        "γ of the total variation; 0.003 to 0.01 helps deep layers, the paper has 0.",
        lower_bound=0,
    )
    out_dir: str = setting("out/invert", "Folder for the picture and its record, run.json.")


def run(settings: Settings) -> None:
    """Inverts one layer's features of one picture."""
    picture = load_picture("image", settings.image, settings.image_size)
    network, draw = choose_network(settings)
    network = network.with_offset(inversion.INPUT_OFFSET)
    network.check_image(picture.image.shape, settings.layer)
    _, noise_key = make_keys(settings.seed)
    params = draw(settings.layer)
    objective = Inversion.of(
        network,
        params,
        picture.image,
        layer=settings.layer,
        tv_weight=settings.tv_weight,
        reading=settings.reading,
    )
    start, extra = make_start(settings, noise_key, picture.image, inversion.NOISE_STD)
    omega = {objective.layer: objective.layer_weight}
    run_task(
        Task(
            name="invert",
            settings=settings,
            objective=objective,
            start=start,
            pictures={"image": picture, **extra},
            layer_weights={"content": paper_layer_weights(network, params, omega, degree=2)},
            measure=lambda image: compare_images(image, picture.image),
        )
    )


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit code."""
    return run_command("randviz invert", Settings, run, argv, __doc__)
