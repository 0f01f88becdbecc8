"""Rebuilds pictures through an untrained network and through the trained one, side by side.

Equal steps from the same starting noise, layer by layer, as in the paper's figure 2: random above,
trained below, and what each has to beat: block means, as many numbers as the layer has. Distance,
PSNR and SSIM stand under each picture and in a table. Without trained weights their row says so.

Usage: randviz compare --image=PICTURE [--trained_weights=FILE] [--flag=value ...]

Examples:
  randviz compare --image=chelsea --image_size=128 --num_steps=200
  randviz compare --image=chelsea,coffee --trained_weights=vgg19.h5 --layers=pool1,pool3,pool5
  randviz compare --image=rocket --network=ranvgg --trained_weights=vgg19.h5
"""

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Sequence

from randviz.commands.trials import (
    BASELINES,
    MEASURES,
    InversionStudySettings,
    compare_with_picture,
    descend_trial,
    describe_distance,
    describe_inputs,
    estimate_inversions,
    find_deepest,
    find_record,
    format_measure,
    list_baselines,
    list_inversions,
    list_labels,
    list_values_of,
    load_pictures,
    load_result,
    make_inversion,
    make_noise,
    measure_baseline,
)
from randviz.host.charts import format_markdown
from randviz.host.grids import render_grid
from randviz.host.images import save_image, write_text
from randviz.host.records import Record, Trial
from randviz.host.settings import setting
from randviz.host.study import Workload, run_module

describe = describe_inputs


@dataclasses.dataclass(frozen=True)
class Settings(InversionStudySettings):
    """Settings of `randviz compare`."""

    image: tuple[str, ...] = setting((), "The pictures, files or samples, commas between.")
    out_dir: str = "out/compare"


def list_trials(settings: Settings) -> list[Trial]:
    """Each picture with each network and layer, and with each baseline."""
    return list_inversions(settings, settings.layers) + list_baselines(settings, settings.layers)


def measure(settings: Settings, trial: Trial) -> Record:
    """Rebuilds one picture from one layer, or makes one of its baselines."""
    if "baseline" in trial:
        return measure_baseline(settings, trial)
    deepest = find_deepest(settings, settings.layers)
    make, start = make_inversion(settings, *trial.values(), deepest)
    image, metadata = descend_trial(settings, trial, make, start)
    return {**compare_with_picture(settings, trial, image), **metadata}


def workload(settings: Settings) -> Workload:
    """The deepest inversion, as often as there are inversions."""
    count = sum("baseline" not in trial for trial in list_trials(settings))
    return estimate_inversions(settings, settings.layers, count)


def plot(settings: Settings, records: list[Record], folder: pathlib.Path) -> None:
    """Draws a panel for each picture and writes and prints the table."""
    plot_rows(settings, records, folder, list_labels(settings))


def plot_rows(
    settings: Settings, records: list[Record], folder: pathlib.Path, labels: Sequence[str]
) -> None:
    """Draws a panel for each picture, a row for each label and the baseline's below.

    Args:
      settings: of the study.
      records: all of them.
      folder: where panels and table go.
      labels: of networks.
    """
    layers = list_values_of(records, "layer")
    rows = {label: {"weights": label} for label in labels}
    rows |= {name: {"baseline": name} for name in BASELINES}
    lines = []
    for name, picture in load_pictures(settings, "image").items():
        found = {
            row: [find_record(records, image=name, **place, layer=layer) for layer in layers]
            for row, place in rows.items()
        }
        shown = [*labels, "numbers"]
        first = [("the picture", picture.image)]
        first += [("the start", make_noise(settings, picture.image, settings.noise_std))]
        first += [(" ", None)] * (len(shown) - 2)
        panel = render_grid(
            [
                [image] + [load_result(folder, record) for record in found[row]]
                for (_, image), row in zip(first, shown, strict=True)
            ],
            row_labels=[*labels, "block means"],
            column_labels=["", *layers],
            captions=[
                [caption] + [describe_distance(record) for record in found[row]]
                for (caption, _), row in zip(first, shown, strict=True)
            ],
            cell=max(128, settings.image_size),
        )
        save_image(folder / f"{name}_panel.jpg", panel)
        for place, layer in enumerate(layers):
            here = [found[row][place] for row in rows]
            lines.append([name, layer, *(format_measure(r, m) for m in MEASURES for r in here)])
    header = ["picture", "layer"]
    header += [f"{measure}, {BASELINES.get(row, row)}" for measure in MEASURES for row in rows]
    table = format_markdown(header, lines)
    write_text(folder / "table.md", table + "\n")
    print(table)


main = functools.partial(run_module, sys.modules[__name__])
