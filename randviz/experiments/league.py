"""Compares architectures without training: how well their random networks keep and make pictures.

Claim: random weights may lead to a way to compare network architectures without training; kernels
of 3×3 and average pooling let representations be inverted better.
Expect: league.md, a row for each architecture with its places, ties shown as ties; places.png; and
panel.jpg. Each architecture is inverted from the layer that has nearest to --num_features numbers,
makes textures from the first layer at each of four resolutions, and its features' rank is measured.
At laptop scale an hour and a half on two cores.

Usage: randviz league [--network=NAME,my_nets.py:Mine ...] [--flag=value ...]

Examples:
  randviz league --network=vgg19,resnet18,small --image=chelsea,coffee --num_networks=2
  randviz league --network=small,small_kernel5,small_max --image_size=64 --out_dir=out/small
"""

import dataclasses
import functools
import math
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import matplotlib.figure
import numpy as np

from randviz.commands.inputs import PictureSettings, SeedSettings, StepSettings
from randviz.commands.network_choice import Choice, NetworkSettings, choose_untrained, name_apart
from randviz.commands.trials import (
    as_json,
    filter_records,
    find_record,
    list_values_of,
    load_pictures,
    load_result,
    make_noise,
    picture_path,
)
from randviz.descent.descent import advance, init, minimize
from randviz.experiments.claims import Claim, Sentence, judge_together, tabulate
from randviz.experiments.figure import PICTURES
from randviz.experiments.held_out import measure_contour_distance, measure_patch_distance
from randviz.experiments.places import Place, find_places
from randviz.host.baselines import average_blocks
from randviz.host.charts import format_estimate, format_markdown, save_figure
from randviz.host.grids import render_grid
from randviz.host.images import save_image, write_text
from randviz.host.quality import compare_images
from randviz.host.records import Record, Trial
from randviz.host.settings import setting
from randviz.host.study import Workload, run_module
from randviz.networks.catalog import NETWORKS
from randviz.networks.extractor import Extractor
from randviz.networks.modules import ModuleNetwork
from randviz.networks.network import Network
from randviz.tasks import inversion, texture
from randviz.tasks.inversion import Inversion
from randviz.tasks.texture import Texture
from randviz.types import Image, UserError

# All but those of a single layer that keeps every position: too many numbers to be compared.
COMPETITORS = tuple(name for name in NETWORKS if name not in ("filter_bank", "random_filters"))
_RESOLUTIONS = 4  # of texture layers
# A layer with more than so many times the numbers wanted, or fewer, is another comparison.
_FARTHEST = 4.0
# Score: how it is called, the part it is measured in, and whether more is better.
SCORES = {
    "gain": ("PSNR above block means of as many numbers, dB", "inversion", True),
    "distance": ("distance, grey levels", "inversion", False),
    "contour_distance": ("texture: distance of contours", "texture", False),
    "patch_distance": ("texture: distance of patches", "texture", False),
    "rank": ("effective rank of features / channels", "features", True),
}


@dataclasses.dataclass(frozen=True)
class Settings(SeedSettings, PictureSettings, StepSettings):
    """Settings of the league."""

    network: tuple[str, ...] = setting(
        COMPETITORS,
        "The architectures, commas between: names, or your own as FILE.py:NAME.",
    )
    image: tuple[str, ...] = setting(PICTURES, "The pictures inverted: paths or samples.")
    texture_image: tuple[str, ...] = setting(
        ("brick", "coins", "gravel", "starry_night", "great_wave", "the_scream"),
        "The textures made: paths or samples.",
    )
    num_networks: int = setting(3, "Random networks of each architecture.", lower_bound=1)
    num_features: int = setting(
        0,
        "How many numbers a layer is to have that is inverted; 0 for a sixth of the picture's.",
        lower_bound=0,
    )
    image_size: int = 96
    num_steps: int = 150
    square: bool = True
    out_dir: str = "out/league"


@functools.cache
def choose_architectures(settings: Settings) -> dict[str, Choice]:
    """The architectures by name.

    Raises:
      UserError: if none is named, one is named twice, or one has weights already.
    """
    names = settings.network
    if not names or len(set(names)) < len(names):
        raise UserError(f"--network={','.join(names)} names none, or one twice; name each once.")
    found = []
    for name in names:
        choice = choose_untrained(NetworkSettings(network=name, seed=settings.seed))
        if choice.metadata["weights"] != "random":
            raise UserError(f"--network={name} has weights already; name an architecture.")
        found.append(choice)
    labels = name_apart([choice.network.name for choice in found])
    return dict(zip(labels, found, strict=True))


