"""Figure 1: one picture rebuilt from many layers, untrained weights above, trained below.

Claim: reconstructions from every layer are better through ranVGG than through the trained VGG, and
most so from the deep layers. The third row is the method that the paper compares with: AlexNet's
trained weights, inverted with regularisers.
Expect: a grid, a column for each layer; trained rows say "not run" without their weights. At laptop
scale about five minutes on two cores, a third of that without trained weights.

Example:
  python -m randviz.experiments.fig1_inversion --image_size=64 --num_steps=100
  python -m randviz.experiments.fig1_inversion --image=me.jpg --trained_weights=vgg19.h5
"""

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Sequence

from randviz.commands.compare import describe
from randviz.commands.network_choice import choose_trained
from randviz.experiments.claims import Claim, judge, pair_rows
from randviz.experiments.command import Descent, run_module
from randviz.experiments.figure import (
    TRAINED,
    FigureSettings,
    choose_networks,
    descend_cell,
    draw_start,
    find_row,
    largest_inversion,
    list_labels,
    load,
    load_result,
    log_ratio,
    measure_inversion,
    measure_picture,
)
from randviz.host.grids import render_grid
from randviz.host.images import save_image
from randviz.host.records import Row
from randviz.host.settings import setting
from randviz.tasks.inversion import NOISE_STD, Inversion

ALEXNET = "alexnet"
# Mahendran and Vedaldi's, for conv3 and conv4 (BUILD_NOTES.md).
_ALEXNET_OPTIONS = {"weighting": "energy", "tv_weight": 4.4e-4, "alpha_weight": 1.5e-4}


@dataclasses.dataclass(frozen=True)
class Settings(FigureSettings):
    """Settings of figure 1."""

    image: str = setting("astronaut", "The picture: a path or a sample.")
    layers: tuple[str, ...] = setting(
        (
            "conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1",
            "pool1", "pool2", "pool3", "pool4", "pool5",
        ),
        "The layers inverted, one at a time.",
    )  # fmt: skip
    alexnet_weights: str = setting("", "A file with trained weights of Caffe's AlexNet.")
    alexnet_layers: tuple[str, ...] = setting(("conv3", "conv4"), "Its layers inverted.")
    out_dir: str = setting("out/fig1_inversion", "Folder for rows, pictures and panel.")


def cells(settings: Settings) -> list[Row]:
    """Each layer with each network."""
    layers = next(iter(choose_networks(settings).values())).network.canonical_names(settings.layers)
    found = [
        {"image": settings.image, "weights": label, "layer": layer}
        for label in choose_networks(settings)
        for layer in layers
    ]
    if settings.alexnet_weights:
        found += [
            {"image": settings.image, "weights": ALEXNET, "layer": layer}
            for layer in settings.alexnet_layers
        ]
    return found


def measure(settings: Settings, cell: Row) -> Row:
    """Rebuilds the picture from one layer."""
    if cell["weights"] != ALEXNET:
        return measure_inversion(settings, cell)
    choice = _choose_alexnet(settings)
    picture = load(settings, "image", cell["image"]).image
    extractor = choice.network.bind(choice.sample(cell["layer"]))
    task = Inversion(cell["layer"], **_ALEXNET_OPTIONS)
    make = functools.partial(task.of, extractor, picture)
    start = draw_start(settings, picture, NOISE_STD)
    image, metadata = descend_cell(settings, cell, make, start)
    file = {"alexnet_sha256": choice.metadata["sha256"]}
    return {**measure_picture(settings, cell, image), **metadata, **file}


@functools.cache
def _choose_alexnet(settings: Settings):
    return choose_trained(
        dataclasses.replace(settings, network="caffenet", trained_weights=settings.alexnet_weights)
    )


def largest(settings: Settings) -> Descent:
    """The deepest inversion through VGG-19."""
    todo = cells(settings)
    deepest = [cell["layer"] for cell in todo if cell["weights"] != ALEXNET][-1]
    return largest_inversion(settings, settings.image, deepest, len(todo))


def plot(settings: Settings, rows: list[Row], folder: pathlib.Path) -> None:
    """Draws the grid."""
    untrained, _ = list_labels(settings)
    layers = list(
        dict.fromkeys(r["cell"]["layer"] for r in rows if r["cell"]["weights"] != ALEXNET)
    )
    wide = [*layers, *settings.alexnet_layers][: max(len(layers), len(settings.alexnet_layers))]
    pictures, captions = [], []
    for label, columns in (
        (untrained, layers),
        (TRAINED, layers),
        (ALEXNET, settings.alexnet_layers),
    ):
        found = [
            find_row(rows, image=settings.image, weights=label, layer=layer) for layer in columns
        ]
        pictures.append([row and load_result(folder, row["cell"]) for row in found])
        captions.append(
            [
                (f"{layer}\n" if label == ALEXNET else "") + describe(row)
                for layer, row in zip(columns, found, strict=True)
            ]
        )
    panel = render_grid(
        pictures,
        row_labels=[untrained, "trained VGG-19", "trained AlexNet"],
        column_labels=wide,
        captions=captions,
        cell=max(128, settings.image_size),
    )
    save_image(folder / "panel.jpg", panel)


def judge_rows(settings: Settings, rows: list[Row]) -> list[Claim]:
    """What the rows say of the paper's sentence."""
    groups = (list_labels(settings)[0], TRAINED)
    pairs = pair_rows(rows, "weights", groups, measure=lambda row: row["distance"])
    return [
        judge(
            "From every kind of layer, reconstructions through ranVGG are nearer to the picture"
            " than through the trained VGG.",
            log_ratio(pairs),
            figure="figure 1",
            measure="mean over layers of log(distance of the first / of the second)",
            groups=groups,
            below=0.0,
        )
    ]


def main(argv: Sequence[str]) -> int:
    """Runs the experiment; returns its exit code."""
    return run_module(sys.modules[__name__], argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
