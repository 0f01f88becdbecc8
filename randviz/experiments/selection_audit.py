"""Asks what stacking buys: is a network whose layers were chosen better than one just drawn?

Claim: the best of K draws of a layer's weights rebuilds the reference image better than one draw
does, by as much as order statistics allow; whether that shows in other pictures and in the distance
between images, and whether a race finds the same draw for less, is measured beside it.
Expect: about ten minutes on two cores at the default size; audit.png, verdict.md,
records.jsonl, and as the last line a JSON object with the main numbers.

Example:
  python -m randviz.experiments.selection_audit --out_dir=out/selection_audit
"""

import dataclasses
import functools
import json
import math
import pathlib
import sys
import textwrap
import time
from collections.abc import Sequence
from typing import Any

import matplotlib.figure
import numpy as np

from randviz.commands.inputs import (
    PictureSettings,
    SeedSettings,
    StepSettings,
    load_picture,
    make_keys,
)
from randviz.commands.network_choice import read_offset
from randviz.commands.trials import estimate_random_inversion, filter_records
from randviz.experiments.selection_statistics import (
    correlate_with_distance,
    distinct_problems,
    is_tied,
    place_of,
    rank_correlation,
    rank_of_race,
    summarize,
)
from randviz.host.charts import save_figure
from randviz.host.images import write_text
from randviz.host.quality import compare_images
from randviz.host.records import Record, Trial
from randviz.host.settings import setting
from randviz.host.study import Workload, run_module
from randviz.host.workers import WorkerSettings
from randviz.networks.catalog import NETWORKS
from randviz.networks.network import Network
from randviz.networks.weights import random_weights, weight_shapes
from randviz.search.intervals import Estimate
from randviz.search.selection import LayerChoice, select_layer
from randviz.types import Image

FORMULA = """\
The prediction: the expected minimum of K independent draws from a pool of N sorted numbers x_(i) is
Σ_i x_(i) [((N − i + 1) / N)^K − ((N − i) / N)^K]. A network's pool is the deviations of the other
networks' log losses at that layer from their means, each times √(n / (n − 1)) for n draws."""


@dataclasses.dataclass(frozen=True)
class Settings(SeedSettings, PictureSettings, StepSettings, WorkerSettings):
    """Settings of the audit."""

    network: str = setting("vgg19", "The architecture.", choices=tuple(NETWORKS))
    image: str = setting("chelsea", "The reference image: a path or a sample.")
    other_images: tuple[str, ...] = setting(
        ("coffee",), "Pictures that the same draws are tried on; one shape saves compilations."
    )
    layers: tuple[str, ...] = setting(
        ("conv1_1", "conv2_1", "conv3_1", "conv3_3"), "Layers whose draws are compared."
    )
    input_offsets: tuple[str, ...] = setting(
        ("0", "mean"),
        "Input offsets, numbers or mean. Stacked networks are measured with the first only.",
    )
    num_networks: int = setting(3, "Independent networks.", lower_bound=1)
    num_candidates: int = setting(16, "Draws of each layer.", lower_bound=2)
    num_below: int = setting(
        5, "Draws among which a stacked network's layers below are chosen.", lower_bound=1
    )
    num_steps: int = 60
    image_size: int = 32
    out_dir: str = "out/selection_audit"


def list_trials(settings: Settings) -> list[Trial]:
    """Each layer of each network; a network's records follow one another."""
    first_layer = NETWORKS[settings.network].layers[0].name
    return [
        {"seed": settings.seed + number, "input_offset": offset, "layer": layer, "below": below}
        for number in range(settings.num_networks)
        for offset in settings.input_offsets
        for below in ("plain", "stacked")
        for layer in settings.layers
        # Below the first layer there is nothing to choose.
        if below == "plain" or (offset == settings.input_offsets[0] and layer != first_layer)
    ]


def workload(settings: Settings) -> Workload:
    """The inversion of the deepest layer."""
    layer = NETWORKS[settings.network].canonical_names(settings.layers)[-1]
    network = _make_network(settings, settings.input_offsets[0])
    image = _load(settings, settings.image)
    # In full, by a race, and on the other pictures.
    descents = (
        len(list_trials(settings)) * settings.num_candidates * (2 + len(settings.other_images))
    )
    return estimate_random_inversion(settings, network, layer, image, descents * settings.num_steps)


