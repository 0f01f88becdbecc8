"""Figure 4: how fast reconstructions from conv5_1 come near, untrained against trained.

Claim: the descent converges much sooner on ranVGG and ends nearer; on the trained VGG nothing
changes any more when the number of iterations is doubled.
Expect: curves.png, distance along the steps for each picture, the trained network's twice as long,
and a panel of pictures on the way. At laptop scale about five minutes on two cores.

Example:
  python -m randviz.experiments.fig4_convergence --image=chelsea --image_size=64 --num_steps=200
"""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Sequence

import matplotlib.figure
import numpy as np

from randviz.experiments.claims import Claim, judge
from randviz.experiments.command import Descent, run_module
from randviz.experiments.figure import (
    TRAINED,
    FigureSettings,
    choose_networks,
    descend_cell,
    find_row,
    largest_inversion,
    list_labels,
    load,
    load_result,
    make_inversion,
    measure_picture,
    name_of,
    picture_path,
)
from randviz.host.grids import render_grid
from randviz.host.images import replace_atomically, save_image
from randviz.host.quality import compare_images
from randviz.host.records import Row
from randviz.host.settings import setting
from randviz.types import Image

POINTS = 40  # places along the descent at which the distance is measured
SHOWN = (1 / 40, 1 / 8, 1 / 2, 1)  # shares of the steps at which pictures are shown
_NEAR = 1.1  # a descent has arrived where its distance is at most so many times its last


@dataclasses.dataclass(frozen=True)
class Settings(FigureSettings):
    """Settings of figure 4."""

    image: tuple[str, ...] = setting(
        ("astronaut", "chelsea", "coffee", "rocket", "camera", "clock"),
        "The pictures: paths or samples, with commas between.",
    )
    layer: str = setting("conv5_1", "The layer inverted.")
    num_steps: int = setting(
        2000,
        "Steps of the untrained network's descent, a multiple of 40; the trained one's are twice as"
        " many.",
        lower_bound=POINTS,
    )
    out_dir: str = setting("out/fig4_convergence", "Folder for rows, pictures and plots.")


def cells(settings: Settings) -> list[Row]:
    """Each picture with each network."""
    return [
        {"image": image, "weights": label}
        for image in settings.image
        for label in choose_networks(settings)
    ]


