"""Rebuilds pictures through many networks and says how much it matters which one.

Each network meets each starting noise, picture and layer. One record each goes to records.jsonl; at
the end come summary.json, its table, and box.png, as in the paper's figure 3. A run can be stopped
at any moment, and one with more networks or noises goes on where one with fewer ended. All devices
that JAX sees take part, each with a network of its own.

Usage: randviz population --image=PICTURE[,PICTURE ...] [--flag=value ...]

Examples:
  randviz population --image=chelsea --layers=pool2,pool4 --num_networks=32 --out_dir=out/many
  randviz population --image=chelsea,coffee --kinds=random --num_networks=8 --num_noises=8
"""

import dataclasses
import functools
import itertools
import json
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from randviz.commands.inputs import (
    LARGEST_SIDE,
    Picture,
    check_picture,
    load_picture,
    make_keys,
)
from randviz.commands.network_choice import Choice, choose_trained, choose_untrained, load_recipe
from randviz.commands.network_files import names_file
from randviz.commands.trials import (
    BASELINES,
    TRAINED,
    StudySettings,
    estimate_random_inversion,
    load_pictures,
    make_baseline,
)
from randviz.host.charts import format_markdown, format_table, plot_boxes, save_figure
from randviz.host.processes import ProcessSettings
from randviz.host.quality import compare_images
from randviz.host.records import Record, Trial
from randviz.host.runs import write_record
from randviz.host.settings import setting
from randviz.host.study import EXCLUDED_FIELDS, Study, Workload, run_module
from randviz.networks.catalog import NETWORKS
from randviz.networks.network import IMAGENET_MEAN, Network
from randviz.networks.random_network import RandomNetwork
from randviz.networks.weights import weight_shapes
from randviz.search.population import (
    AXIS,
    GivenNetwork,
    Kind,
    StackedNetwork,
    make_networks,
    reconstruct_through,
    summarize,
)
from randviz.tasks.inversion import INPUT_OFFSET
from randviz.types import Params, UserError

# Those of a centred kind are the same draws with centred input, selected with it.
KINDS = ("random", "random-centred", "ranvgg", "ranvgg-centred", "given", TRAINED)
_SINGLE = ("given", TRAINED)  # kinds of one network


@dataclasses.dataclass(frozen=True)
class PopulationSettings(StudySettings, ProcessSettings):
    """Settings of populations of networks."""

    image: tuple[str, ...] = setting((), "The pictures, files or samples, commas between.")
    layers: tuple[str, ...] = setting(("pool1", "pool3"), "The layers inverted, one at a time.")
    kinds: tuple[str, ...] = setting(
        ("random", "ranvgg"),
        "Which networks: random, ranvgg, given, trained. ranvgg is selected layer by layer on"
        " --reference_image; random-centred and ranvgg-centred have the ImageNet mean subtracted"
        " from their input; given, the one network that --network names, and trained, the one in"
        " --trained_weights, vary in their noises only.",
    )
    num_networks: int = setting(8, "Networks of each kind.", lower_bound=1, upper_bound=10**6)
    reference_image: str = setting(
        "astronaut", "The picture that ranvgg is selected on.", rare=True
    )
    reference_size: int = setting(
        0,
        "Its longest side in pixels; 0 for --image_size.",
        lower_bound=0,
        upper_bound=LARGEST_SIDE,
        rare=True,
    )
    num_candidates: int = setting(
        5,
        "Draws tried in each layer of ranvgg.",
        lower_bound=1,
        upper_bound=10**4,
        rare=True,
    )
    selection_steps: int = setting(
        200,
        "Steps of each reconstruction in the selection.",
        lower_bound=1,
        upper_bound=10**6,
        rare=True,
    )
    image_size: int = 64


@dataclasses.dataclass(frozen=True)
class Settings(PopulationSettings):
    """Settings of `randviz population`."""

    num_noises: int = setting(
        1,
        "Starting noises that each network meets. Two or more, and two networks or more, tell their"
        " shares of the variance apart.",
        lower_bound=1,
        upper_bound=10**6,
    )
    num_steps: int = 500
    out_dir: str = "out/population"


