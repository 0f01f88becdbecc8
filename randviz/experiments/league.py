"""Compares architectures without training: how well their random networks keep and make pictures.

Claim: random weights may lead to a way to compare network architectures without training; kernels
of 3×3 and average pooling let representations be inverted better.
Expect: league.md, a row for each architecture with its places, ties shown as ties; places.png; and
panel.jpg. Pictures are inverted from the layer with about --num_features numbers, textures and
paintings made from the first layers at each resolution. With --trained_weights the trained VGG-19
judges too. The study `prediction` asks whether any of it foretells accuracy.

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
import jax.numpy as jnp
import numpy as np
import scipy.ndimage
import skimage.color

from randviz.commands.inputs import PictureSettings, SeedSettings, StepSettings
from randviz.commands.network_choice import (
    Choice,
    NetworkSettings,
    check_names,
    choose_trained,
    choose_untrained,
    name_apart,
)
from randviz.commands.trials import (
    load_pictures,
    make_noise,
    picture_path,
)
from randviz.descent.descent import advance, compile_steps, init, minimize
from randviz.experiments.claims import Claim
from randviz.experiments.figure import PICTURES
from randviz.experiments.held_out import measure_contour_distance, measure_patch_distance
from randviz.experiments.league_scores import (
    SMOOTHED,
    TRAINED_VGG19,
    draw_panel,
    draw_places,
    find_all_places,
    format_league,
    judge_league,
)
from randviz.experiments.painting_judges import PATCH_SIDES, make_judge, make_network_judge
from randviz.experiments.proxies import count_weights
from randviz.host.baselines import average_blocks
from randviz.host.charts import save_figure
from randviz.host.images import load_image, save_image, write_text
from randviz.host.quality import compare_images
from randviz.host.records import Record, Trial
from randviz.host.settings import setting
from randviz.host.study import EXCLUDED_FIELDS, Workload, run_module
from randviz.host.workers import WorkerSettings
from randviz.networks.adapters import from_function
from randviz.networks.catalog import NETWORKS
from randviz.networks.extractor import Extractor
from randviz.networks.modules import ModuleNetwork
from randviz.networks.network import IMAGENET_MEAN, Network
from randviz.networks.vgg import VGG19
from randviz.objectives.objective import Objective
from randviz.tasks import inversion, texture
from randviz.tasks.inversion import Inversion
from randviz.tasks.style import STYLE_LAYERS, Style
from randviz.tasks.texture import Texture
from randviz.types import Array, Features, Image, UserError

# All but those of a single layer that keeps every position: too many numbers to be compared.
COMPETITORS = tuple(name for name in NETWORKS if name not in ("filter_bank", "random_filters"))
_RESOLUTIONS = 4  # of texture layers
# Of style layers, and which of them the content is compared at.
_STYLE_RESOLUTIONS, _CONTENT = 5, 1
_SPIKE = 0.2
_TIMINGS, _TIMED_STEPS = 5, 4
# A layer with more than so many times the numbers wanted, or fewer, is another comparison.
_FARTHEST = 4.0


@dataclasses.dataclass(frozen=True)
class Settings(SeedSettings, PictureSettings, StepSettings, WorkerSettings):
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
    style_image: tuple[str, ...] = setting(
        ("starry_night", "the_scream", "great_wave", "composition_vii"),
        "The paintings: paths or samples; the first is the style of the first picture, and so on.",
    )
    trained_weights: str = setting(
        "", "A file of VGG-19's trained weights, of any kind that randviz invert takes."
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
    check_names(settings.network)
    found = []
    for name in settings.network:
        choice = choose_untrained(NetworkSettings(network=name, seed=settings.seed))
        if choice.metadata["weights"] != "random":
            raise UserError(f"--network={name} has weights already; name an architecture.")
        found.append(choice)
    labels = name_apart([choice.network.name for choice in found])
    return dict(zip(labels, found, strict=True))


def list_trials(settings: Settings) -> list[Trial]:
    """Architecture by architecture: its cost, and of each network features and all pictures."""
    pictures, textures, styles = (
        load_pictures(settings, flag) for flag in ("image", "texture_image", "style_image")
    )
    trials: list[Trial] = []
    for name in choose_architectures(settings):
        find_layer(settings, name)
        trials.append({"network": name, "part": "cost"})
        for draw in range(settings.num_networks):
            place = {"network": name, "draw": draw}
            trials.append({**place, "part": "features"})
            trials += [{**place, "part": "inversion", "image": image} for image in pictures]
            trials += [{**place, "part": "texture", "image": image} for image in textures]
            trials += [{**place, "part": "style", "image": image} for image in styles]
            if name in SMOOTHED:
                trials += [{**place, "part": "smoothed", "image": image} for image in textures]
    if settings.trained_weights:
        place = {"network": TRAINED_VGG19, "draw": 0, "part": "texture"}
        trials += [{**place, "image": image} for image in textures]
    return trials


def describe(settings: Settings) -> dict[str, Any]:
    """The pixels, and what the architectures are."""
    return {
        "pictures": {
            f"{flag} {name}": picture.metadata["sha256"]
            for flag in ("image", "texture_image", "style_image")
            for name, picture in load_pictures(settings, flag).items()
        },
        "networks": {
            name: dict(choice.metadata) for name, choice in choose_architectures(settings).items()
        },
    }


def list_layers(network: Network | ModuleNetwork) -> tuple[str, ...]:
    """The layers that take pictures of any size, in forward order."""
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
    shapes = network.feature_shapes(shape, list_layers(network))
    # Of a picture that is too small for a layer nothing is left there.
    sizes = {layer: math.prod(found) for layer, found in shapes.items() if min(found) > 0}
    far = {layer: abs(math.log(size / wanted)) for layer, size in sizes.items()}
    layers = [layer for layer in far if far[layer] < min(far.values()) + 1e-9]
    if not layers or far[layers[-1]] > math.log(_FARTHEST):
        nearest = f" (the nearest, {layers[-1]}, has {sizes[layers[-1]]})" if layers else ""
        raise UserError(
            f"no layer of {name} has about {wanted} numbers at {shape[1]}×{shape[0]} pixels"
            f"{nearest}; give another --num_features or --image_size, or leave it out of --network."
        )
    return layers[-1]


@functools.cache
def _load_trained(settings: Settings) -> Choice:
    return choose_trained(NetworkSettings(trained_weights=settings.trained_weights))


@functools.lru_cache(maxsize=4)
def bind(settings: Settings, name: str, draw: int) -> Extractor:
    """One random network of an architecture, or the trained one."""
    if name == TRAINED_VGG19:
        found = _load_trained(settings).with_offset(IMAGENET_MEAN)
        return found.network.bind(found.sample(STYLE_LAYERS[-1]))
    seed = settings.seed + draw
    choice = choose_untrained(
        NetworkSettings(network=_find_source(settings, name), seed=seed)
    ).with_offset(inversion.INPUT_OFFSET)
    return choice.network.bind(choice.sample(list_layers(choice.network)[-1]))


def _find_source(settings: Settings, name: str) -> str:
    return dict(zip(choose_architectures(settings), settings.network, strict=True))[name]


def _find_network(settings: Settings, name: str) -> Network | ModuleNetwork:
    return VGG19 if name == TRAINED_VGG19 else choose_architectures(settings)[name].network


def is_timed(trial: Trial) -> bool:
    """Whether a trial measures time."""
    return trial["part"] == "cost"


def measure(settings: Settings, trial: Trial) -> Record:
    """One trial of any part."""
    parts = {
        "cost": _measure_cost,
        "features": _measure_features,
        "inversion": _measure_inversion,
        "texture": _measure_texture,
        "smoothed": _measure_texture,
        "style": _measure_style,
    }
    return parts[trial["part"]](settings, trial)


def _measure_cost(settings: Settings, trial: Trial) -> Record:
    """Weights, and what a step of the inversion takes: time, and memory beside the weights."""
    name = trial["network"]
    picture = next(iter(load_pictures(settings, "image").values())).image
    objective = Inversion(find_layer(settings, name)).of(bind(settings, name, 0), picture)
    start = make_noise(settings, picture, inversion.NOISE_STD)
    state = init(objective, start, num_steps=20)
    plan = compile_steps(objective, state).memory_analysis()
    found = []
    for _ in range(1 + _TIMINGS):  # the first compiles
        began = time.perf_counter()
        state, _ = jax.block_until_ready(advance(objective, state, num_steps=_TIMED_STEPS))
        found.append((time.perf_counter() - began) / _TIMED_STEPS)
    seconds = float(np.median(found[1:]))
    network = _find_network(settings, name)
    layer = find_layer(settings, name)
    return {
        "num_features": math.prod(network.feature_shape(picture.shape, layer)),
        "num_weights": count_weights(getattr(bind(settings, name, 0), "params", {})),
        "seconds_per_step": seconds,
        "memory": plan.temp_size_in_bytes,
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
    objective = Inversion(find_layer(settings, name)).of(
        bind(settings, name, trial["draw"]), picture
    )
    start = make_noise(settings, picture, inversion.NOISE_STD)
    image = _descend(settings, trial, objective, start)
    found = compare_images(image, picture)
    shape = _find_network(settings, name).feature_shape(picture.shape, find_layer(settings, name))
    blocks = compare_images(average_blocks(picture, math.prod(shape)), picture)
    return {**found, "gain": found["psnr"] - blocks["psnr"], "spikes": measure_spikes(image)}


def _descend(settings: Settings, trial: Trial, objective: Objective, start: Image) -> Image:
    """The picture of a trial as it is saved, so that its measures can be found again from it."""
    path = picture_path(settings.out_dir, trial)
    save_image(path, minimize(objective, start, num_steps=settings.num_steps).image)
    return load_image(path)


def measure_spikes(image: Image) -> float:
    """The share of pixels that stand out: grey is more than a fifth off the median around them.

    Args:
      image: [H, W, 3], clipped to [0, 1] here; medians are of 3×3 pixels.
    """
    grey = skimage.color.rgb2gray(np.clip(np.asarray(image, float), 0, 1))
    return float(np.mean(np.abs(grey - scipy.ndimage.median_filter(grey, 3)) > _SPIKE))


def _measure_texture(settings: Settings, trial: Trial) -> Record:
    source = load_pictures(settings, "texture_image")[trial["image"]].image
    extractor = bind(settings, trial["network"], trial["draw"])
    layers = _find_network(settings, trial["network"]).scale_layers[:_RESOLUTIONS]
    if trial["part"] == "smoothed":
        extractor = smooth(extractor, layers, source)
    start = make_noise(settings, source, texture.NOISE_STD)
    image = _descend(settings, trial, Texture(layers).of(extractor, source), start)
    return {
        "patch_distance": measure_patch_distance(image, source),
        "contour_distance": measure_contour_distance(image, source),
        **_ask_trained(settings, "texture", trial["image"], image),
    }


def smooth(extractor: Extractor, layers: Sequence[str], image: Image) -> Extractor:
    """What compares features after a softmax.

    Args:
      extractor: any.
      layers: its layers.
      image: [H, W, 3], the largest of whose features is 1, or -1, before the softmax.

    Returns:
      An extractor of these layers: exp(f / s) of each feature f, over the mean of exp(f / s) of all
      features of the layer, s the largest magnitude of the image's.

    References:
      Wang, Li, Vasconcelos (2021), "Rethinking and improving the robustness of image style
      transfer", section 4. Differs: s, since random weights have no scale of their own.
    """
    found = extractor.for_one_evaluation()(image, layers)
    return from_function(
        _smooth, (extractor, {name: jnp.max(jnp.abs(x)) for name, x in found.items()})
    )


def _smooth(params: tuple[Extractor, dict[str, Array]], image: Image) -> Features:
    extractor, scales = params
    features = extractor(image, tuple(scales))
    return {
        name: jax.nn.softmax(maps / scales[name], axis=(0, 1, 2)) * maps.size
        for name, maps in features.items()
    }


def _measure_style(settings: Settings, trial: Trial) -> Record:
    content, painting = _find_pair(settings, trial["image"])
    layers = _find_network(settings, trial["network"]).scale_layers[:_STYLE_RESOLUTIONS]
    task = Style(content_layers=layers[: _CONTENT + 1][-1], style_layers=layers)
    extractor = bind(settings, trial["network"], trial["draw"])
    image = _descend(settings, trial, task.of(extractor, content, painting), content)
    found = make_judge(content, painting)(image)
    patches = [found[f"patches_{side}"] for side in PATCH_SIDES]
    return {
        "style_distance": math.exp(np.mean(np.log(patches))),
        "edges": found["edges"],
        **_ask_trained(settings, "style", trial["image"], image),
    }


def _find_pair(settings: Settings, name: str) -> tuple[Image, Image]:
    """The photograph that goes with a painting, and the painting."""
    styles = load_pictures(settings, "style_image")
    pictures = [picture.image for picture in load_pictures(settings, "image").values()]
    return pictures[list(styles).index(name) % len(pictures)], styles[name].image


def _ask_trained(settings: Settings, part: str, name: str, image: Image) -> Record:
    """The distance of the trained VGG-19's Gram matrices, 1 for the start; nothing without it."""
    if not settings.trained_weights:
        return {}
    return {
        "trained_distance": _make_trained_judge(settings, part, name)(image)["gram"],
        "weights_sha256": _load_trained(settings).metadata["sha256"],
    }


