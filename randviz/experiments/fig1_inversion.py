"""Figure 1: pictures rebuilt from many layers, untrained weights above, trained below.

Claim: reconstructions from every layer are better through ranVGG than through the trained VGG, and
better than through AlexNet, whose trained weights the paper inverts with regularisers; fully
connected layers can be inverted too.
Expect: a grid of the first picture, a column for each layer: ranVGG with un-centred and with
centred input, the trained VGG, AlexNet, and block means of as many numbers as the layer has; a grid
for the fully connected layers of purely random networks; and table.md of all pictures. What needs
trained weights says "not run" without them.

Example:
  python -m randviz.experiments.fig1_inversion --image=chelsea --image_size=64 --num_steps=100
  python -m randviz.experiments.fig1_inversion --image=me.jpg --trained_weights=vgg19.h5
"""

import dataclasses
import functools
import math
import pathlib
import sys
from collections.abc import Sequence

from randviz.commands import compare
from randviz.commands.inputs import make_keys
from randviz.commands.network_choice import (
    CENTRED_RECIPES,
    UNCENTRED_RECIPES,
    Choice,
    choose_trained,
    choose_untrained,
)
from randviz.commands.trials import (
    BASELINES,
    TRAINED,
    InversionStudySettings,
    compare_with_picture,
    descend_trial,
    describe_distance,
    describe_inputs,
    estimate_inversions,
    find_record,
    find_untrained,
    list_baselines,
    list_inversions,
    list_values_of,
    load_pictures,
    load_result,
    make_noise,
    measure_baseline,
)
from randviz.experiments.claims import Claim, judge_together
from randviz.experiments.figure import (
    CENTRED,
    PICTURES,
    UNCENTRED,
    FigureSettings,
    compare_networks,
    compare_with_baseline,
    gather_layers,
    group_networks,
    make_sentence,
    mean,
    tabulate_group,
)
from randviz.host.charts import format_markdown
from randviz.host.grids import render_grid
from randviz.host.images import save_image, write_text
from randviz.host.records import Record, Trial
from randviz.host.settings import setting
from randviz.host.study import Workload, run_module
from randviz.networks.extractor import Extractor
from randviz.networks.network import Network
from randviz.networks.weights import random_weights
from randviz.tasks.inversion import Inversion

ALEXNET = "alexnet"
# Mahendran and Vedaldi's, for conv3 and conv4 (BUILD_NOTES.md).
_ALEXNET_OPTIONS = {"weighting": "energy", "tv_weight": 4.4e-4, "alpha_weight": 1.5e-4}
# Recipes end before the fully connected layers: there, networks are purely random.
RANDOM = {"random": "0", "random-centred": "mean"}

describe = describe_inputs


@dataclasses.dataclass(frozen=True)
class Settings(FigureSettings, InversionStudySettings):
    """Settings of figure 1."""

    network: tuple[str, ...] = (UNCENTRED_RECIPES[0], CENTRED_RECIPES[0])
    image: tuple[str, ...] = setting(
        PICTURES, "The pictures: paths or samples, with commas between; the panel shows the first."
    )
    layers: tuple[str, ...] = setting(
        (
            "conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1",
            "pool1", "pool2", "pool3", "pool4", "pool5",
        ),
        "The layers inverted, one at a time.",
    )  # fmt: skip
    fc_layers: tuple[str, ...] = setting(
        ("fc6", "fc7", "fc8"), "Fully connected layers of purely random networks, inverted too."
    )
    alexnet_weights: str = setting("", "A file with trained weights of Caffe's AlexNet.")
    alexnet_layers: tuple[str, ...] = setting(("conv3", "conv4"), "Its layers inverted.")
    out_dir: str = "out/fig1_inversion"


