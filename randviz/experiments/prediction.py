"""Does what random networks do with pictures foretell how accurate an architecture is once trained?

Claim: random weights may lead to a way to compare network architectures without training.
Expect: prediction.md, the rank correlation of each score of untrained networks with accuracy after
training, with its interval, beside what is trivial (weights, operations) and two scores that others
proposed; correlations.png and accuracy.png. Small networks that differ in one thing each are
trained here, to say which of 24 pictures a grey crop of 24 pixels is from, tested on parts of the
pictures that training does not see. Of known architectures accuracies on ImageNet are taken from
where they were published. Scores come from the records of `randviz league`.

Example:
  python -m randviz.experiments.prediction --num_networks=2 --num_steps=1000
"""

import dataclasses
import functools
import math
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import matplotlib.figure
import numpy as np

from randviz.commands.inputs import Picture, SeedSettings, StepSettings, load_picture, make_keys
from randviz.commands.network_choice import NetworkSettings, check_names, choose_untrained
from randviz.commands.trials import filter_records, list_values_of
from randviz.experiments.claims import Claim, Sentence, judge_together
from randviz.experiments.classification import (
    CROP_SIZE,
    Crops,
    make_crops,
    prepare_network,
    train_classifier,
)
from randviz.experiments.league import list_layers
from randviz.experiments.league_scores import SCORES, tabulate_scores
from randviz.experiments.proxies import (
    count_operations,
    count_weights,
    measure_naswot,
    measure_synflow,
)
from randviz.host.charts import format_markdown, save_figure
from randviz.host.images import write_text
from randviz.host.records import Record, Trial, parse_record
from randviz.host.samples import SAMPLES
from randviz.host.settings import setting
from randviz.host.study import EXCLUDED_FIELDS, run_module
from randviz.host.workers import WorkerSettings
from randviz.networks.modules import ModuleNetwork
from randviz.networks.network import Network
from randviz.networks.small import VARIANTS
from randviz.networks.weights import random_weights, weight_shapes
from randviz.search.intervals import Estimate, Tested, correlate_ranks, estimate
from randviz.types import UserError

_CLASS_SIZE = 192  # pixels, of the longest side of the pictures that crops are of
_ENLARGED = 4  # times are crops shown to the known architectures, made for larger pictures
_NASWOT_BATCH = 64
_PUBLISHED_SIZE = 227  # pixels a side of AlexNet's pictures; with others' 224 VGG-19 has as many
PIXELS = "pixels"  # a linear classifier of them, what any network has to beat

_TORCHVISION = "torchvision.models, documentation, 1-crop error on ImageNet's validation set"
_CAFFE = "BVLC CaffeNet Model, its readme, centre crop"
# Without skip connections there are accuracies of ten crops alone, and of the same with them.
_RESNETS = "torchvision's with skip connections, less He, Zhang, Ren, Sun (2016), table 2"
# Top-1 accuracy in percent, and where it was published.
PUBLISHED = {
    "alexnet": (100 - 43.45, _TORCHVISION),
    "caffenet": (57.4, _CAFFE),
    "vgg11": (100 - 30.98, _TORCHVISION),
    "vgg13": (100 - 30.07, _TORCHVISION),
    "vgg16": (100 - 28.41, _TORCHVISION),
    "vgg19": (100 - 27.62, _TORCHVISION),
    "resnet18": (100 - 30.24, _TORCHVISION),
    "resnet34": (100 - 26.70, _TORCHVISION),
    "resnet50": (100 - 23.85, _TORCHVISION),
    "resnet18_plain": (100 - 30.24 - (27.94 - 27.88), _RESNETS),
    "resnet34_plain": (100 - 26.70 - (28.54 - 25.03), _RESNETS),
}
TRAINED, KNOWN = "trained here", "published"

# How they are called; all are read so that more should be better.
PROXIES = {
    "naswot": "NASWOT",
    "synflow": "SynFlow",
    "weights": "number of convolutional weights",
    "all_weights": "number of weights, fully connected layers included",
    "operations": "number of operations of convolutions",
}
AGAIN = "accuracy of another training"