class Plan(NamedTuple):
    """What is measured on what.

    Attributes:
      choices: whose networks, by the name of the kind, with an input offset.
      kinds: what makes their weights, by name.
      layers: canonical names, in forward order.
      pictures: by name.
      reference: that ranvgg is selected on, or None.
    """

    choices: Mapping[str, Choice]
    kinds: Mapping[str, Kind]
    layers: tuple[str, ...]
    pictures: Mapping[str, Picture]
    reference: Picture | None


@functools.cache
def make_plan(settings: PopulationSettings) -> Plan:
    """Reads the pictures and the kinds of networks.

    Raises:
      UserError: for an unknown kind or layer, a name that is given twice, a picture that cannot be
        read or does not reach the layers, or a network without weights that should have some.
    """
    is_architecture = settings.network in NETWORKS or names_file(settings.network)
    recipe = None if is_architecture else load_recipe(settings.network)
    _check_kinds(settings, weights_are_given=recipe is not None)
    choices = {kind: choose_untrained(settings) for kind in settings.kinds if kind != TRAINED}
    if TRAINED in settings.kinds:
        choices[TRAINED] = choose_trained(settings)
    for choice in choices.values():
        if not isinstance(choice.network, Network):
            raise UserError(
                f"--network={settings.network} is a Flax module, which draws its weights in its own"
                f" way; a population takes {', '.join(NETWORKS)}, or a Network of your own."
            )
    choices = {kind: _with_offset(choices[kind], kind) for kind in settings.kinds}
    layers = next(iter(choices.values())).network.canonical_names(settings.layers)
    pictures, reference = load_pictures(settings, "image"), None
    if any(kind.startswith("ranvgg") for kind in settings.kinds):
        size = settings.reference_size or settings.image_size
        reference = load_picture(
            "reference_image", settings.reference_image, size, square=settings.square
        )
    for choice in choices.values():
        for picture in (*pictures.values(), *[reference] * (reference is not None)):
            check_picture(picture, choice.network, layers[-1])
    sampling = {
        "scale": (recipe or settings).scale,
        "bias_scale": (recipe or settings).bias_scale,
        "last_layer": layers[-1],
    }
    makers = {
        "random": lambda choice: RandomNetwork(network=choice.network, **sampling),
        "ranvgg": lambda choice: StackedNetwork(
            network=choice.network,
            reference=reference.image,
            num_candidates=settings.num_candidates,
            num_steps=settings.selection_steps,
            **sampling,
        ),
        "given": lambda choice: _give(choice, layers[-1]),
        TRAINED: lambda choice: _give(choice, layers[-1]),
    }
    kinds = {kind: makers[kind.partition("-")[0]](choice) for kind, choice in choices.items()}
    return Plan(choices, kinds, layers, pictures, reference)


def _with_offset(choice: Choice, kind: str) -> Choice:
    if kind.endswith("-centred"):
        centred = dataclasses.replace(choice.network, input_offset=IMAGENET_MEAN)
        return choice._replace(network=centred)
    return choice.with_offset(INPUT_OFFSET)


def _give(choice: Choice, last_layer: str) -> GivenNetwork:
    params = choice.sample(last_layer)
    # No deeper than needed, so that all kinds are one program.
    names = weight_shapes(choice.network, last_layer)
    return GivenNetwork({layer: params[layer] for layer in names})


def _check_kinds(settings: PopulationSettings, *, weights_are_given: bool) -> None:
    kinds = settings.kinds
    for kind in kinds:
        if kind not in KINDS:
            raise UserError(f"--kinds has {kind!r}, which is none of {', '.join(KINDS)}.")
    if len(set(kinds)) < len(kinds):
        raise UserError(f"--kinds={','.join(kinds)} names one twice; name each once.")
    if not kinds:
        raise UserError(f"no kind is named; give --kinds= some of {', '.join(KINDS)}.")
    if "given" in kinds and not weights_are_given:
        raise UserError("the kind given needs a network with weights; give --network= a recipe.")
    if weights_are_given and "given" not in kinds:
        raise UserError("--network names a network with weights of its own; add given to --kinds.")
    if TRAINED in kinds and not settings.trained_weights:
        raise UserError("the kind trained needs a file; name one with --trained_weights=.")
    if settings.trained_weights and TRAINED not in kinds:
        raise UserError("--trained_weights is given but not used; add trained to --kinds.")