def list_trials(settings: Settings) -> list[Trial]:
    """Each layer with each network and each baseline; fully connected layers with their own."""
    images = list(load_pictures(settings, "image"))
    fc = [
        {"image": image, "weights": label, "layer": layer}
        for label in RANDOM
        for image in images
        for layer in settings.fc_layers
    ]
    fc += list_baselines(settings, settings.fc_layers) if settings.fc_layers else []
    alexnet = [
        {"image": image, "weights": ALEXNET, "layer": layer}
        for image in images
        for layer in settings.alexnet_layers
    ]
    return (
        list_inversions(settings, settings.layers)
        + list_baselines(settings, settings.layers)
        + fc
        + alexnet * bool(settings.alexnet_weights)
    )


def measure(settings: Settings, trial: Trial) -> Record:
    """Rebuilds the picture from one layer, or makes one of its baselines."""
    is_fc = trial["layer"] in settings.fc_layers
    if not is_fc and trial.get("weights") != ALEXNET:
        return compare.measure(settings, trial)
    if "baseline" in trial:
        return measure_baseline(settings, trial, _find_fc(settings, next(iter(RANDOM))))
    picture = load_pictures(settings, "image")[trial["image"]].image
    if is_fc:
        extractor, options, about = _bind_fc(settings, trial["weights"]), {}, {}
    else:
        choice = _choose_alexnet(settings)
        extractor = choice.network.bind(choice.sample(trial["layer"]))
        options, about = _ALEXNET_OPTIONS, {"alexnet_sha256": choice.metadata["sha256"]}
    make = functools.partial(Inversion(trial["layer"], **options).of, extractor, picture)
    start = make_noise(settings, picture, settings.noise_std)
    image, metadata = descend_trial(settings, trial, make, start)
    return {**compare_with_picture(settings, trial, image), **metadata, **about}


def _find_fc(settings: Settings, label: str) -> Network:
    """The architecture, with fully connected layers for pictures of this size."""
    name = find_untrained(settings).network.name
    choice = choose_untrained(
        dataclasses.replace(settings, network=name, input_offset=RANDOM[label])
    )
    return dataclasses.replace(choice.network, fc_image_size=settings.image_size)


@functools.lru_cache(maxsize=1)
def _bind_fc(settings: Settings, label: str) -> Extractor:
    """A purely random network for pictures of this size."""
    network = _find_fc(settings, label)
    params = random_weights(
        make_keys(settings.seed)[0],
        network,
        scale=settings.scale,
        last_layer=network.canonical_names(settings.fc_layers)[-1],
    )
    return network.bind(params)


@functools.cache
def _choose_alexnet(settings: Settings) -> Choice:
    return choose_trained(
        dataclasses.replace(settings, network="caffenet", trained_weights=settings.alexnet_weights)
    )


def workload(settings: Settings) -> Workload:
    """The deepest inversion through an untrained network."""
    count = sum("baseline" not in trial for trial in list_trials(settings))
    return estimate_inversions(settings, settings.layers, count)


def list_rows(settings: Settings) -> dict[str, dict[str, str]]:
    """The rows of panel and table: what is shown, and what its trials have."""
    rows = {group: {"weights": labels[0]} for group, labels in group_networks(settings).items()}
    return rows | {
        "trained": {"weights": TRAINED},
        "trained AlexNet": {"weights": ALEXNET},
        **{label: {"weights": label} for label in RANDOM},
        **{words: {"baseline": name} for name, words in BASELINES.items()},
    }


def plot(settings: Settings, records: list[Record], folder: pathlib.Path) -> None:
    """Draws the grids of the first picture and writes the table."""
    rows = list_rows(settings)
    groups = list(group_networks(settings))
    layers = find_untrained(settings).network.canonical_names(settings.layers)
    block_means = BASELINES["numbers"]
    names = [*groups, "trained", block_means, "trained AlexNet"]
    _draw_panel(settings, records, folder / "panel.jpg", names, layers)
    if settings.fc_layers:
        names = [*RANDOM, block_means]
        _draw_panel(settings, records, folder / "fc_panel.jpg", names, settings.fc_layers)
    lines = [
        [image, layer, name, describe_distance(found).replace("\n", ", ")]
        for image in load_pictures(settings, "image")
        for layer in list_values_of(records, "layer")
        for name, place in rows.items()
        if (found := find_record(records, image=image, **place, layer=layer))
    ]
    table = format_markdown(["picture", "layer", "network or baseline", "how near"], lines)
    write_text(folder / "table.md", table + "\n")