@functools.cache
def _make_trained_judge(
    settings: Settings, part: str, name: str
) -> Callable[[Image], dict[str, float]]:
    if part == "style":
        start, source = _find_pair(settings, name)
    else:
        source = load_pictures(settings, "texture_image")[name].image
        start = make_noise(settings, source, texture.NOISE_STD)
    judge = bind(settings, TRAINED_VGG19, 0).for_one_evaluation()
    return make_network_judge(judge, start, source)


def workload(settings: Settings) -> Workload:
    """The inversion through the architecture with the most layers; all others are less."""
    names = choose_architectures(settings)
    deepest = max(names, key=lambda name: len(list_layers(names[name].network)))
    picture = next(iter(load_pictures(settings, "image").values())).image
    count = sum(trial["part"] not in ("cost", "features") for trial in list_trials(settings))
    task = Inversion(find_layer(settings, deepest))
    make = functools.partial(task.of, bind(settings, deepest, 0), picture)
    start = make_noise(settings, picture, inversion.NOISE_STD)
    return Workload(make, start, count * settings.num_steps)


def plot(settings: Settings, records: list[Record], folder: pathlib.Path) -> None:
    """Writes the table and draws places and pictures."""
    places = find_all_places(records)
    layers = {name: find_layer(settings, name) for name in choose_architectures(settings)}
    table = format_league(records, places, layers)
    write_text(folder / "league.md", table + "\n")
    save_figure(folder / "places.png", draw_places(places))
    # Records travel without their pictures; the panel that was drawn of them stays.
    if any((folder / "pictures").glob("*.png")):
        save_image(folder / "panel.jpg", draw_panel(settings, records, places, folder))
    print(table)


def judge(settings: Settings, records: list[Record]) -> list[Claim]:
    """See `judge_league`."""
    return judge_league(records)


# More networks can be added to those that were measured.
excluded_fields = (*EXCLUDED_FIELDS, "num_networks")
main = functools.partial(run_module, sys.modules[__name__], name="randviz league")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