def measure(settings: Settings, trial: Trial) -> Record:
    """Selects among one layer's draws: in full, by a race, and on the other pictures."""
    began = time.perf_counter()
    network = _make_network(settings, trial["input_offset"])
    layers_below = list(weight_shapes(network, trial["layer"]))[:-1]
    choose = _choose_below if trial["below"] == "stacked" else lambda *_: 0
    draws_below = tuple(
        choose(settings, trial["seed"], trial["input_offset"], layer) for layer in layers_below
    )
    image = _load(settings, settings.image)
    select = functools.partial(
        _select, settings, trial["seed"], network, trial["layer"], draws_below=draws_below
    )
    choice, raced = select(image), select(image, racing=True)
    others = settings.other_images if trial["below"] == "plain" else ()
    return {
        "draws_below": list(draws_below),
        **_describe(choice, image),
        "race_draw": int(raced.draw),
        "race_share": float(np.sum(raced.num_steps) / np.sum(choice.num_steps)),
        "others": {
            name: _describe(select(_load(settings, name)), _load(settings, name)) for name in others
        },
        "seconds": round(time.perf_counter() - began, 1),
    }


def _make_network(settings: Settings, input_offset: str) -> Network:
    return dataclasses.replace(NETWORKS[settings.network], input_offset=read_offset(input_offset))


@functools.cache
def _load(settings: Settings, name: str) -> Image:
    return load_picture("image", name, settings.image_size, square=settings.square).image


@functools.cache
def _choose_below(settings: Settings, seed: int, input_offset: str, layer: str) -> int:
    """The draw of a layer that stacked selection keeps, the layers below it chosen likewise."""
    network = _make_network(settings, input_offset)
    below = list(weight_shapes(network, layer))[:-1]
    draws = tuple(_choose_below(settings, seed, input_offset, name) for name in below)
    image = _load(settings, settings.image)
    choice = _select(
        settings, seed, network, layer, image, draws_below=draws, num_candidates=settings.num_below
    )
    return int(choice.draw)


def _select(
    settings: Settings,
    seed: int,
    network: Network,
    layer: str,
    image: Image,
    *,
    draws_below: tuple[int, ...],
    num_candidates: int | None = None,
    racing: bool = False,
) -> LayerChoice:
    weights_key, _ = make_keys(seed)
    params = random_weights(weights_key, network, last_layer=layer, draws=draws_below)
    params = {name: weights for name, weights in params.items() if name != layer}
    return select_layer(
        weights_key,
        network,
        params,
        image,
        layer=layer,
        num_candidates=num_candidates or settings.num_candidates,
        num_steps=settings.num_steps,
        racing=racing,
    )


def _describe(choice: LayerChoice, image: Image) -> Record:
    """The numbers of all draws, each a list of K."""
    distances = [compare_images(found, image)["distance"] for found in choice.images]
    columns = {
        "losses": choice.losses, "raw_losses": choice.raw_losses, "distances": distances
    }  # fmt: skip
    return {
        name: [float(f"{value:.7g}") for value in np.asarray(values).tolist()]
        for name, values in columns.items()
    }


def format_verdict(settings: Settings, findings: dict[str, Any]) -> str:
    """The verdict: one paragraph."""
    stacking, race = findings["stacking"], findings["race"]
    certain = ("better", "worse", "neither for certain")
    parts = [
        f"{settings.num_networks} networks, {settings.num_candidates} draws a layer,"
        f" {settings.num_steps} steps, {settings.image_size} pixels. Brackets are 95 % intervals"
        " over n networks, whose layers are averaged first; gains are in log loss where no unit is"
        " given."
    ]
    for offset, found in findings["offsets"].items():
        parts += [f"**Input offset {offset}.**", *_describe_offset(findings, found)]
    parts += [
        "**Stacking.** The same draws of a layer with the layers below chosen too, in log"
        f" loss: {stacking['log_loss'].judge(*certain)}; in image distance, dB:"
        f" {stacking['distance_db'].judge(*certain)}.",
        f"**Racing.** Share of problems where it keeps the full selection's draw: {race['same']};"
        f" place of what it keeps elsewhere, of {settings.num_candidates}: {race['rank']:.1f}; log"
        f" loss above the winner's: {race['excess']}; steps saved: {race['saved']:.0%}.",
    ]
    return " ".join(parts).replace("nan", "unknown")