@dataclasses.dataclass(frozen=True)
class Settings(SeedSettings, StepSettings, WorkerSettings):
    """Settings of the comparison with training."""

    network: tuple[str, ...] = setting(
        tuple(network.name for network in VARIANTS), "The architectures that are trained."
    )
    known_network: tuple[str, ...] = setting(
        tuple(PUBLISHED),
        "Architectures whose accuracy was published, which the proxies score too.",
    )
    league: str = setting(
        "",
        "Folder with the records of `randviz league`, which has the scores; if not given, the"
        " folder league beside --out_dir.",
    )
    image: tuple[str, ...] = setting(
        tuple(name for name in SAMPLES if name != "qingming_scroll"),
        "The classes: pictures, paths or samples.",
    )
    num_networks: int = setting(
        3, "Random networks of each architecture, each scored and trained.", lower_bound=1
    )
    num_crops: int = setting(160, "Crops of each picture that are trained on.", lower_bound=4)
    num_steps: int = 300
    out_dir: str = "out/prediction"


def list_trials(settings: Settings) -> list[Trial]:
    """Proxies of each network, of those with published accuracies too, and each training."""
    check_names(settings.network)
    for name in settings.known_network:
        if name not in PUBLISHED:
            raise UserError(
                f"--known_network={name} has no published accuracy here; use some of"
                f" {', '.join(PUBLISHED)}."
            )
    if not settings.dry_run:
        # Or an hour passes before it is said that there are none.
        _read_scores(_find_league(settings))
    for name in settings.network:
        _check_network(settings, name)
    known = [name for name in dict.fromkeys(settings.known_network) if name not in settings.network]
    trials: list[Trial] = [
        {"network": name, "draw": draw, "part": "proxies"}
        for name in (*settings.network, *known)
        for draw in range(settings.num_networks)
    ]
    return trials + [
        {"network": name, "draw": draw, "part": "training"}
        for name in (PIXELS, *settings.network)
        for draw in range(settings.num_networks)
    ]


def _check_network(settings: Settings, name: str) -> None:
    network = choose_untrained(NetworkSettings(network=name, seed=settings.seed)).network
    try:
        network.check_image((CROP_SIZE, CROP_SIZE, 3), list_layers(network)[-1])
    except UserError as error:
        raise UserError(
            f"--network={name} cannot be trained on crops of {CROP_SIZE}×{CROP_SIZE} pixels, which"
            " are too small for it; leave it out."
        ) from error


@functools.cache
def _load_classes(settings: Settings) -> list[Picture]:
    """The pictures that crops are of."""
    return [load_picture("image", source, _CLASS_SIZE) for source in settings.image]