def measure(settings: Settings, cell: Row) -> Row:
    """Rebuilds a picture and measures its distance along the way."""
    make, start = make_inversion(settings, cell["image"], cell["weights"], settings.layer)
    target = load(settings, "image", cell["image"]).image
    shown = {round(share * settings.num_steps) for share in SHOWN}
    # Kept beside the descent's state, so that a stopped one does not lose its way here.
    path = picture_path(settings.out_dir, cell).with_suffix(".json")
    curve = json.loads(path.read_text()) if path.exists() else {}

    def show(step: int, image: Image) -> None:
        curve[str(step)] = round(compare_images(image, target)["distance"], 4)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replace_atomically(path) as temporary:
            temporary.write_text(json.dumps(curve))
        if step in shown:
            save_image(picture_path(settings.out_dir, cell, f"_{step}"), image)

    num_steps = settings.num_steps * (2 if cell["weights"] == TRAINED else 1)
    every = max(settings.num_steps // POINTS, 1)
    image, metadata = descend_cell(
        settings, cell, make, start, num_steps=num_steps, save_every=every, show=show
    )
    row = measure_picture(settings, cell, image)
    curve[str(num_steps)] = round(row["distance"], 4)
    if settings.num_steps == num_steps:
        save_image(picture_path(settings.out_dir, cell, f"_{num_steps}"), image)
    path.unlink(missing_ok=True)
    return {**row, **metadata, "curve": curve}


def largest(settings: Settings) -> Descent:
    """The one inversion; the trained network's count twice."""
    trained = len(settings.image) if settings.trained_weights else 0
    count = len(cells(settings)) + trained
    return largest_inversion(settings, settings.image[0], settings.layer, count)


def plot(settings: Settings, rows: list[Row], folder: pathlib.Path) -> None:
    """Draws the curves and the pictures on the way."""
    labels = list_labels(settings)
    with replace_atomically(folder / "curves.png") as temporary:
        _draw_curves(settings, rows, labels).savefig(temporary, dpi=120)
    steps = [round(share * settings.num_steps) for share in SHOWN]
    pictures, captions, names = [], [], []
    for source in settings.image:
        for label in labels:
            row = find_row(rows, image=source, weights=label)
            names.append(f"{name_of(source)}, {label}")
            line = [row and load_result(folder, row["cell"], f"_{step}") for step in steps]
            words = [row and f"distance {row['curve'][str(step)]:.1f}" for step in steps]
            twice = row if label == TRAINED else None
            line.append(twice and load_result(folder, twice["cell"]))
            # Nothing was meant to run there for the untrained network.
            words.append(f"distance {twice['distance']:.1f}" if twice else " ")
            pictures.append(line)
            captions.append([word or "" for word in words] if row else [None] * len(line))
    panel = render_grid(
        pictures,
        row_labels=names,
        column_labels=[*(f"step {step}" for step in steps), f"step {2 * settings.num_steps}"],
        captions=captions,
        cell=max(128, settings.image_size),
    )
    save_image(folder / "panel.jpg", panel)


def _draw_curves(
    settings: Settings, rows: list[Row], labels: Sequence[str]
) -> matplotlib.figure.Figure:
    columns = min(3, len(settings.image))
    lines = -(-len(settings.image) // columns)
    figure = matplotlib.figure.Figure(figsize=(3.4 * columns, 2.6 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for axis, source in zip(axes, settings.image, strict=False):
        for index, label in enumerate(labels):
            row = find_row(rows, image=source, weights=label)
            if row:
                points = sorted((int(step), value) for step, value in row["curve"].items())
                axis.plot(*zip(*points, strict=True), color=f"C{index}", label=label)
        axis.set(xscale="log", yscale="log", title=name_of(source))
    for axis in axes[len(settings.image) :]:
        axis.set_visible(False)
    axes[0].set(xlabel="step", ylabel="distance, grey levels")
    axes[0].legend()
    return figure


def arrive(curve: dict[str, float], num_steps: int) -> int:
    """The step from which the distance stays near where it is at `num_steps`.

    Args:
      curve: {step: distance}.
      num_steps: later points are left aside.

    Returns:
      The first measured step from which on all distances are at most 1.1 times the last.
    """
    points = sorted((int(step), value) for step, value in curve.items() if int(step) <= num_steps)
    arrived = points[-1][0]
    for step, value in reversed(points):
        if value > _NEAR * points[-1][1]:
            break
        arrived = step
    return arrived


def judge_rows(settings: Settings, rows: list[Row]) -> list[Claim]:
    """What the rows say of the paper's sentences; a picture is a unit."""
    groups = tuple(list_labels(settings))
    found = [
        [find_row(rows, image=source, weights=label) for label in groups]
        for source in settings.image
    ]
    pairs = [pair for pair in found if None not in pair]
    last = settings.num_steps
    arrivals = [[arrive(row["curve"], last) for row in pair] for pair in pairs]
    ends = [[row["curve"][str(last)] for row in pair] for pair in pairs]
    trained = [row for _, row in found if row]
    gains = [np.log(row["curve"][str(last)] / row["distance"]) for row in trained]
    ratio = lambda pairs: [np.log(a / b) for a, b in pairs]
    return [
        judge(
            f"From {settings.layer} the descent on ranVGG converges sooner than on the trained"
            " VGG.",
            ratio(arrivals),
            figure="figure 4",
            measure=f"log(steps of the first / of the second) to within {_NEAR - 1:.0%} of the"
            f" distance at step {last}",
            groups=groups,
            below=0.0,
        ),
        judge(
            f"From {settings.layer} the descent on ranVGG ends nearer to the picture.",
            ratio(ends),
            figure="figure 4",
            measure=f"log(distance of the first / of the second) at step {last}",
            groups=groups,
            below=0.0,
        ),
        judge(
            "Doubling the iterations leaves the reconstruction on the trained VGG the same.",
            gains,
            figure="figure 4",
            measure=f"log(distance at step {last} / at {2 * last}); the same: within 5 %",
            groups=groups[1:],
            below=float(np.log(1.05)),
            above=-float(np.log(1.05)),
        ),
    ]


def main(argv: Sequence[str]) -> int:
    """Runs the experiment; returns its exit code."""
    return run_module(sys.modules[__name__], argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