def _describe_offset(findings: dict[str, Any], found: dict[str, Any]) -> list[str]:
    transfer, ranking, spread = found["transfer"], found["ranking"], found["spread"]
    by_layer = "".join(
        f"; {layer} {np.mean(gains['observed'], axis=0)[-1]:.2f}"
        for layer, gains in found["gains"].items()
    )
    return [
        *(
            f"At {layer} all draws tie, at the resolution of float32 (networks: {count}): there is"
            " nothing to choose."
            for layer, count in found["tied"].items()
        ),
        f"Gain of the best of {findings['sizes'][-1]}: {found['gain']}{by_layer}; against what"
        " order statistics predict from single draws of other networks:",
        found["gain_unpredicted"].judge("more", "less", "no certain difference") + ".",
        f"In image distance, dB: {found['gain_db']}; by choosing on distance itself:"
        f" {found['best_gain_db']}.",
        f"Standard deviation of the log loss between draws of a layer: {spread['draws']:.2f},"
        f" between networks: {spread['networks']:.2f}.",
        "Ranks of the same draws on other pictures:",
        transfer["correlation"].judge("alike", "reversed", "not certainly related") + ";",
        f"share of the gain among {findings['transfer_size']} that is left there:"
        f" {transfer['share']}; in image distance, dB: {transfer['distance_db']}.",
        f"Rank correlation of image distance with ω L: {ranking['normalized']}; with L:"
        f" {ranking['raw']}; ω L ranks, compared with L:",
        ranking["difference"].judge("better", "worse", "neither for certain") + ".",
    ]


def _as_json(thing: Any) -> Any:
    """Plain values, rounded, with null where a number is not known."""
    if isinstance(thing, Estimate):
        thing = thing._asdict()
    if isinstance(thing, dict):
        return {name: _as_json(value) for name, value in thing.items()}
    if isinstance(thing, list):
        return [_as_json(value) for value in thing]
    if isinstance(thing, float):
        return round(thing, 4) + 0.0 if math.isfinite(thing) else None  # no -0.0
    return thing


def plot(settings: Settings, records: list[Record], folder: pathlib.Path) -> None:
    """Draws the panels, writes and prints the verdict, and ends with the JSON line."""
    findings = summarize(settings, records)
    verdict = format_verdict(settings, findings)
    plot_audit(settings, records, findings, folder / "audit.png")
    write_text(
        folder / "verdict.md",
        f"# What stacking buys\n\n{textwrap.fill(verdict, 100)}\n\n{FORMULA}\n",
    )
    for offset in findings["offsets"].values():
        # The means over networks are the main numbers; each network's are in the records.
        offset["gains"] = {
            layer: {name: np.mean(values, axis=0).tolist() for name, values in gains.items()}
            for layer, gains in offset["gains"].items()
        }
    print(verdict)
    print(json.dumps(_as_json(findings)))


def plot_audit(
    settings: Settings, records: Sequence[Record], findings: dict[str, Any], path: pathlib.Path
) -> None:
    """Draws six panels: gains, gains in distance, transfer, ranking, the race, and stacking."""
    figure = matplotlib.figure.Figure(figsize=(15, 8.5), layout="constrained")
    axes = figure.subplots(2, 3)
    plain = [record for record in filter_records(records, below="plain") if not is_tied(record)]
    _plot_gains(axes[0, 0], settings, findings, "observed", "predicted")
    axes[0, 0].set(title="best of K by loss (dashed: order statistics)", ylabel="gain in log loss")
    _plot_gains(axes[0, 1], settings, findings, "distance_db", "best_distance_db")
    axes[0, 1].set(title="in image distance (dashed: chosen by it)", ylabel="gain, dB")
    _plot_transfer(axes[0, 2], settings, plain)
    _plot_ranking(axes[1, 0], settings, plain)
    _plot_race(axes[1, 1], settings, distinct_problems(records))
    _plot_stacking(axes[1, 2], settings, distinct_problems(records))
    save_figure(path, figure, dpi=90)