def list_trials(settings: Settings) -> list[Trial]:
    """Architecture by architecture: its cost, and of each network features, pictures, textures."""
    pictures, textures = (load_pictures(settings, flag) for flag in ("image", "texture_image"))
    trials: list[Trial] = []
    for name in choose_architectures(settings):
        find_layer(settings, name)
        trials.append({"network": name, "part": "cost"})
        for draw in range(settings.num_networks):
            place = {"network": name, "draw": draw}
            trials.append({**place, "part": "features"})
            trials += [{**place, "part": "inversion", "image": image} for image in pictures]
            trials += [{**place, "part": "texture", "image": image} for image in textures]
    return trials


def describe(settings: Settings) -> dict[str, Any]:
    """The pixels, and what the architectures are."""
    return {
        "pictures": {
            f"{flag} {name}": picture.metadata["sha256"]
            for flag in ("image", "texture_image")
            for name, picture in load_pictures(settings, flag).items()
        },
        "networks": {
            name: dict(choice.metadata) for name, choice in choose_architectures(settings).items()
        },
    }


def _list_layers(network: Network | ModuleNetwork) -> tuple[str, ...]:
    """The layers that take pictures of any size."""
    names = network.layer_names[1:]
    if isinstance(network, Network):
        last = network.canonical_name(network.last_convolutional())
        names = names[: names.index(last) + 1]
    return names


@functools.cache
def find_layer(settings: Settings, name: str) -> str:
    """The layer of an architecture that is inverted: nearest in numbers, of equals the deepest.

    Raises:
      UserError: if no layer has about so many numbers, or the pictures are too small for it.
    """
    network = choose_architectures(settings)[name].network
    shape = next(iter(load_pictures(settings, "image").values())).image.shape
    wanted = settings.num_features or math.prod(shape) // 6
    shapes = network.feature_shapes(shape, _list_layers(network))
    # Of a picture that is too small for a layer nothing is left there.
    sizes = {layer: math.prod(found) for layer, found in shapes.items() if min(found) > 0}
    far = {layer: abs(math.log(size / wanted)) for layer, size in sizes.items()}
    layers = [layer for layer in far if far[layer] < min(far.values()) + 1e-9]
    if not layers or far[layers[-1]] > math.log(_FARTHEST):
        raise UserError(
            f"no layer of {name} has about {wanted} numbers at {shape[1]}×{shape[0]} pixels; give"
            " another --num_features or --image_size, or leave it out of --network."
        )
    return layers[-1]


@functools.lru_cache(maxsize=4)
def bind(settings: Settings, name: str, draw: int) -> Extractor:
    """One random network of an architecture."""
    seed = settings.seed + draw
    choice = choose_untrained(
        NetworkSettings(network=_find_source(settings, name), seed=seed)
    ).with_offset(inversion.INPUT_OFFSET)
    return choice.network.bind(choice.sample(_list_layers(choice.network)[-1]))


def _find_source(settings: Settings, name: str) -> str:
    return dict(zip(choose_architectures(settings), settings.network, strict=True))[name]


def measure(settings: Settings, trial: Trial) -> Record:
    """One trial of any part."""
    parts = {
        "cost": _measure_cost,
        "features": _measure_features,
        "inversion": _measure_inversion,
        "texture": _measure_texture,
    }
    return as_json(parts[trial["part"]](settings, trial))


def _measure_cost(settings: Settings, trial: Trial) -> Record:
    """Weights, and what a step of the inversion takes."""
    name = trial["network"]
    picture = next(iter(load_pictures(settings, "image").values())).image
    objective = Inversion(find_layer(settings, name)).of(bind(settings, name, 0), picture)
    start = make_noise(settings, picture, inversion.NOISE_STD)
    state, _ = advance(objective, init(objective, start, num_steps=20), num_steps=2)
    began = time.perf_counter()
    jax.block_until_ready(advance(objective, state, num_steps=8))
    seconds = (time.perf_counter() - began) / 8
    network = choose_architectures(settings)[name].network
    layer = find_layer(settings, name)
    weights = jax.tree.leaves(getattr(bind(settings, name, 0), "params", {}))
    return {
        "num_features": math.prod(network.feature_shape(picture.shape, layer)),
        "num_weights": sum(leaf.size for leaf in weights),
        "seconds_per_step": seconds,
    }


def _measure_features(settings: Settings, trial: Trial) -> Record:
    """How many directions the features of all pictures have."""
    layer = find_layer(settings, trial["network"])
    extractor = bind(settings, trial["network"], trial["draw"]).for_one_evaluation()
    columns = [
        np.asarray(extractor(picture.image, layer)[layer], np.float64)
        for picture in load_pictures(settings, "image").values()
    ]
    columns = np.concatenate([maps.reshape(-1, maps.shape[-1]) for maps in columns])
    return measure_spectrum(columns)


