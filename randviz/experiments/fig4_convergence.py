"""Figure 4: how fast reconstructions from conv5_1 come near, untrained against trained.

Claim: the descent converges much sooner on ranVGG and ends nearer; on the trained VGG nothing
changes any more when the number of iterations is doubled.
Expect: curves.png, distance along the steps for each picture, the trained network's twice as long,
beside the mean colour and block means of as many numbers as the layer has; and a panel of pictures
on the way.

Example:
  python -m randviz.experiments.fig4_convergence --image=chelsea --image_size=64 --num_steps=200
"""

import dataclasses
import functools
import json
import pathlib
import sys

import matplotlib.figure
import numpy as np

from randviz.commands.trials import (
    BASELINES,
    TRAINED,
    InversionStudySettings,
    choose_networks,
    compare_with_picture,
    descend_trial,
    describe_inputs,
    estimate_inversions,
    find_record,
    find_untrained,
    list_baselines,
    list_inversions,
    load_pictures,
    load_result,
    make_inversion,
    measure_baseline,
    picture_path,
)
from randviz.experiments.claims import Claim, Sentence, judge_together
from randviz.experiments.figure import (
    PICTURES,
    FigureSettings,
    find_network,
    group_networks,
    make_sentence,
    tabulate_group,
)
from randviz.host.charts import save_figure
from randviz.host.grids import render_grid
from randviz.host.images import save_image, write_text
from randviz.host.quality import compare_images
from randviz.host.records import Record, Trial
from randviz.host.settings import setting
from randviz.host.study import Workload, run_module
from randviz.types import Image, UserError

POINTS = 40  # places along the descent at which the distance is measured
SHOWN = (1 / 40, 1 / 8, 1 / 2, 1)  # shares of the steps at which pictures are shown
_NEAR = 1.1  # a descent has arrived where its distance is at most so many times its last

describe = describe_inputs


@dataclasses.dataclass(frozen=True)
class Settings(FigureSettings, InversionStudySettings):
    """Settings of figure 4."""

    image: tuple[str, ...] = setting(
        PICTURES, "The pictures: paths or samples, with commas between."
    )
    layers: tuple[str, ...] = setting(("conv5_1",), "The layer inverted.")
    num_steps: int = setting(
        2000,
        "Steps of the untrained network's descent, a multiple of 40; the trained one's are twice as"
        " many.",
        lower_bound=POINTS,
    )
    out_dir: str = "out/fig4_convergence"


def list_trials(settings: Settings) -> list[Trial]:
    """Each picture with each network, and with each baseline.

    Raises:
      UserError: for more layers than one, or steps that are no multiple of `POINTS`.
    """
    if settings.num_steps % POINTS:
        raise UserError(f"--num_steps={settings.num_steps} is no multiple of {POINTS}; give one.")
    if len(settings.layers) != 1:
        raise UserError(f"--layers={','.join(settings.layers)}: figure 4 inverts one layer.")
    return list_inversions(settings, settings.layers) + list_baselines(settings, settings.layers)


def measure(settings: Settings, trial: Trial) -> Record:
    """Rebuilds a picture and measures its distance along the way, or makes one of its baselines."""
    if "baseline" in trial:
        return measure_baseline(settings, trial)
    make, start = make_inversion(settings, *trial.values())
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
    return estimate_inversions(settings, settings.layers, count)


def plot(settings: Settings, records: list[Record], folder: pathlib.Path) -> None:
    """Draws the curves and the pictures on the way, of the first network of each group."""
    rows = {group: labels[0] for group, labels in group_networks(settings).items()}
    rows[TRAINED] = TRAINED
    save_figure(folder / "curves.png", _draw_curves(settings, records))
    steps = [round(share * settings.num_steps) for share in SHOWN]
    (layer,) = find_untrained(settings).network.canonical_names(settings.layers)
    pictures, captions, names = [], [], []
    for image in load_pictures(settings, "image"):
        for row, label in rows.items():
            record = find_record(records, image=image, weights=label, layer=layer)
            names.append(f"{image}, {row}")
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


def _draw_curves(settings: Settings, records: list[Record]) -> matplotlib.figure.Figure:
    images = list(load_pictures(settings, "image"))
    columns = min(3, len(images))
    lines = -(-len(images) // columns)
    figure = matplotlib.figure.Figure(figsize=(3.4 * columns, 2.6 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    groups = {**group_networks(settings), TRAINED: (TRAINED,)}
    (layer,) = find_untrained(settings).network.canonical_names(settings.layers)
    for axis, image in zip(axes, images, strict=False):
        for index, (group, labels) in enumerate(groups.items()):
            for label in labels:
                record = find_record(records, image=image, weights=label, layer=layer)
                if record:
                    points = sorted((int(step), value) for step, value in record["curve"].items())
                    axis.plot(*zip(*points, strict=True), color=f"C{index}")
            axis.plot([], [], color=f"C{index}", label=group)
        for baseline, style in (("mean", ":"), ("numbers", "--")):
            record = find_record(records, image=image, baseline=baseline, layer=layer)
            if record and record["distance"]:
                axis.axhline(record["distance"], color="0.5", ls=style, label=BASELINES[baseline])
        axis.set(xscale="log", yscale="log", title=image)
    for axis in axes[len(images) :]:
        axis.set_visible(False)
    axes[0].set(xlabel="step", ylabel="distance, grey levels")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
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
    """What the records say about the paper's sentences; pictures and networks are units."""
    last = settings.num_steps
    layer = "".join(settings.layers)

    def compare_arrivals(record: Record) -> float | None:
        other = find_network(records, record, TRAINED)
        if not other:
            return None
        return float(np.log(arrive(record["curve"], last) / arrive(other["curve"], last)))

    def compare_ends(record: Record) -> float | None:
        other = find_network(records, record, TRAINED)
        return other and float(np.log(record["curve"][str(last)] / other["curve"][str(last)]))

    sentences = []
    for group, labels in group_networks(settings).items():
        sentences += [
            make_sentence(
                f"From {layer} the descent on {group} converges sooner than on the trained VGG.",
                tabulate_group(records, labels, compare_arrivals),
                measure="log(steps of the first / of the second) to within"
                f" {_NEAR - 1:.0%} of the distance at step {last}",
                groups=(group, TRAINED),
                below=0.0,
            ),
            make_sentence(
                f"From {layer} the descent on {group} ends nearer to the picture.",
                tabulate_group(records, labels, compare_ends),
                measure=f"log(distance of the first / of the second) at step {last}",
                groups=(group, TRAINED),
                below=0.0,
            ),
        ]
    gains = tabulate_group(
        records,
        [TRAINED],
        lambda record: float(np.log(record["curve"][str(last)] / record["distance"])),
    )
    sentences.append(
        Sentence(
            "Doubling the iterations leaves the reconstruction on the trained VGG the same.",
            gains,
            units="pictures",
            measure=f"log(distance at step {last} / at {2 * last}); the same: within 5 %",
            groups=(TRAINED,),
            below=float(np.log(1.05)),
            above=-float(np.log(1.05)),
        )
    )
    return judge_together("figure 4", sentences)


main = functools.partial(run_module, sys.modules[__name__])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