@functools.cache
def _load_crops(settings: Settings) -> tuple[Crops, Crops]:
    """What is trained on, and a quarter as many to test on."""
    pictures = [np.asarray(picture.image) for picture in _load_classes(settings)]
    return (
        make_crops(pictures, settings.num_crops, test=False, seed=settings.seed),
        make_crops(pictures, settings.num_crops // 4, test=True, seed=settings.seed),
    )


class _Drawn(NamedTuple):
    """A random network, as it is trained.

    Attributes:
      network: the architecture.
      params: its weights.
      layer: the last one.
    """

    network: Network | ModuleNetwork
    params: Any
    layer: str


def _draw(settings: Settings, trial: Trial) -> _Drawn:
    seed = settings.seed + trial["draw"]
    choice = choose_untrained(NetworkSettings(network=trial["network"], seed=seed))
    network = prepare_network(choice.network)
    layer = list_layers(network)[-1]
    if isinstance(network, ModuleNetwork):
        return _Drawn(network, choice.sample(layer), layer)
    return _Drawn(network, random_weights(make_keys(seed)[0], network, last_layer=layer), layer)


def measure(settings: Settings, trial: Trial) -> Record:
    """The proxies of one random network, or its accuracy after training."""
    train, test = _load_crops(settings)
    if trial["part"] == "training":
        drawn = _draw(settings, trial) if trial["network"] != PIXELS else _Drawn(None, (), "")
        key = jax.random.fold_in(make_keys(settings.seed)[1], trial["draw"])
        return train_classifier(key, *drawn, train, test, num_steps=settings.num_steps)
    drawn = _draw(settings, trial)
    factor = 1 if trial["network"] in settings.network else _ENLARGED
    images = _choose(settings, test.images).repeat(factor, 1).repeat(factor, 2)
    size = factor * CROP_SIZE
    names = _list_weighted(drawn)
    operations = count_operations(*drawn, (size, size, 3))
    return {
        "naswot": measure_naswot(drawn.network, drawn.params, names, images),
        "synflow": measure_synflow(*drawn, size),
        "weights": math.log(count_weights(drawn.params)),
        "all_weights": math.log(_count_all_weights(drawn)),
        "operations": math.log(operations),
    }


def _count_all_weights(drawn: _Drawn) -> int:
    """With fully connected layers, of the pictures whose accuracy was published.

    But without the classifier of a residual network, which has half a million, or two, and is not
    among its layers here.
    """
    if isinstance(drawn.network, ModuleNetwork):
        return count_weights(drawn.params)
    network = dataclasses.replace(drawn.network, fc_image_size=_PUBLISHED_SIZE)
    shapes = weight_shapes(network, network.layer_names[-1])
    return sum(math.prod(shape) for layer in shapes.values() for shape in layer.values())


def _choose(settings: Settings, images: np.ndarray) -> np.ndarray:
    """A batch of all classes, the same for every network."""
    order = np.random.default_rng(settings.seed).permutation(len(images))
    return images[order[:_NASWOT_BATCH]]


def _list_weighted(drawn: _Drawn) -> tuple[str, ...]:
    if isinstance(drawn.network, ModuleNetwork):
        return list_layers(drawn.network)
    return tuple(layer.name for layer in drawn.network.weighted_layers(drawn.layer))


def gather_predictors(
    records: Sequence[Record], scores: Sequence[Record]
) -> dict[str, dict[str, float]]:
    """What is known of each architecture before it is trained.

    Args:
      records: of this study.
      scores: of the league.

    Returns:
      {predictor: {architecture: value}}, means over networks and pictures, more being better.
    """
    found = {}
    for score, (words, _, _) in SCORES.items():
        tables = tabulate_scores(scores, score)
        found[words] = {name: float(np.mean(table)) for name, table in tables.items()}
    for proxy, words in PROXIES.items():
        found[words] = _average(filter_records(records, part="proxies"), proxy)
    return {words: values for words, values in found.items() if values}


def _average(records: Sequence[Record], measure: str) -> dict[str, float]:
    """{architecture: mean}, of those where every record has a value."""
    values = {
        name: [record[measure] for record in filter_records(records, network=name)]
        for name in list_values_of(records, "network")
    }
    return {name: float(np.mean(found)) for name, found in values.items() if None not in found}


def gather_accuracies(records: Sequence[Record]) -> dict[str, dict[str, float]]:
    """{TRAINED or KNOWN: {architecture: accuracy}}, means over trainings, from 0 to 1."""
    own = _average(filter_records(records, part="training"), "accuracy")
    own.pop(PIXELS, None)
    known = {name: accuracy / 100 for name, (accuracy, _) in PUBLISHED.items()}
    return {TRAINED: own, KNOWN: known}


def correlate(predictor: dict[str, float], accuracy: dict[str, float]) -> Tested:
    """Spearman's rank correlation over the architectures that both have.

    Args:
      predictor, accuracy: {architecture: value}.
    """
    names = sorted(predictor.keys() & accuracy.keys())
    return correlate_ranks(*([values[name] for name in names] for values in (predictor, accuracy)))


def _correlate_trainings(records: Sequence[Record]) -> Tested:
    """How far the accuracy of one training foretells the mean of the others: the most there is."""
    trained = [
        r for r in filter_records(records, part="training") if r["trial"]["network"] != PIXELS
    ]
    first = [record for record in trained if record["trial"]["draw"] == 0]
    others = [record for record in trained if record["trial"]["draw"] > 0]
    return correlate(_average(first, "accuracy"), _average(others, "accuracy"))


def _find_league(settings: Settings) -> str:
    return settings.league or str(pathlib.Path(settings.out_dir).parent / "league")


@functools.cache
def _read_scores(folder: str) -> list[Record]:
    path = pathlib.Path(folder, "records.jsonl")
    if not path.is_file():
        raise UserError(
            f"--league={folder} holds no records.jsonl; run randviz league --out_dir={folder}, or"
            " name the folder of one that was run."
        )
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        records = [parse_record(line, must_be_checked=False) for line in lines]
        filter_records(records, part="inversion")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path} is damaged; run the same league again, which goes on after its last good"
            " record."
        ) from error
    return records


