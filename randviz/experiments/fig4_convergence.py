"""Figure 4: how fast reconstructions from conv5_1 come near, untrained against trained.

Claim: the descent converges much sooner on ranVGG and ends nearer; on the trained VGG nothing
changes any more when the number of iterations is doubled.
Expect: curves.png, distance along the steps for each picture, the trained network's twice as long,
and a panel of pictures on the way. At laptop scale about five minutes on two cores.

Example:
  python -m randviz.experiments.fig4_convergence --image=chelsea --image_size=64 --num_steps=200
"""

import dataclasses
import functools
import json
import pathlib
import sys
from collections.abc import Sequence

import matplotlib.figure
import numpy as np

from randviz.commands.trials import (
    TRAINED,
    choose_networks,
    compare_with_picture,
    descend_trial,
    describe_inputs,
    estimate_inversions,
    find_record,
    list_inversions,
    list_labels,
    list_values_of,
    load_pictures,
    load_result,
    make_inversion,
    picture_path,
)
from randviz.experiments.claims import Claim, Sentence, judge_together
from randviz.experiments.figure import PICTURES, FigureSettings
from randviz.host.charts import save_figure
from randviz.host.grids import render_grid
from randviz.host.images import save_image, write_text
from randviz.host.quality import compare_images
from randviz.host.records import Record, Trial
from randviz.host.settings import setting
from randviz.host.study import Workload, run_module
from randviz.types import Image

POINTS = 40  # places along the descent at which the distance is measured
SHOWN = (1 / 40, 1 / 8, 1 / 2, 1)  # shares of the steps at which pictures are shown
_NEAR = 1.1  # a descent has arrived where its distance is at most so many times its last

describe = describe_inputs


@dataclasses.dataclass(frozen=True)
class Settings(FigureSettings):
    """Settings of figure 4."""

    image: tuple[str, ...] = setting(
        PICTURES, "The pictures: paths or samples, with commas between."
    )
    layer: str = setting("conv5_1", "The layer inverted.")
    num_steps: int = setting(
        2000,
        "Steps of the untrained network's descent, a multiple of 40; the trained one's are twice as"
        " many.",
        lower_bound=POINTS,
    )
    out_dir: str = "out/fig4_convergence"


def list_trials(settings: Settings) -> list[Trial]:
    """Each picture with each network."""
    inversions = list_inversions(settings, [settings.layer])
    return [{"image": trial["image"], "weights": trial["weights"]} for trial in inversions]


