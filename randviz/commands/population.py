"""Rebuilds pictures through many networks and says how much it matters which one.

Each network meets each starting noise, picture and layer. One row each goes to rows.jsonl; at the
end come summary.json, its table, and box.png, as in the paper's figure 3. A run can be stopped at
any moment, and one with more networks or noises goes on where one with fewer ended. All devices
that JAX sees take part, each with a network of its own.

Examples:
  randviz population --image=chelsea --layers=pool2,pool4 --num_networks=32 --out_dir=out/many
  randviz population --image=chelsea,coffee --kinds=random --num_networks=8 --num_noises=8
  randviz population --image=chelsea --num_networks=300 --num_processes=-1
"""

import dataclasses
import functools
import itertools
import math
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from randviz.commands.inputs import LARGEST_SIDE, Picture, check_picture, load_picture, make_keys
from randviz.commands.network_choice import (
    Choice,
    NetworkSettings,
    choose_trained,
    choose_untrained,
    describe_network,
    load_recipe,
)
from randviz.host.charts import format_table, plot_boxes
from randviz.host.estimate import check_resources
from randviz.host.images import replace_atomically
from randviz.host.processes import join_processes, together
from randviz.host.progress import format_seconds
from randviz.host.quality import compare_images
from randviz.host.records import Row, Rows
from randviz.host.runs import Stopped, write_record
from randviz.host.settings import list_values, run_command, setting
from randviz.networks.catalog import NETWORKS
from randviz.networks.gaussian import sample_noise_image
from randviz.networks.network import Network
from randviz.networks.weights import random_weights, weight_shapes
from randviz.objectives.objective import Objective
from randviz.search.population import (
    AXIS,
    GivenNetwork,
    Kind,
    RandomNetworks,
    StackedNetworks,
    make_networks,
    reconstruct_through,
    summarize,
)
from randviz.tasks.inversion import INPUT_OFFSET, NOISE_STD, Inversion
from randviz.types import UserError

KINDS = ("random", "ranvgg", "given", "trained")
_LOG_SECONDS = 10.0
# What a row does not depend on: how many others there are, and where it is computed and kept.
_EXCLUDED_FIELDS = (
    "num_networks",
    "num_noises",
    "out_dir",
    "coordinator_address",
    "num_processes",
    "process_id",
)


@dataclasses.dataclass(frozen=True)
class Settings(NetworkSettings):
    """Settings of `randviz population`."""

    image: tuple[str, ...] = setting((), "The pictures: paths or samples, with commas between.")
    layers: tuple[str, ...] = setting(("pool1", "pool3"), "The layers inverted, one at a time.")
    kinds: tuple[str, ...] = setting(
        ("random", "ranvgg"),
        "Whose networks: random; ranvgg, selected layer by layer on --reference_image; given, the"
        " one network that --network names, and trained, the one in --trained_weights, with other"
        " noises only.",
    )
    num_networks: int = setting(8, "Networks of each kind.", lower_bound=1, upper_bound=10**6)
    num_noises: int = setting(
        1,
        "Starting noises that each network meets; two or more, and two networks or more, tell"
        " their shares of the variance apart.",
        lower_bound=1,
        upper_bound=10**6,
    )
    image_size: int = setting(
        64, "Longest side of all pictures in pixels.", lower_bound=1, upper_bound=LARGEST_SIDE
    )
    square: bool = setting(False, "Takes the largest square in the middle of each picture.")
    num_steps: int = setting(
        500, "Steps of each descent; the paper takes 2000.", lower_bound=1, upper_bound=10**6
    )
    reference_image: str = setting("astronaut", "The picture that ranvgg is selected on.")
    num_candidates: int = setting(
        5, "Draws tried in each layer of ranvgg.", lower_bound=1, upper_bound=10**4
    )
    selection_steps: int = setting(
        200, "Steps of each reconstruction in the selection.", lower_bound=1, upper_bound=10**6
    )
    out_dir: str = setting("out/population", "Folder for the rows, the summary and the plot.")
    coordinator_address: str = setting(
        "", "Where several processes meet: host:port of the first. Empty: as the cluster says."
    )
    num_processes: int = setting(
        1,
        "How many processes take part; -1 asks the cluster (Slurm, TPU pod, MPI).",
        lower_bound=-1,
    )
    process_id: int = setting(
        -1, "Which of them this is, from 0; -1 asks the cluster.", lower_bound=-1
    )