def plot(settings: Settings, records: list[Record], folder: pathlib.Path) -> None:
    """Writes the table, and draws correlations and accuracies."""
    predictors = gather_predictors(records, _read_scores(_find_league(settings)))
    accuracies = gather_accuracies(records)
    found = {
        words: {kind: correlate(values, accuracy).estimate for kind, accuracy in accuracies.items()}
        for words, values in predictors.items()
    }
    found[AGAIN] = {TRAINED: _correlate_trainings(records).estimate}
    table = _format_tables(settings, records, found)
    write_text(folder / "prediction.md", table + "\n")
    save_figure(folder / "correlations.png", _draw_correlations(found))
    save_figure(folder / "accuracy.png", _draw_accuracies(records, predictors, accuracies[TRAINED]))
    print(table)


def _format_tables(
    settings: Settings, records: Sequence[Record], found: dict[str, dict[str, Estimate]]
) -> str:
    kinds = (TRAINED, KNOWN)
    lines = [
        [words, *(str(row[kind]) if kind in row and row[kind].n else "" for kind in kinds)]
        for words, row in found.items()
    ]
    correlations = format_markdown(
        ["known before training", *(f"rank correlation, {kind}" for kind in kinds)], lines
    )
    trained = filter_records(records, part="training")
    names = _average(trained, "accuracy")
    rows = []
    for name in sorted(names, key=lambda name: -names[name]):
        own = filter_records(trained, network=name)
        accuracy, fit = (
            estimate([record[measure] for record in own])
            for measure in ("accuracy", "train_accuracy")
        )
        rows.append([name, str(accuracy), f"{fit.value:.2f}"])
    accuracies = format_markdown(["architecture", "accuracy", "accuracy in training"], rows)
    published = format_markdown(
        ["architecture", "top-1 accuracy, %", "source"],
        [[name, f"{accuracy:.1f}", source] for name, (accuracy, source) in PUBLISHED.items()],
    )
    chance = 1 / len(settings.image)
    return (
        "Spearman's rank correlations over architectures with 95 % intervals; every score is read"
        " so that more should be better.\n\n"
        f"{correlations}\n\nAccuracies of {len(settings.image)} classes, chance is {chance:.2f}:"
        f"\n\n{accuracies}\n\n{published}"
    )


