"""Rebuilds pictures through an untrained network and through the trained one, side by side.

Equal steps from the same starting noise, layer by layer, as in the paper's figure 2: random above,
trained below. Distance, PSNR and SSIM stand under each picture and in a table. Without trained
weights their row says so.

Usage: randviz compare --image=PICTURE --trained_weights=FILE [--flag=value ...]

Examples:
  randviz compare --image=chelsea --image_size=128 --num_steps=200
  randviz compare --image=chelsea,coffee --trained_weights=vgg19.h5 --layers=pool1,pool3,pool5
  randviz compare --image=rocket --network=ranvgg --trained_weights=vgg19.h5
"""

import dataclasses
import functools
import pathlib
import sys

from randviz.commands.trials import (
    MEASURES,
    StudySettings,
    compare_with_picture,
    descend_trial,
    describe_distance,
    describe_inputs,
    estimate_inversions,
    find_deepest,
    find_record,
    format_measure,
    list_inversions,
    list_labels,
    list_values_of,
    load_pictures,
    load_result,
    make_inversion,
    make_noise,
)
from randviz.host.charts import format_markdown
from randviz.host.grids import render_grid
from randviz.host.images import save_image, write_text
from randviz.host.records import Record, Trial
from randviz.host.settings import setting
from randviz.host.study import Workload, run_module
from randviz.tasks.inversion import NOISE_STD

describe = describe_inputs


@dataclasses.dataclass(frozen=True)
class Settings(StudySettings):
    """Settings of `randviz compare`."""

    image: tuple[str, ...] = setting((), "The pictures, files or samples, commas between.")
    layers: tuple[str, ...] = setting(
        ("pool1", "pool2", "pool3", "pool4", "pool5"), "The layers inverted, one at a time."
    )
    out_dir: str = "out/compare"


def list_trials(settings: Settings) -> list[Trial]:
    """Each picture with each network and layer."""
    return list_inversions(settings, settings.layers)


def measure(settings: Settings, trial: Trial) -> Record:
    """Rebuilds one picture from one layer."""
    deepest = find_deepest(settings, settings.layers)
    make, start = make_inversion(settings, *trial.values(), deepest)
    image, metadata = descend_trial(settings, trial, make, start)
    return {**compare_with_picture(settings, trial, image), **metadata}


def workload(settings: Settings) -> Workload:
    """The deepest inversion, as often as there are trials."""
    return estimate_inversions(settings, settings.layers, len(list_trials(settings)))


def plot(settings: Settings, records: list[Record], folder: pathlib.Path) -> None:
    """Draws a panel for each picture, a row for each network; writes and prints the table."""
    labels, layers = list_labels(settings), list_values_of(records, "layer")
    header = ["picture", "layer"]
    header += [f"{measure}, {label}" for measure in MEASURES for label in labels]
    lines = []
    for name, picture in load_pictures(settings, "image").items():
        found = [
            [find_record(records, image=name, weights=label, layer=layer) for layer in layers]
            for label in labels
        ]
        beside = picture.image, make_noise(settings, picture.image, NOISE_STD)
        panel = render_grid(
            [
                [first] + [load_result(folder, record) for record in line]
                for first, line in zip(beside, found, strict=True)
            ],
            row_labels=labels,
            column_labels=["", *layers],
            captions=[
                [caption] + [describe_distance(record) for record in line]
                for caption, line in zip(("the picture", "the start"), found, strict=True)
            ],
            cell=max(128, settings.image_size),
        )
        save_image(folder / f"{name}_panel.jpg", panel)
        for layer, pair in zip(layers, zip(*found, strict=True), strict=True):
            lines.append(
                [name, layer, *(format_measure(found, m) for m in MEASURES for found in pair)]
            )
    table = format_markdown(header, lines)
    write_text(folder / "table.md", table + "\n")
    print(table)


main = functools.partial(run_module, sys.modules[__name__])
