"""What comes out of the league: scores, places, the table, the pictures, and the claims."""

import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib.figure
import matplotlib.ticker
import numpy as np

from randviz.commands.trials import (
    filter_records,
    find_record,
    list_values_of,
    load_pictures,
    load_result,
)
from randviz.experiments.claims import Claim, Sentence, judge_together, tabulate
from randviz.experiments.places import Place, find_places
from randviz.host.charts import format_estimate, format_markdown
from randviz.host.grids import render_grid
from randviz.host.records import Record, Trial
from randviz.types import Image

TRAINED_VGG19 = "trained_vgg19"
# Of these the features are also smoothed before they are compared.
SMOOTHED = ("resnet18", "resnet34", "resnet50")
_PLAIN = tuple(f"{name}_plain" for name in SMOOTHED)
# In what the small network is said to be better than a variant of it.
_BETTER = {
    "small_kernel5": "with 3×3 kernels than with 5×5",
    "small_kernel7": "with 3×3 kernels than with 7×7",
    "small_max": "with average pooling than with maximum pooling",
    "small_stride": "with average pooling than with strides",
    "small_skip": "without skip connections than with them",
    "small_normalized": "without normalisation than with it",
}
# Score: how it is called, the part it is measured in, and whether more is better.
SCORES = {
    "gain": ("PSNR above block means of as many numbers, dB", "inversion", True),
    "distance": ("distance, grey levels", "inversion", False),
    "contour_distance": ("texture: distance of contours", "texture", False),
    "patch_distance": ("texture: distance of patches", "texture", False),
    "style_distance": ("style: distance of patches, the photograph's 1", "style", False),
    "trained_distance": ("texture: distance in the trained VGG-19", "texture", False),
    "rank": ("effective rank of features / channels", "features", True),
}


def tabulate_scores(records: Sequence[Record], score: str) -> dict[str, np.ndarray]:
    """A score of each architecture, [pictures, networks], or [networks] of features.

    Args:
      records: of any trials.
      score: one of `SCORES`.

    Returns:
      {architecture: table}, higher is better, of those that have all pictures; without the
        trained network, which is no competitor.
    """
    _, part, is_better = SCORES[score]
    found = filter_records(records, part=part)
    sign = 1.0 if is_better else -1.0
    take = lambda record: None if record.get(score) is None else sign * record[score]
    tables = {}
    for name in list_values_of(found, "network"):
        if name == TRAINED_VGG19:
            continue
        own = filter_records(found, network=name)
        if part == "features":
            tables[name] = np.array([take(record) for record in own], float)
        else:
            tables[name] = tabulate(own, ("image", "draw"), measure=take)
    most = max((table.shape for table in tables.values()), default=())
    if 0 in most:
        return {}
    return {name: table for name, table in tables.items() if table.shape == most}


def find_all_places(records: Sequence[Record]) -> dict[str, dict[str, Place]]:
    """The places by each score that was measured: {score: {architecture: place}}."""
    tables = {score: tabulate_scores(records, score) for score in SCORES}
    return {score: find_places(table) for score, table in tables.items() if table}


def format_league(
    records: Sequence[Record], places: dict[str, dict[str, Place]], layers: dict[str, str]
) -> str:
    """The table: a row for each architecture, best first.

    Args:
      records: of any trials.
      places: as `find_all_places` finds them.
      layers: {architecture: the layer that was inverted}.
    """
    order = _list_architectures(places)
    header = ["place", "architecture", "layer"]
    header += [SCORES[score][0] for score in places]
    header += ["log₁₀ condition", "numbers", "weights", "ms a step", "MB"]
    lines = []
    for name in order:
        line: list[Any] = [places.get("gain", {}).get(name, ""), name, layers[name]]
        for score, found in places.items():
            place = found.get(name)
            if place is None:
                line.append("")
                continue
            value, low, high, n = place.score
            is_better = SCORES[score][2]
            shown = place.score if is_better else type(place.score)(-value, -high, -low, n)
            line.append(f"{format_estimate(shown, '.2f')} ({place})")
        conditions = [
            record["condition"] for record in filter_records(records, network=name, part="features")
        ]
        finite = [math.log10(value) for value in conditions if value is not None]
        known = f"{np.mean(finite):.1f}" if finite else ""
        line.append(known if len(finite) == len(conditions) else "∞")
        cost = find_record(records, network=name, part="cost")
        line += (
            [
                cost["num_features"],
                cost["num_weights"],
                f"{1000 * cost['seconds_per_step']:.0f}",
                f"{cost['memory'] / 1e6:.0f}",
            ]
            if cost
            else [""] * 4
        )
        lines.append(line)
    said = (
        "Means over pictures and networks with 95 % intervals, and in brackets the places that are"
        " not excluded: one architecture is before another if their difference on the same pictures"
        " is above 0 at 5 %, corrected for the number of others. Sorted by the first score."
    )
    return f"{said}\n\n{format_markdown(header, lines)}"


def _list_architectures(places: dict[str, dict[str, Place]]) -> list[str]:
    """All that have a place by any score, best first by the first score."""
    return list(dict.fromkeys(name for found in places.values() for name in found))


