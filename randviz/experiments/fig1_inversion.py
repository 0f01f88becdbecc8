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

import numpy as np

from randviz.commands import compare
from randviz.commands.network_choice import Choice, choose_trained
from randviz.commands.trials import (
    TRAINED,
    compare_with_picture,
    descend_trial,
    describe_distance,
    describe_inputs,
    estimate_inversions,
    find_record,
    list_inversions,
    list_labels,
    list_values_of,
    load_pictures,
    load_result,
    make_noise,
)
from randviz.experiments.claims import Claim, Sentence, judge_together, log_ratio, pair_records
from randviz.experiments.figure import FigureSettings
from randviz.host.grids import render_grid
from randviz.host.images import save_image
from randviz.host.records import Record, Trial
from randviz.host.settings import setting
from randviz.host.study import Workload, run_module
from randviz.tasks.inversion import NOISE_STD, Inversion

ALEXNET = "alexnet"
# Mahendran and Vedaldi's, for conv3 and conv4 (BUILD_NOTES.md).
_ALEXNET_OPTIONS = {"weighting": "energy", "tv_weight": 4.4e-4, "alpha_weight": 1.5e-4}

describe = describe_inputs


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
    out_dir: str = "out/fig1_inversion"


def list_trials(settings: Settings) -> list[Trial]:
    """Each layer with each network."""
    (image,) = load_pictures(settings, "image")
    alexnet = [
        {"image": image, "weights": ALEXNET, "layer": layer} for layer in settings.alexnet_layers
    ]
    return list_inversions(settings, settings.layers) + alexnet * bool(settings.alexnet_weights)


def measure(settings: Settings, trial: Trial) -> Record:
    """Rebuilds the picture from one layer."""
    if trial["weights"] != ALEXNET:
        return compare.measure(settings, trial)
    choice = _choose_alexnet(settings)
    picture = load_pictures(settings, "image")[trial["image"]].image
    extractor = choice.network.bind(choice.sample(trial["layer"]))
    task = Inversion(trial["layer"], **_ALEXNET_OPTIONS)
    make = functools.partial(task.of, extractor, picture)
    image, metadata = descend_trial(settings, trial, make, make_noise(settings, picture, NOISE_STD))
    file = {"alexnet_sha256": choice.metadata["sha256"]}
    return {**compare_with_picture(settings, trial, image), **metadata, **file}


@functools.cache
def _choose_alexnet(settings: Settings) -> Choice:
    return choose_trained(
        dataclasses.replace(settings, network="caffenet", trained_weights=settings.alexnet_weights)
    )


def workload(settings: Settings) -> Workload:
    """The deepest inversion through the untrained network."""
    return estimate_inversions(settings, settings.layers, len(list_trials(settings)))


def plot(settings: Settings, records: list[Record], folder: pathlib.Path) -> None:
    """Draws the grid."""
    (image,) = load_pictures(settings, "image")
    untrained, _ = list_labels(settings)
    layers = list_values_of([r for r in records if r["trial"]["weights"] != ALEXNET], "layer")
    columns_of = {untrained: layers, TRAINED: layers, ALEXNET: settings.alexnet_layers}
    found = {
        label: [find_record(records, image=image, weights=label, layer=x) for x in columns]
        for label, columns in columns_of.items()
    }
    panel = render_grid(
        [[load_result(folder, record) for record in line] for line in found.values()],
        row_labels=[untrained, TRAINED, "trained AlexNet"],
        column_labels=max(
            layers, [*layers, *settings.alexnet_layers][: len(columns_of[ALEXNET])], key=len
        ),
        captions=[
            [
                (f"{layer}\n" if label == ALEXNET else "") + describe_distance(record)
                for layer, record in zip(columns_of[label], line, strict=True)
            ]
            for label, line in found.items()
        ],
        cell=max(128, settings.image_size),
    )
    save_image(folder / "panel.jpg", panel)


def judge(settings: Settings, records: list[Record]) -> list[Claim]:
    """What the records say about the paper's sentence; the picture is the only unit."""
    groups = (list_labels(settings)[0], TRAINED)
    pairs = pair_records(records, "weights", groups, measure=lambda record: record["distance"])
    sentence = Sentence(
        "From every kind of layer, reconstructions through ranVGG are nearer to the picture than"
        " through the trained VGG.",
        # Layers of one network lie in each other and are no units.
        [np.mean(log_ratio(pairs))] if pairs else [],
        units="pictures",
        measure="mean over layers of log(distance of the first / of the second)",
        groups=groups,
        below=0.0,
    )
    return judge_together("figure 1", [sentence])


main = functools.partial(run_module, sys.modules[__name__])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