def measure_spectrum(columns: np.ndarray) -> dict[str, float]:
    """The effective rank and the condition of features.

    Args:
      columns: [positions, channels].

    Returns:
      rank: exp of the entropy of the shares of the squared singular values, over the number of
        them, from 0 to 1; condition: the largest over the smallest singular value, infinite for
        features that depend on each other.

    References:
      Roy and Vetterli (2007), "The effective rank: a measure of effective dimensionality".
    """
    values = np.linalg.svd(columns, compute_uv=False)
    shares = values**2 / np.sum(values**2)
    shares = shares[shares > 0]
    rank = float(np.exp(-np.sum(shares * np.log(shares))) / len(values))
    tiny = values[0] * max(columns.shape) * np.finfo(float).eps
    condition = float(values[0] / values[-1]) if values[-1] > tiny else math.inf
    return {"rank": rank, "condition": condition}


def _measure_inversion(settings: Settings, trial: Trial) -> Record:
    name = trial["network"]
    picture = load_pictures(settings, "image")[trial["image"]].image
    extractor = bind(settings, name, trial["draw"])
    objective = Inversion(find_layer(settings, name)).of(extractor, picture)
    start = make_noise(settings, picture, inversion.NOISE_STD)
    result = minimize(objective, start, num_steps=settings.num_steps)
    save_image(picture_path(settings.out_dir, trial), result.image)
    found = compare_images(result.image, picture)
    network = choose_architectures(settings)[name].network
    shape = network.feature_shape(picture.shape, find_layer(settings, name))
    blocks = compare_images(average_blocks(picture, math.prod(shape)), picture)
    return {**found, "gain": found["psnr"] - blocks["psnr"]}


def _measure_texture(settings: Settings, trial: Trial) -> Record:
    source = load_pictures(settings, "texture_image")[trial["image"]].image
    extractor = bind(settings, trial["network"], trial["draw"])
    network = choose_architectures(settings)[trial["network"]].network
    task = Texture(network.scale_layers[:_RESOLUTIONS])
    start = make_noise(settings, source, texture.NOISE_STD)
    result = minimize(task.of(extractor, source), start, num_steps=settings.num_steps)
    save_image(picture_path(settings.out_dir, trial), result.image)
    return {
        "patch_distance": measure_patch_distance(result.image, source),
        "contour_distance": measure_contour_distance(result.image, source),
    }


def workload(settings: Settings) -> Workload:
    """The inversion through the architecture with the most layers; all others are less."""
    names = choose_architectures(settings)
    deepest = max(names, key=lambda name: len(_list_layers(names[name].network)))
    picture = next(iter(load_pictures(settings, "image").values())).image
    count = sum(trial["part"] in ("inversion", "texture") for trial in list_trials(settings))
    task = Inversion(find_layer(settings, deepest))
    make = functools.partial(task.of, bind(settings, deepest, 0), picture)
    start = make_noise(settings, picture, inversion.NOISE_STD)
    return Workload(make, start, count * settings.num_steps)


def tabulate_scores(records: Sequence[Record], score: str) -> dict[str, np.ndarray]:
    """A score of each architecture, [pictures, networks], or [networks] of features.

    Args:
      records: of any trials.
      score: one of `SCORES`.

    Returns:
      {architecture: table}, higher is better, of those that have all pictures.
    """
    _, part, is_better = SCORES[score]
    found = filter_records(records, part=part)
    sign = 1.0 if is_better else -1.0
    take = lambda record: None if record[score] is None else sign * record[score]
    tables = {}
    for name in list_values_of(found, "network"):
        own = filter_records(found, network=name)
        if part == "features":
            tables[name] = np.array([take(record) for record in own], float)
        else:
            tables[name] = tabulate(own, ("image", "draw"), measure=take)
    most = max((table.shape for table in tables.values()), default=())
    return {name: table for name, table in tables.items() if table.shape == most}


def find_all_places(records: Sequence[Record]) -> dict[str, dict[str, Place]]:
    """The places by each score: {score: {architecture: place}}."""
    return {score: find_places(tabulate_scores(records, score)) for score in SCORES}


def plot(settings: Settings, records: list[Record], folder: pathlib.Path) -> None:
    """Writes the table and draws places and pictures."""
    places = find_all_places(records)
    table = _format_league(settings, records, places)
    write_text(folder / "league.md", table + "\n")
    save_figure(folder / "places.png", _draw_places(places))
    save_image(folder / "panel.jpg", _draw_panel(settings, records, places, folder))
    print(table)


