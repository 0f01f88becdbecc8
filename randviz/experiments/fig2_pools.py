"""Figure 2: several pictures rebuilt from the five pooling layers, untrained beside trained.

Claim: ranVGG gives better reconstructions than the trained VGG, especially on the higher layers;
from the fifth pooling layer the trained VGG hardly gives back even the contours.
Expect: a panel for each picture, a row for each network and a column for each layer. At laptop
scale about five minutes on two cores, half of that without trained weights.

Example:
  python -m randviz.experiments.fig2_pools --image=chelsea --image_size=64 --num_steps=100
"""

import dataclasses
import pathlib
import sys
from collections.abc import Sequence

import numpy as np

from randviz.commands.compare import describe
from randviz.experiments.claims import Claim, judge, pair_rows
from randviz.experiments.command import Descent, run_module
from randviz.experiments.figure import (
    TRAINED,
    FigureSettings,
    choose_networks,
    find_row,
    largest_inversion,
    list_labels,
    load,
    load_result,
    log_ratio,
    measure_inversion,
    name_of,
    picture_path,
)
from randviz.host.grids import render_grid
from randviz.host.images import load_image, save_image
from randviz.host.quality import correlate_contours
from randviz.host.records import Row
from randviz.host.settings import setting


@dataclasses.dataclass(frozen=True)
class Settings(FigureSettings):
    """Settings of figure 2."""

    image: tuple[str, ...] = setting(
        ("astronaut", "chelsea", "coffee", "rocket", "camera", "clock"),
        "The pictures: paths or samples, with commas between.",
    )
    layers: tuple[str, ...] = setting(
        ("pool1", "pool2", "pool3", "pool4", "pool5"), "The layers inverted, one at a time."
    )
    out_dir: str = setting("out/fig2_pools", "Folder for rows, pictures and panels.")


def cells(settings: Settings) -> list[Row]:
    """Each picture with each network and layer."""
    return [
        {"image": image, "weights": label, "layer": layer}
        for label, choice in choose_networks(settings).items()
        for layer in choice.network.canonical_names(settings.layers)
        for image in settings.image
    ]


def measure(settings: Settings, cell: Row) -> Row:
    """Rebuilds one picture from one layer and compares contours too."""
    row = measure_inversion(settings, cell)
    found = load_image(picture_path(settings.out_dir, cell))
    target = load(settings, "image", cell["image"]).image
    return {**row, "contours": correlate_contours(found, target)}


def largest(settings: Settings) -> Descent:
    """The deepest inversion."""
    todo = cells(settings)
    return largest_inversion(settings, settings.image[0], todo[-1]["layer"], len(todo))


def plot(settings: Settings, rows: list[Row], folder: pathlib.Path) -> None:
    """Draws a panel for each picture."""
    labels = list_labels(settings)
    layers = list(dict.fromkeys(row["cell"]["layer"] for row in rows))
    for source in settings.image:
        target = np.asarray(load(settings, "image", source).image)
        found = [
            [find_row(rows, image=source, weights=label, layer=layer) for layer in layers]
            for label in labels
        ]
        panel = render_grid(
            [
                [beside] + [row and load_result(folder, row["cell"]) for row in line]
                for beside, line in zip((target, target), found, strict=True)
            ],
            row_labels=[labels[0], "trained VGG-19"],
            column_labels=["the picture", *layers],
            captions=[[""] + [describe(row) for row in line] for line in found],
            cell=max(128, settings.image_size),
        )
        save_image(folder / f"{name_of(source)}_panel.jpg", panel)


def judge_rows(settings: Settings, rows: list[Row]) -> list[Claim]:
    """What the rows say of the paper's sentences; a picture is a unit."""
    groups = (list_labels(settings)[0], TRAINED)
    layers = list(dict.fromkeys(row["cell"]["layer"] for row in rows))

    def of_pictures(measure: str, chosen: Sequence[str]) -> list[list[tuple[float, float]]]:
        """[pictures][layers] pairs, of pictures that have all of them."""
        found = []
        for source in settings.image:
            here = [
                row
                for row in rows
                if row["cell"]["image"] == source and row["cell"]["layer"] in chosen
            ]
            pairs = pair_rows(here, "weights", groups, measure=lambda row: row[measure])
            found += [pairs] if pairs and len(pairs) == len(chosen) else []
        return found

    distances = of_pictures("distance", layers)
    ratios = np.array([log_ratio(pairs) for pairs in distances]).reshape(-1, len(layers))
    claims = [
        judge(
            "From the pooling layers, reconstructions through ranVGG are nearer to the picture than"
            " through the trained VGG.",
            ratios.mean(axis=1),
            figure="figure 2",
            measure="mean over layers of log(distance of the first / of the second), by picture",
            groups=groups,
            below=0.0,
        )
    ]
    if len(layers) > 1:
        half = len(layers) // 2
        levels = np.array([np.subtract(*zip(*pairs, strict=True)) for pairs in distances])
        levels = levels.reshape(-1, len(layers))
        # "Especially" may be meant either way, and the two need not agree.
        for words, found in (("log distance ratio", ratios), ("difference in grey levels", levels)):
            claims.append(
                judge(
                    f"The advantage of ranVGG, as {words}, is larger on the higher pooling layers.",
                    found[:, -half:].mean(axis=1) - found[:, :half].mean(axis=1),
                    figure="figure 2",
                    measure=f"{words} in {', '.join(layers[-half:])} less that in"
                    f" {', '.join(layers[:half])}, by picture",
                    groups=groups,
                    below=0.0,
                )
            )
    contours = np.reshape(of_pictures("contours", layers[-1:]), (-1, 2))
    claims += [
        judge(
            "From the fifth pooling layer ranVGG gives back contours better than the trained VGG.",
            contours[:, 0] - contours[:, 1],
            figure="figure 2",
            measure=f"difference of the contours' correlation with the picture's, {layers[-1]}",
            groups=groups,
            above=0.0,
        ),
        judge(
            "From the fifth pooling layer the trained VGG hardly gives back even the contours.",
            contours[:, 1],
            figure="figure 2",
            measure=f"the contours' correlation with the picture's, {layers[-1]}; hardly: below"
            " 0.3",
            groups=groups[1:],
            below=0.3,
        ),
    ]
    return claims


def main(argv: Sequence[str]) -> int:
    """Runs the experiment; returns its exit code."""
    return run_module(sys.modules[__name__], argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