def measure(settings: Settings, trial: Trial) -> Record:
    """Rebuilds a picture and measures its distance along the way."""
    make, start = make_inversion(settings, trial["image"], trial["weights"], settings.layer)
    target = load_pictures(settings, "image")[trial["image"]].image
    shown = {round(share * settings.num_steps) for share in SHOWN}
    # Kept beside the descent's state, so that a stopped one does not lose its way here.
    path = picture_path(settings.out_dir, trial).with_suffix(".json")
    curve = json.loads(path.read_text()) if path.exists() else {}

    def show(step: int, image: Image) -> None:
        curve[str(step)] = round(compare_images(image, target)["distance"], 4)
        write_text(path, json.dumps(curve))
        if step in shown:
            save_image(picture_path(settings.out_dir, trial, f"_{step}"), image)

    num_steps = settings.num_steps * (2 if trial["weights"] == TRAINED else 1)
    every = max(settings.num_steps // POINTS, 1)
    image, metadata = descend_trial(
        settings, trial, make, start, num_steps=num_steps, save_every=every, show=show
    )
    measures = compare_with_picture(settings, trial, image)
    curve[str(num_steps)] = round(measures["distance"], 4)
    if settings.num_steps == num_steps:
        save_image(picture_path(settings.out_dir, trial, f"_{num_steps}"), image)
    path.unlink(missing_ok=True)
    return {**measures, **metadata, "curve": curve}


def workload(settings: Settings) -> Workload:
    """The one inversion; the trained network's count twice."""
    counts = [1 + (label == TRAINED) for label in choose_networks(settings)]
    count = len(load_pictures(settings, "image")) * sum(counts)
    return estimate_inversions(settings, [settings.layer], count)


def plot(settings: Settings, records: list[Record], folder: pathlib.Path) -> None:
    """Draws the curves and the pictures on the way."""
    labels = list_labels(settings)
    save_figure(folder / "curves.png", _draw_curves(settings, records, labels))
    steps = [round(share * settings.num_steps) for share in SHOWN]
    pictures, captions, names = [], [], []
    for image in load_pictures(settings, "image"):
        for label in labels:
            record = find_record(records, image=image, weights=label)
            names.append(f"{image}, {label}")
            line = [load_result(folder, record, f"_{step}") for step in steps]
            texts = [record and f"distance {record['curve'][str(step)]:.1f}" for step in steps]
            twice = record if label == TRAINED else None
            line.append(load_result(folder, twice))
            # Nothing was meant to run there for the untrained network.
            texts.append(f"distance {twice['distance']:.1f}" if twice else " ")
            pictures.append(line)
            captions.append([text or "" for text in texts] if record else [None] * len(line))
    panel = render_grid(
        pictures,
        row_labels=names,
        column_labels=[*(f"step {step}" for step in steps), f"step {2 * settings.num_steps}"],
        captions=captions,
        cell=max(128, settings.image_size),
    )
    save_image(folder / "panel.jpg", panel)


def _draw_curves(
    settings: Settings, records: list[Record], labels: Sequence[str]
) -> matplotlib.figure.Figure:
    images = list(load_pictures(settings, "image"))
    columns = min(3, len(images))
    lines = -(-len(images) // columns)
    figure = matplotlib.figure.Figure(figsize=(3.4 * columns, 2.6 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for axis, image in zip(axes, images, strict=False):
        for index, label in enumerate(labels):
            record = find_record(records, image=image, weights=label)
            if record:
                points = sorted((int(step), value) for step, value in record["curve"].items())
                axis.plot(*zip(*points, strict=True), color=f"C{index}", label=label)
        axis.set(xscale="log", yscale="log", title=image)
    for axis in axes[len(images) :]:
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


def judge(settings: Settings, records: list[Record]) -> list[Claim]:
    """What the records say about the paper's sentences; a picture is a unit."""
    groups = tuple(list_labels(settings))
    found = [
        [find_record(records, image=image, weights=label) for label in groups]
        for image in list_values_of(records, "image")
    ]
    pairs = [pair for pair in found if None not in pair]
    last = settings.num_steps
    arrivals = [[arrive(record["curve"], last) for record in pair] for pair in pairs]
    ends = [[record["curve"][str(last)] for record in pair] for pair in pairs]
    trained = [record for _, record in found if record]
    gains = [np.log(record["curve"][str(last)] / record["distance"]) for record in trained]
    ratio = lambda pairs: [np.log(a / b) for a, b in pairs]
    sentences = [
        Sentence(
            f"From {settings.layer} the descent on ranVGG converges sooner than on the trained"
            " VGG.",
            ratio(arrivals),
            units="pictures",
            measure=f"log(steps of the first / of the second) to within {_NEAR - 1:.0%} of the"
            f" distance at step {last}",
            groups=groups,
            below=0.0,
        ),
        Sentence(
            f"From {settings.layer} the descent on ranVGG ends nearer to the picture.",
            ratio(ends),
            units="pictures",
            measure=f"log(distance of the first / of the second) at step {last}",
            groups=groups,
            below=0.0,
        ),
        Sentence(
            "Doubling the iterations leaves the reconstruction on the trained VGG the same.",
            gains,
            units="pictures",
            measure=f"log(distance at step {last} / at {2 * last}); the same: within 5 %",
            groups=groups[1:],
            below=float(np.log(1.05)),
            above=-float(np.log(1.05)),
        ),
    ]
    return judge_together("figure 4", sentences)


main = functools.partial(run_module, sys.modules[__name__])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