class Cell(NamedTuple):
    """One descent: what its row is found by, in the order of the rows."""

    network: int
    kind: str
    image: str
    layer: str
    noise: int


class Study(NamedTuple):
    """What is measured on what.

    Attributes:
      networks: the architecture and its conventions, by the name of the kind.
      layers: canonical names, in forward order.
      pictures: by the name that the user gave.
      kinds: by name.
      metadata: everything that a row depends on, plain values.
    """

    networks: Mapping[str, Network]
    layers: tuple[str, ...]
    pictures: Mapping[str, Picture]
    kinds: Mapping[str, Kind]
    metadata: dict[str, Any]


def plan_study(settings: Settings) -> Study:
    """Reads the pictures and the kinds of networks.

    Raises:
      UserError: for an unknown kind or layer, a name that is given twice, a picture that cannot be
        read or does not reach the layers, or a network without weights that should have some.
    """
    for flag in ("image", "kinds"):
        names = getattr(settings, flag)
        if len(set(names)) < len(names):
            raise UserError(f"--{flag}={','.join(names)} names one twice; name each once.")
    recipe = None if settings.network in NETWORKS else load_recipe(settings.network)
    _check_kinds(settings, weights_are_given=recipe is not None)
    choices = {kind: choose_untrained(settings) for kind in settings.kinds if kind != "trained"}
    if "trained" in settings.kinds:
        choices["trained"] = choose_trained(settings)
    networks = {kind: choice.network.with_offset(INPUT_OFFSET) for kind, choice in choices.items()}
    layers = next(iter(networks.values())).canonical_names(settings.layers)
    load = functools.partial(_load_picture, settings, networks.values(), layers[-1])
    pictures = {name: load("image", name) for name in settings.image or ("",)}
    reference = None
    if "ranvgg" in settings.kinds:
        reference = load("reference_image", settings.reference_image)
    sampling = {
        "scale": (recipe or settings).scale,
        "bias_scale": (recipe or settings).bias_scale,
        "last_layer": layers[-1],
    }
    makers = {
        "random": lambda: RandomNetworks(network=networks["random"], **sampling),
        "ranvgg": lambda: StackedNetworks(
            network=networks["ranvgg"],
            reference=reference.image,
            num_candidates=settings.num_candidates,
            num_steps=settings.selection_steps,
            **sampling,
        ),
        "given": lambda: _give(choices["given"], layers[-1]),
        "trained": lambda: _give(choices["trained"], layers[-1]),
    }
    kinds = {kind: makers[kind]() for kind in settings.kinds}
    metadata = {
        "command": "population",
        "settings": list_values(settings, *_EXCLUDED_FIELDS),
        "pictures": {name: picture.metadata for name, picture in pictures.items()},
        "reference": reference and reference.metadata,
        "networks": {
            kind: {**describe_network(networks[kind]), **choice.metadata}
            for kind, choice in choices.items()
        },
    }
    return Study(networks, layers, pictures, kinds, metadata)


def _give(choice: Choice, last_layer: str) -> GivenNetwork:
    params = choice.sample(last_layer)
    # No deeper than needed, so that all kinds are one program.
    names = weight_shapes(choice.network, last_layer)
    return GivenNetwork({layer: params[layer] for layer in names})