def _draw_correlations(found: dict[str, dict[str, Estimate]]) -> matplotlib.figure.Figure:
    figure = matplotlib.figure.Figure(figsize=(9, 1 + 0.36 * len(found)), layout="constrained")
    axes = figure.subplots()
    for place, (kind, color) in enumerate(((TRAINED, "C0"), (KNOWN, "C1"))):
        for row, values in enumerate(found.values()):
            shown = values.get(kind)
            if shown is None or shown.n < 2:
                continue
            y = row + 0.16 * (2 * place - 1)
            axes.plot([shown.low, shown.high], [y, y], color=color, lw=2, alpha=0.5)
            label = f"{kind}, {shown.n} architectures" if row == 0 else None
            axes.plot(shown.value, y, "o", color=color, ms=5, label=label)
    axes.axvline(0, color="0.5", lw=1)
    axes.set(xlim=(-1.05, 1.05), xlabel="rank correlation with accuracy after training, 95 %")
    axes.set_yticks(range(len(found)), list(found))
    axes.invert_yaxis()
    axes.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _draw_accuracies(
    records: Sequence[Record],
    predictors: dict[str, dict[str, float]],
    accuracy: dict[str, float],
) -> matplotlib.figure.Figure:
    """Accuracy over the league's first score, and over the number of operations."""
    shown = [words for words in (SCORES["gain"][0], PROXIES["operations"]) if words in predictors]
    figure = matplotlib.figure.Figure(figsize=(6.5 * len(shown), 5), layout="constrained")
    for words, axes in zip(shown, figure.subplots(1, len(shown), squeeze=False)[0], strict=True):
        names = sorted(accuracy.keys() & predictors[words].keys(), key=lambda name: accuracy[name])
        for place, name in enumerate(names):
            value = accuracy[name]
            x = predictors[words][name]
            own = filter_records(records, part="training", network=name)
            axes.plot([x] * len(own), [record["accuracy"] for record in own], ".", color="0.7")
            axes.plot(x, value, "o", color="C0", ms=4)
            # On alternating sides, since many have the same number of operations.
            side, offset = (("left", 4), ("right", -4))[place % 2]
            axes.annotate(
                name.removeprefix("small_"), (x, value), xytext=(offset, 2), fontsize=8,
                textcoords="offset points", ha=side,
            )  # fmt: skip
        shown_words = f"logarithm of the {words}" if words == PROXIES["operations"] else words
        axes.set(xlabel=shown_words, ylabel="accuracy after training")
        axes.margins(x=0.1)
        axes.grid(alpha=0.3)
    return figure


def judge(settings: Settings, records: list[Record]) -> list[Claim]:
    """Whether each score of random networks goes with accuracy after training."""
    predictors = gather_predictors(records, _read_scores(_find_league(settings)))
    accuracies = gather_accuracies(records)
    said = {
        "gain": "How well random networks of an architecture are inverted",
        "contour_distance": "How near textures of random networks come, by their contours,",
        "patch_distance": "How near textures of random networks come, by their patches,",
        "style_distance": "How near pictures painted by random networks come to the painting",
        "rank": "The effective rank of random networks' features",
    }
    sentences = [
        Sentence(
            f"{words} foretells accuracy after training ({kind}).",
            correlate(predictors.get(SCORES[score][0], {}), accuracies[kind]),
            units="architectures",
            measure="Spearman's rank correlation",
            groups=(SCORES[score][0], f"accuracy, {kind}"),
            above=0.0,
        )
        for kind in accuracies
        for score, words in said.items()
    ]
    # Such a network is inverted best and cannot be trained.
    linear = {network.name for network in VARIANTS if network.activation == "none"}
    gains = {
        name: gain
        for name, gain in predictors.get(SCORES["gain"][0], {}).items()
        if name not in linear
    }
    sentences.append(
        Sentence(
            f"{said['gain']} foretells accuracy after training ({TRAINED}), of those with an"
            " activation.",
            correlate(gains, accuracies[TRAINED]),
            units="architectures",
            measure="Spearman's rank correlation",
            groups=(SCORES["gain"][0], f"accuracy, {TRAINED}"),
            above=0.0,
            post_hoc=True,
        )
    )
    return judge_together("prediction", sentences)


def describe(settings: Settings) -> dict[str, Any]:
    """The pixels of the classes."""
    return {
        "pictures": {
            source: picture.metadata["sha256"]
            for source, picture in zip(settings.image, _load_classes(settings), strict=True)
        }
    }


# No record depends on the league's, or on how many others there are.
excluded_fields = (*EXCLUDED_FIELDS, "league", "num_networks")
main = functools.partial(run_module, sys.modules[__name__])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