def _plot_gains(
    axis: Any, settings: Settings, findings: dict[str, Any], solid: str, dashed: str
) -> None:
    for offset, marker in zip(settings.input_offsets, "os^vD", strict=False):
        for layer, gains in findings["offsets"][offset]["gains"].items():
            color = f"C{settings.layers.index(layer)}"
            axis.plot(
                findings["sizes"], np.mean(gains[solid], axis=0), marker=marker, color=color,
                label=f"{layer}, offset {offset}",
            )  # fmt: skip
            axis.plot(findings["sizes"], np.mean(gains[dashed], axis=0), "--", color=color)
    axis.set_xscale("log", base=2)
    axis.set_xticks(findings["sizes"], [str(size) for size in findings["sizes"]])
    axis.set_xlabel("K")
    _add_legend(axis)


def _add_legend(axis: Any) -> None:
    if axis.get_legend_handles_labels()[0]:  # where all is tied there is nothing to name
        axis.legend(fontsize=8)


def _strip(axis: Any, settings: Settings, points: list[tuple[str, float]], shift: float, **style):
    """One point a problem, at its layer, moved aside so that two series can be told apart."""
    where = [settings.layers.index(layer) + shift for layer, _ in points]
    axis.plot(where, [value for _, value in points], linestyle="none", **style)
    axis.set_xticks(range(len(settings.layers)), settings.layers)
    axis.set_xlim(-0.5, len(settings.layers) - 0.5)


def _finish_ranks(axis: Any, title: str) -> None:
    axis.axhline(0, color="grey", linewidth=0.8)
    axis.set(title=title, ylabel="rank correlation", ylim=(-1.05, 1.05))
    _add_legend(axis)


def _plot_transfer(axis: Any, settings: Settings, records: Sequence[Record]) -> None:
    for index, offset in enumerate(settings.input_offsets):
        points = [
            (record["trial"]["layer"], rank_correlation(record["losses"], other["losses"]))
            for record in records
            for other in record["others"].values()
            if record["trial"]["input_offset"] == offset
        ]
        label = f"offset {offset}"
        _strip(
            axis, settings, points, 0.2 * index - 0.1, marker="o", color=f"C{index}", label=label
        )
    _finish_ranks(axis, "losses on the reference and on another picture")


def _plot_ranking(axis: Any, settings: Settings, records: Sequence[Record]) -> None:
    for index, offset in enumerate(settings.input_offsets):
        here = filter_records(records, input_offset=offset)
        for which, (name, fill) in enumerate((("ω L", f"C{index}"), ("L", "none"))):
            points = [
                (record["trial"]["layer"], correlate_with_distance(record)[which])
                for record in here
            ]
            _strip(
                axis, settings, points, 0.4 * index + 0.15 * which - 0.28, marker="o",
                color=f"C{index}", markerfacecolor=fill, label=f"{name}, offset {offset}",
            )  # fmt: skip
    _finish_ranks(axis, "loss and image distance of the same draws")


def _plot_race(axis: Any, settings: Settings, records: Sequence[Record]) -> None:
    ranks = [rank_of_race(record) for record in records]
    counts = np.bincount(ranks, minlength=settings.num_candidates + 1)
    axis.bar(range(1, settings.num_candidates + 1), counts[1:])
    axis.set(
        title="the draw that a race keeps", xlabel="its place in the full selection",
        ylabel="problems",
    )  # fmt: skip


def _plot_stacking(axis: Any, settings: Settings, records: Sequence[Record]) -> None:
    records = filter_records(records, input_offset=settings.input_offsets[0])
    plain = {place_of(record): record for record in filter_records(records, below="plain")}
    for index, below in enumerate(("plain", "stacked")):
        for number in range(settings.num_networks):
            here = filter_records(records, below=below, seed=settings.seed + number)
            points = [
                (found["trial"]["layer"], loss - np.mean(np.log(plain[place_of(found)]["losses"])))
                for found in here
                if place_of(found) in plain
                for loss in np.log(found["losses"])
            ]
            shift = 0.7 * (number + 0.5 * index + 0.25) / settings.num_networks - 0.35
            label = below if number == 0 else None
            style = {"marker": ".", "markersize": 4, "color": f"C{index}", "label": label}
            _strip(axis, settings, points, shift, **style)
    axis.axhline(0, color="grey", linewidth=0.8)
    axis.set(
        title=f"the layers below plain or chosen, offset {settings.input_offsets[0]}",
        ylabel="log loss less the plain mean",
    )
    _add_legend(axis)


main = functools.partial(run_module, sys.modules[__name__])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