def _check_kinds(settings: Settings, *, weights_are_given: bool) -> None:
    kinds = settings.kinds
    for kind in kinds:
        if kind not in KINDS:
            raise UserError(f"--kinds has {kind!r}, which is none of {', '.join(KINDS)}.")
    if not kinds:
        raise UserError(f"no kind is named; give --kinds= some of {', '.join(KINDS)}.")
    if "given" in kinds and not weights_are_given:
        raise UserError("the kind given needs a network with weights; give --network= a recipe.")
    if weights_are_given and "given" not in kinds:
        raise UserError("--network names a network with weights of its own; add given to --kinds.")
    if "trained" in kinds and not settings.trained_weights:
        raise UserError("the kind trained needs a file; name one with --trained_weights=.")
    if settings.trained_weights and "trained" not in kinds:
        raise UserError("--trained_weights is given but not used; add trained to --kinds.")


def _load_picture(settings, networks, last_layer, flag, name) -> Picture:
    picture = load_picture(flag, name, settings.image_size, square=settings.square)
    for network in networks:
        check_picture(picture, network, last_layer)
    return picture


def list_cells(settings: Settings, study: Study) -> list[Cell]:
    """All cells in the order of the rows: network by network."""
    axes = (
        range(settings.num_networks),
        study.kinds,
        study.pictures,
        study.layers,
        range(settings.num_noises),
    )
    cells = itertools.starmap(Cell, itertools.product(*axes))
    single = ("given", "trained")
    return [cell for cell in cells if cell.kind not in single or cell.network == 0]


def run(settings: Settings) -> None:
    """Measures what is missing, row by row, and sums up."""
    join_processes(settings.coordinator_address, settings.num_processes, settings.process_id)
    study = together(lambda: plan_study(settings))
    if _check_resources(settings, study):
        return
    # One process writes, and only it need see the folder; what is left to do all must know.
    first = jax.process_index() == 0
    kept = together(lambda: Rows(settings.out_dir, study.metadata) if first else None)
    cells = list_cells(settings, study)
    done = {_cell_of(row) for row in kept.rows} if kept else set()
    missing = np.array([cell not in done for cell in cells])
    missing = multihost_utils.broadcast_one_to_all(missing)
    todo = [cell for cell, is_missing in zip(cells, missing, strict=True) if is_missing]
    try:
        _measure(settings, study, todo, kept)
    except KeyboardInterrupt:
        raise Stopped("stopped; the same command goes on after the last row.") from None
    if kept:
        places = {cell: place for place, cell in enumerate(cells)}
        rows = [row for row in kept.rows if _cell_of(row) in places]
        rows.sort(key=lambda row: places[_cell_of(row)])
        _conclude(settings, rows)