def draw_places(places: dict[str, dict[str, Place]]) -> matplotlib.figure.Figure:
    """For each score a column: places of each architecture as a bar, its mean's place a dot."""
    order = _list_architectures(places)
    figure = matplotlib.figure.Figure(
        figsize=(3 + 2.4 * len(places), 1.2 + 0.26 * len(order)), layout="constrained"
    )
    panels = figure.subplots(1, len(places), sharey=True, squeeze=False)[0]
    for (score, found), panel in zip(places.items(), panels, strict=True):
        for rank, (name, place) in enumerate(found.items(), 1):
            row = order.index(name)
            panel.plot([place.low, place.high], [row, row], color="C0", lw=4, alpha=0.35)
            panel.plot(rank, row, "o", color="C0", ms=4)
        panel.set_title(
            SCORES[score][0].replace(": ", "\n").replace(" above", "\nabove"), fontsize=9
        )
        panel.set_xlabel("place")
        panel.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
        panel.grid(axis="y", alpha=0.3)
    panels[0].set_yticks(range(len(order)), order)
    panels[0].invert_yaxis()
    return figure


def draw_panel(
    settings: Any,
    records: Sequence[Record],
    places: dict[str, dict[str, Place]],
    folder: pathlib.Path,
) -> Image:
    """A row for each architecture: the first pictures of each part, of its first network.

    Args:
      settings: of the league.
      records: of any trials.
      places: as `find_all_places` finds them.
      folder: where the pictures are.

    Returns:
      [h, w, 3] in [0, 1].
    """
    sources = {
        part: load_pictures(settings, flag)
        for part, flag in (
            ("inversion", "image"),
            ("texture", "texture_image"),
            ("style", "style_image"),
        )
    }
    columns = [(part, image) for part, found in sources.items() for image in list(found)[:2]]
    rows = [[sources[part][image].image for part, image in columns]]
    captions: list[list[str | None]] = [[None] * len(columns)]
    for name in _list_architectures(places):
        found = [
            find_record(records, network=name, draw=0, part=part, image=image)
            for part, image in columns
        ]
        rows.append([load_result(folder, record) for record in found])
        captions.append([record and _describe(record) for record in found])
    return render_grid(
        rows,
        row_labels=["the source", *_list_architectures(places)],
        column_labels=[image for _, image in columns],
        captions=captions,
        cell=max(96, settings.image_size),
    )


def _describe(record: Record) -> str:
    if record.get("gain", 0.0) is None:
        # Of more numbers than the picture has, block means are the picture itself.
        return f"{record['distance']:.1f} grey levels"
    if record["trial"]["part"] == "inversion":
        return f"{record['gain']:+.1f} dB"
    if record["trial"]["part"] == "style":
        return f"patches {record['style_distance']:.2f}"
    return f"contours {record['contour_distance']:.2f}"


def judge_league(records: Sequence[Record]) -> list[Claim]:
    """The paper's explanation of figure 1, and what others found, one thing changed in each."""

    def compare(
        value: Callable[[float], float], measure: str, first: Trial, second: Trial
    ) -> np.ndarray:
        """value(measure) of one less that of another, [pictures, networks]; of none, [0]."""
        tables = [
            tabulate(
                filter_records(records, **place),
                ("image", "draw"),
                measure=lambda record: value(record[measure]),
            )
            for place in (first, second)
        ]
        if not all(table.size for table in tables) or len(tables[0]) != len(tables[1]):
            return np.empty(0)
        # Of the trained network there is one.
        return tables[0] - tables[1]

    def average(pairs: Sequence[tuple[Trial, Trial]]) -> np.ndarray:
        found = [compare(math.log, "contour_distance", *pair) for pair in pairs]
        return np.mean(found, axis=0) if len({table.shape for table in found}) == 1 else np.empty(0)

    def place(part: str, names: Sequence[str]) -> list[Trial]:
        return [{"part": part, "network": name} for name in names]

    small, kernel7, maximum = place("inversion", ("small", "small_kernel7", "small_max"))
    distances = "log(distance of the first / of the second), about as many numbers"
    asked = [
        (
            f"A small random network is inverted better {words}.",
            compare(math.log, "distance", small, {**small, "network": name}),
            distances,
            ("small", name),
        )
        for name, words in _BETTER.items()
    ]
    spikes = "share of pixels that are spikes in the first less in the second"
    asked += [
        (
            f"Inverting a small random network gives fewer spikes {_BETTER[other['network']]}.",
            compare(float, "spikes", small, other),
            spikes,
            ("small", other["network"]),
        )
        for other in (kernel7, maximum)
    ]
    residual, plain = (place("texture", names) for names in (SMOOTHED, _PLAIN))
    smoothed = place("smoothed", SMOOTHED)
    [bank], [vgg19], [trained] = (
        place("texture", [name]) for name in ("pooled_bank", "vgg19", TRAINED_VGG19)
    )
    contours = "log(distance of contours of the first / of the second)"
    asked += [
        (
            "Random residual networks make worse textures than the same without skip connections.",
            average([*zip(plain, residual, strict=True)]),
            f"{contours}, mean of three depths",
            ("plain", "residual"),
        ),
        (
            "A softmax of their features mends the textures of random residual networks.",
            average([*zip(smoothed, residual, strict=True)]),
            f"{contours}, mean of three depths",
            ("with a softmax", "without"),
        ),
        (
            "One layer of random filters of many sizes makes better textures than a random VGG-19.",
            compare(math.log, "contour_distance", bank, vgg19),
            contours,
            ("pooled_bank", "vgg19"),
        ),
    ]
    sentences = [
        Sentence(
            statement,
            values,
            units="pictures and networks",
            measure=measure,
            groups=groups,
            below=0.0,
        )
        for statement, values, measure, groups in asked
    ]
    rivals = Sentence(
        "One layer of random filters of many sizes rivals the trained VGG-19 for textures.",
        compare(math.log, "contour_distance", bank, trained),
        units="textures and networks",
        measure=f"{contours}; rivals: at most a quarter more",
        groups=("pooled_bank", TRAINED_VGG19),
        below=math.log(1.25),
    )
    return judge_together("league", [*sentences, rivals])