def list_trials(settings: Settings) -> list[Trial]:
    """Each network with each picture, layer and noise: network by network."""
    plan = make_plan(settings)
    names = ("network", "weights", "image", "layer", "noise")
    axes = (
        range(settings.num_networks),
        plan.kinds,
        plan.pictures,
        plan.layers,
        range(settings.num_noises),
    )
    trials = [dict(zip(names, values, strict=True)) for values in itertools.product(*axes)]
    return [trial for trial in trials if trial["weights"] not in _SINGLE or trial["network"] == 0]


def describe(settings: PopulationSettings) -> dict[str, Any]:
    """The pixels, and the recipe of a given network."""
    plan = make_plan(settings)
    pictures = {f"image {name}": picture for name, picture in plan.pictures.items()}
    if plan.reference:
        pictures["reference"] = plan.reference
    return {
        "pictures": {name: picture.metadata["sha256"] for name, picture in pictures.items()},
        "network": dict(choose_untrained(settings).metadata),
    }


def workload(settings: PopulationSettings, trials: Sequence[Trial] | None = None) -> Workload:
    """The deepest inversion, as often as a device has trials; the selections come on top."""
    plan = make_plan(settings)
    trials = list_trials(settings) if trials is None else trials
    num_steps = len(trials) * settings.num_steps
    network = next(iter(plan.choices.values())).network
    largest = max((picture.image for picture in plan.pictures.values()), key=lambda x: x.size)
    if plan.reference:
        draws = len(weight_shapes(network, plan.layers[-1])) * settings.num_candidates
        # On a picture of another size, and half of them in shallow layers.
        share = plan.reference.image.size / largest.size / 2
        num_steps += round(settings.num_networks * draws * settings.selection_steps * share)
    # The other kinds' weights are of the same shapes.
    num_steps = -(-num_steps // jax.device_count())
    return estimate_random_inversion(settings, network, plan.layers[-1], largest, num_steps)


def list_batches(settings: PopulationSettings, trials: list[Trial]) -> list[list[Trial]]:
    """As many trials at a time as there are devices, all of one kind, picture and layer.

    Networks are made once for all their trials: a block of them stays until nothing is left to do
    with it.
    """
    size = jax.device_count()
    networks = sorted({trial["network"] for trial in trials})
    batches = []
    for begin in range(0, len(networks), size):
        block = networks[begin : begin + size]
        groups: dict[tuple, list[Trial]] = {}
        for trial in trials:
            if trial["network"] in block:
                of_kind = groups.setdefault((trial["weights"], trial["image"], trial["layer"]), {})
                of_kind.setdefault(trial["network"], []).append(trial)
        for (kind, *_), of_network in groups.items():
            if kind in _SINGLE:
                (rest,) = of_network.values()
                batches += [rest[i : i + size] for i in range(0, len(rest), size)]
            else:
                turns = itertools.zip_longest(*of_network.values())
                batches += [[trial for trial in turn if trial] for turn in turns]
    return batches


def measure(
    settings: PopulationSettings, trials: Sequence[Trial], records: Sequence[Record]
) -> list[Record]:
    """Rebuilds a picture through a network on each device."""
    plan = make_plan(settings)
    kind, image, layer = (trials[0][name] for name in ("weights", "image", "layer"))
    mesh = jax.sharding.Mesh(np.array(jax.devices()), (AXIS,))
    # Always as many as there are devices: another number would be another program, and its rounding
    # perhaps another. What is computed twice is dropped.
    padded = [*trials, *[trials[-1]] * (mesh.size - len(trials))]
    noises = np.array([trial["noise"] for trial in padded], np.int32)
    target = plan.pictures[image].image
    result, seconds = _time(
        reconstruct_through,
        make_keys(settings.seed)[1],
        plan.choices[kind].network,
        _make_params(settings, kind, tuple(trial["network"] for trial in padded), mesh),
        target,
        noises=noises,
        layer=layer,
        num_steps=settings.num_steps,
        mesh=mesh,
    )
    result = multihost_utils.process_allgather(result, tiled=True)
    if not np.isfinite(result.feature_error).all():
        raise UserError(
            f"the features of {image} in layer {layer!r} of a {kind} network are not finite; take"
            " smaller weights (--scale, --bias_scale, --trained_weights)."
        )
    files = {"weights_sha256": plan.choices[kind].metadata["sha256"]} if kind == TRAINED else {}
    return [
        {
            **compare_images(result.image[place], target),
            "feature_error": float(result.feature_error[place]),
            "num_steps": settings.num_steps,
            "evaluations": int(result.evaluations[place]),
            "failed_steps": int(result.failed_steps[place]),
            "seconds": round(seconds, 3),
            **files,
        }
        for place in range(len(trials))
    ]


@functools.lru_cache(maxsize=1)
def _make_params(
    settings: PopulationSettings, kind: str, networks: tuple[int, ...], mesh: jax.sharding.Mesh
) -> Params:
    weights_key, _ = make_keys(settings.seed)
    numbers = np.array(networks, np.int32)
    return make_networks(weights_key, make_plan(settings).kinds[kind], numbers, mesh=mesh)


def _time(function, *arguments, **options):
    """What a compiled function returns and the seconds it took, compilation not counted."""
    function.lower(*arguments, **options).compile()
    began = time.monotonic()
    result = jax.block_until_ready(function(*arguments, **options))
    return result, time.monotonic() - began


def plot(settings: Settings, records: list[Record], folder: pathlib.Path) -> None:
    """Sums up what was asked for this time."""
    asked = set(map(json.dumps, list_trials(settings)))
    conclude(settings, [r for r in records if json.dumps(r["trial"]) in asked], folder)


def conclude(settings: PopulationSettings, records: Sequence[Record], folder: pathlib.Path) -> None:
    """Writes and prints the summary and draws the boxes, the baselines beside them.

    Args:
      settings: of the study.
      records: as in `search.population.summarize`.
      folder: of the study.
    """
    groups = summarize(records)
    baselines = measure_baselines(settings)
    write_record(
        folder / "summary.json",
        {"measure": "distance", "groups": groups, "baselines": baselines},
    )
    save_figure(folder / "box.png", plot_boxes(groups, baselines))
    print(format_table(groups))
    header = ["picture", "layer", *BASELINES.values()]
    lines = [
        [line["image"], line["layer"], *(f"{line[name]:.2f}" for name in BASELINES)]
        for line in baselines
    ]
    print(format_markdown(header, lines))


def measure_baselines(settings: PopulationSettings) -> list[dict[str, Any]]:
    """How far the baselines are from each picture, for each layer.

    Returns:
      A dictionary each: image, layer, and the distance of each of `trials.BASELINES`.
    """
    plan = make_plan(settings)
    network = next(iter(plan.choices.values())).network
    found = []
    for image, picture in plan.pictures.items():
        for layer in plan.layers:
            shape = network.feature_shape(picture.image.shape, layer)
            distances = {
                baseline: compare_images(
                    make_baseline(settings, {"image": image, "baseline": baseline}, shape),
                    picture.image,
                )["distance"]
                for baseline in BASELINES
            }
            found.append({"image": image, "layer": layer, **distances})
    return found


STUDY = Study(
    name="population",
    list_trials=list_trials,
    measure=measure,
    plot=plot,
    workload=workload,
    describe=describe,
    list_batches=list_batches,
    # How many others there are, and where they are computed, changes no record.
    excluded_fields=(
        *EXCLUDED_FIELDS,
        *(field.name for field in dataclasses.fields(ProcessSettings)),
        "num_networks",
        "num_noises",
    ),
)


main = functools.partial(run_module, sys.modules[__name__])