def _draw_panel(
    settings: Settings,
    records: list[Record],
    path: pathlib.Path,
    names: Sequence[str],
    layers: Sequence[str],
) -> None:
    image = next(iter(load_pictures(settings, "image")))
    rows = list_rows(settings)
    # AlexNet's layers are others.
    columns = {name: settings.alexnet_layers if "AlexNet" in name else layers for name in names}
    found = {
        name: [
            find_record(records, image=image, **rows[name], layer=layer) for layer in columns[name]
        ]
        for name in names
    }
    panel = render_grid(
        [[load_result(path.parent, record) for record in line] for line in found.values()],
        row_labels=["block means" if name in BASELINES.values() else name for name in names],
        column_labels=[*layers, *[""] * (max(map(len, columns.values())) - len(layers))],
        captions=[
            [
                (f"{layer}\n" if "AlexNet" in name else "") + describe_distance(record)
                for layer, record in zip(columns[name], line, strict=True)
            ]
            for name, line in found.items()
        ],
        cell=max(128, settings.image_size),
    )
    save_image(path, panel)


def judge(settings: Settings, records: list[Record]) -> list[Claim]:
    """What the records say about the paper's sentences; a picture is a unit."""
    layers = find_untrained(settings).network.canonical_names(settings.layers)
    of_networks = gather_layers(records)
    compare_with = functools.partial(compare_networks, of_networks)
    sentences = []

    def compare_worst(record: Record) -> float | None:
        ratios = compare_with(record, TRAINED, layers, layers)
        return None if ratios is None else float(ratios.max())

    for group, labels in group_networks(settings).items():
        # Not the mean over layers, as it once was: from the first one random weights bring a
        # picture back exactly, and a ratio of rounding errors would outweigh all others.
        sentences.append(
            make_sentence(
                f"From every kind of layer, reconstructions through {group} are nearer to the"
                " picture than through the trained VGG.",
                tabulate_group(of_networks, labels, compare_worst),
                measure="log(distance of the first / of the second) from the layer where it is"
                " largest",
                groups=(group, TRAINED),
                below=0.0,
                post_hoc=True,
            )
        )
    for group, labels in group_networks(settings).items():
        sentences.append(
            make_sentence(
                f"Reconstructions from pool3 and pool4 through {group} are nearer than those from"
                " conv3 and conv4 of the trained AlexNet with regularisers.",
                tabulate_group(
                    of_networks,
                    labels,
                    lambda record: mean(
                        compare_with(record, ALEXNET, ("pool3", "pool4"), settings.alexnet_layers)
                    ),
                ),
                measure="mean of log(distance of the first / of the second)",
                groups=(group, ALEXNET),
                below=0.0,
            )
        )
    last_fc = "".join(settings.fc_layers[-1:])
    for label, convention in zip(RANDOM, (UNCENTRED, CENTRED), strict=True):
        sentences.append(
            make_sentence(
                f"The fully connected layers of a purely random VGG with {convention} input can be"
                " inverted.",
                tabulate_group(
                    of_networks,
                    [label],
                    lambda record: compare_with_baseline(record, records, "mean", last_fc),
                ),
                measure=f"log(distance from {last_fc} / of the mean colour); inverted: nearer by a"
                " quarter",
                groups=(label, "the mean colour"),
                below=math.log(0.75),
            )
        )
    return judge_together("figure 1", sentences)


main = functools.partial(run_module, sys.modules[__name__])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