def _format_league(
    settings: Settings, records: Sequence[Record], places: dict[str, dict[str, Place]]
) -> str:
    order = list(places["gain"])
    header = ["place", "architecture", "layer"]
    header += [words for words, _, _ in SCORES.values()]
    header += ["log₁₀ condition", "numbers", "weights", "ms a step"]
    lines = []
    for name in order:
        line: list[Any] = [places["gain"][name], name, find_layer(settings, name)]
        for score, (_, _, is_better) in SCORES.items():
            place = places[score].get(name)
            if place is None:
                line.append("")
                continue
            value, low, high, n = place.score
            shown = place.score if is_better else type(place.score)(-value, -high, -low, n)
            line.append(f"{format_estimate(shown, '.2f')} ({place})")
        conditions = [
            record["condition"] for record in filter_records(records, network=name, part="features")
        ]
        finite = [math.log10(value) for value in conditions if value is not None]
        line.append(f"{np.mean(finite):.1f}" if len(finite) == len(conditions) else "∞")
        cost = find_record(records, network=name, part="cost")
        line += (
            [
                cost["num_features"],
                cost["num_weights"],
                f"{1000 * cost['seconds_per_step']:.0f}",
            ]
            if cost
            else [""] * 3
        )
        lines.append(line)
    said = (
        "Means over pictures and networks with 95 % intervals, and in brackets the places that are"
        " not excluded: one architecture is before another if their difference on the same pictures"
        " is above 0 at 5 %, corrected for all pairs. Sorted by the first score."
    )
    return f"{said}\n\n{format_markdown(header, lines)}"


def _draw_places(places: dict[str, dict[str, Place]]) -> matplotlib.figure.Figure:
    """For each score a column: places of each architecture as a bar, its mean's place a dot."""
    order = list(places["gain"])
    figure = matplotlib.figure.Figure(
        figsize=(3 + 2.4 * len(SCORES), 1.2 + 0.26 * len(order)), layout="constrained"
    )
    panels = figure.subplots(1, len(SCORES), sharey=True, squeeze=False)[0]
    for (score, (words, _, _)), panel in zip(SCORES.items(), panels, strict=True):
        for rank, (name, place) in enumerate(places[score].items(), 1):
            row = order.index(name)
            panel.plot([place.low, place.high], [row, row], color="C0", lw=4, alpha=0.35)
            panel.plot(rank, row, "o", color="C0", ms=4)
        panel.set_title(words.replace(": ", "\n").replace(" above", "\nabove"), fontsize=9)
        panel.set_xlabel("place")
        panel.grid(axis="y", alpha=0.3)
    panels[0].set_yticks(range(len(order)), order)
    panels[0].invert_yaxis()
    return figure


def _draw_panel(
    settings: Settings,
    records: Sequence[Record],
    places: dict[str, dict[str, Place]],
    folder: pathlib.Path,
) -> Image:
    """A row for each architecture: the first pictures and textures, of its first network."""
    pictures, textures = (load_pictures(settings, flag) for flag in ("image", "texture_image"))
    columns = [("inversion", image) for image in list(pictures)[:3]]
    columns += [("texture", image) for image in list(textures)[:3]]
    sources = {"inversion": pictures, "texture": textures}
    rows = [[sources[part][image].image for part, image in columns]]
    captions: list[list[str | None]] = [[None] * len(columns)]
    for name in places["gain"]:
        found = [
            find_record(records, network=name, draw=0, part=part, image=image)
            for part, image in columns
        ]
        rows.append([load_result(folder, record) for record in found])
        captions.append([record and _describe(record) for record in found])
    return render_grid(
        rows,
        row_labels=["the source", *places["gain"]],
        column_labels=[image for _, image in columns],
        captions=captions,
        cell=max(96, settings.image_size),
    )


def _describe(record: Record) -> str:
    if record["trial"]["part"] == "inversion":
        return f"{record['gain']:+.1f} dB"
    return f"contours {record['contour_distance']:.2f}"


def judge(settings: Settings, records: list[Record]) -> list[Claim]:
    """The paper's explanation of figure 1, each as one thing changed in a small network."""
    scores = tabulate_scores(records, "distance")
    distances = {name: -table for name, table in scores.items()}

    def compare(first: str, second: str) -> np.ndarray:
        if first not in distances or second not in distances:
            return np.empty(0)
        return np.log(distances[first]) - np.log(distances[second])

    asked = (
        ("with 3×3 kernels than with 5×5", "small_kernel5"),
        ("with 3×3 kernels than with 7×7", "small_kernel7"),
        ("with average pooling than with maximum pooling", "small_max"),
        ("with average pooling than with strides", "small_stride"),
        ("without skip connections than with them", "small_skip"),
        ("without normalisation than with it", "small_normalized"),
    )
    sentences = [
        Sentence(
            f"A small random network is inverted better {words}.",
            compare("small", other),
            units="pictures and networks",
            measure="log(distance of the first / of the second), about as many numbers",
            groups=("small", other),
            below=0.0,
        )
        for words, other in asked
    ]
    return judge_together("league", sentences)


main: Callable[[Sequence[str]], int] = functools.partial(run_module, sys.modules[__name__])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