def _check_resources(settings: Settings, study: Study) -> bool:
    """Whether the command only tells what the whole study would take."""
    cells = list_cells(settings, study)
    num_steps = len(cells) * settings.num_steps
    if "ranvgg" in study.kinds:
        network = study.networks["ranvgg"]
        draws = len(weight_shapes(network, study.layers[-1])) * settings.num_candidates
        num_steps += settings.num_networks * draws * settings.selection_steps
    network = next(iter(study.networks.values()))
    largest = max((picture.image for picture in study.pictures.values()), key=lambda x: x.size)

    def make_objective() -> Objective:
        # The other kinds' weights are of the same shapes.
        params = random_weights(make_keys(settings.seed)[0], network, last_layer=study.layers[-1])
        return Inversion(study.layers[-1]).of(network.bind(params), largest)

    return check_resources(
        "population",
        make_objective,
        sample_noise_image(make_keys(settings.seed)[1], largest.shape[:2], std=NOISE_STD),
        num_steps=-(-num_steps // jax.device_count()),
        dry_run=settings.dry_run,
    )


def _cell_of(row: Row) -> Cell:
    return Cell(*(row[field] for field in Cell._fields))


def _measure(settings: Settings, study: Study, todo: list[Cell], kept: Rows | None) -> None:
    """Measures cells, as many networks at a time as there are devices."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()), (AXIS,))
    networks = sorted({cell.network for cell in todo})
    watch = _Watch(len(todo), mesh.size)
    for start in range(0, len(networks), mesh.size):
        block = networks[start : start + mesh.size]
        wanted = [cell for cell in todo if block[0] <= cell.network <= block[-1]]
        # Always as many as there are devices: another number would be another program, and its
        # rounding perhaps another. What is computed twice is dropped.
        numbers = np.array(block + block[-1:] * (mesh.size - len(block)), np.int32)
        found = _measure_block(settings, study, wanted, numbers, mesh, watch)
        if kept:
            for cell in wanted:
                kept.append({**cell._asdict(), **found[cell]})


def _measure_block(settings, study, wanted, numbers, mesh, watch) -> dict[Cell, Row]:
    """The rows of a network on each device; of cells that are not wanted, too."""
    weights_key, noise_key = make_keys(settings.seed)
    found = {}
    for kind, make in study.kinds.items():
        works = list(dict.fromkeys(cell[2:] for cell in wanted if cell.kind == kind))
        if not works:
            continue
        params, seconds = _time(make_networks, weights_key, make, numbers, mesh=mesh)
        watch.tell(seconds, f"{kind} networks made")
        for image, layer, noise in works:
            target = study.pictures[image].image
            result, seconds = _time(
                reconstruct_through,
                noise_key,
                study.networks[kind],
                params,
                target,
                noise=noise,
                layer=layer,
                num_steps=settings.num_steps,
                mesh=mesh,
            )
            result = multihost_utils.process_allgather(result, tiled=True)
            for place, number in enumerate(numbers.tolist()):
                ended = jax.tree.map(lambda leaf, place=place: leaf[place], result)
                cell = Cell(number, kind, image, layer, noise)
                found[cell] = _describe_end(settings, ended, target, seconds)
            count = sum(cell.kind == kind and cell[2:] == (image, layer, noise) for cell in wanted)
            watch.tell(seconds, f"{kind} networks on {image} {layer}, noise {noise}", count)
    return found


def _time(function, *arguments, **options):
    """What a compiled function returns and the seconds it took, compilation not counted."""
    function.lower(*arguments, **options).compile()
    began = time.monotonic()
    result = jax.block_until_ready(function(*arguments, **options))
    return result, time.monotonic() - began


def _describe_end(settings: Settings, ended, target, seconds: float) -> Row:
    measures = {**compare_images(ended.image, target), "feature_error": float(ended.feature_error)}
    return {
        **{name: value if math.isfinite(value) else None for name, value in measures.items()},
        "num_steps": settings.num_steps,
        "evaluations": int(ended.evaluations),
        "failed_steps": int(ended.failed_steps),
        "seconds": round(seconds, 3),
    }


class _Watch:
    """Lines of progress with the time left, from the first process only."""

    def __init__(self, total: int, num_devices: int):
        self.total, self.done, self.spent, self.told = total, 0, 0.0, 0.0
        if total:
            self._say(f"{total} rows to measure, {num_devices} at a time; compiling")

    def tell(self, seconds: float, words: str, count: int = 0) -> None:
        """Notes that something took so long and gave so many rows."""
        self.done += count
        self.spent += seconds
        left = ""
        if self.done:
            pace = self.spent / self.done
            left = f"  {format_seconds(pace * (self.total - self.done))} left"
        now = time.monotonic()
        if now - self.told > _LOG_SECONDS or self.done == self.total:
            self._say(f"{self.done}/{self.total} rows  {words}{left}")
            self.told = now

    def _say(self, words: str) -> None:
        if jax.process_index() == 0:
            print(f"population: {words}", flush=True)


def _conclude(settings: Settings, rows: list[Row]) -> None:
    """Writes and prints the summary and draws the boxes."""
    folder = pathlib.Path(settings.out_dir)
    groups = summarize(rows)
    write_record(folder / "summary.json", {"measure": "distance", "groups": groups})
    with replace_atomically(folder / "box.png") as temporary:
        plot_boxes(groups).savefig(temporary, dpi=120)
    print(format_table(groups))
    print(f"population: wrote {folder}/rows.jsonl, summary.json and box.png")


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit code."""
    return run_command("randviz population", Settings, run, argv, __doc__)
