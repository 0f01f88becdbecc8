"""Figure 2: several pictures rebuilt from the five pooling layers, untrained beside trained.

Claim: ranVGG gives better reconstructions than the trained VGG, especially on the higher layers;
from the fifth pooling layer the trained VGG hardly gives back even the contours; and it does not
matter on which picture a ranVGG is selected.
Expect: a panel for each picture, a column for each layer: one ranVGG with un-centred and one with
centred input, the trained VGG, and block means of as many numbers as the layer has; table.md.
Networks and pictures are crossed.

Example:
  python -m randviz.experiments.fig2_pools --image=chelsea --image_size=64 --num_steps=100
"""

import dataclasses
import functools
import math
import operator
import pathlib
import sys
from collections.abc import Callable, Sequence

import numpy as np

from randviz.commands import compare
from randviz.commands.network_choice import CENTRED_RECIPES, UNCENTRED_RECIPES
from randviz.commands.trials import TRAINED, find_untrained
from randviz.experiments.claims import Claim, Sentence, judge_together
from randviz.experiments.figure import (
    PICTURES,
    FigureSettings,
    compare_networks,
    compare_with_baseline,
    find_network,
    gather_layers,
    group_networks,
    make_sentence,
    mean,
    tabulate_group,
)
from randviz.host.records import Record
from randviz.host.settings import setting
from randviz.host.study import run_module

list_trials, measure = compare.list_trials, compare.measure
workload, describe = compare.workload, compare.describe


@dataclasses.dataclass(frozen=True)
class Settings(FigureSettings, compare.Settings):
    """Settings of figure 2."""

    network: tuple[str, ...] = (*UNCENTRED_RECIPES, *CENTRED_RECIPES, "ranvgg_retina")
    other_reference: str = setting(
        "ranvgg_retina",
        "The one of --network that was selected on another picture than the first, from the same"
        " draws; it is compared with the first only.",
    )
    image: tuple[str, ...] = PICTURES
    out_dir: str = "out/fig2_pools"


def list_groups(settings: Settings) -> dict[str, tuple[str, ...]]:
    """The networks that are compared with the trained one, by group."""
    groups = group_networks(settings)
    kept = {
        group: tuple(label for label in labels if label != settings.other_reference)
        for group, labels in groups.items()
    }
    return {group: labels for group, labels in kept.items() if labels}


def plot(settings: Settings, records: list[Record], folder: pathlib.Path) -> None:
    """Draws the panels, the first network of each group and the trained one, and the table."""
    labels = [labels[0] for labels in list_groups(settings).values()]
    compare.plot_rows(settings, records, folder, [*labels, TRAINED])


def judge(settings: Settings, records: list[Record]) -> list[Claim]:
    """What the records say about the paper's sentences; pictures and networks are units."""
    layers = find_untrained(settings).network.canonical_names(settings.layers)
    of_networks = gather_layers(records)
    groups = list_groups(settings)
    sentences = [
        sentence
        for group, labels in groups.items()
        for sentence in _judge_group(records, of_networks, layers, group, labels)
    ]
    first = next(iter(groups.values()))[0]
    sentences += [
        Sentence(
            f"From {layers[-1]} the trained VGG hardly gives back even the contours.",
            tabulate_group(
                of_networks,
                [TRAINED],
                lambda record: record["layers"].get(layers[-1], {}).get("contours"),
            ),
            units="pictures",
            measure="the contours' correlation with the picture's; hardly: below 0.3",
            groups=(TRAINED,),
            below=0.3,
        ),
        Sentence(
            "Selected on another picture, ranVGG returns similar results.",
            tabulate_group(
                of_networks,
                [settings.other_reference],
                lambda record: mean(compare_networks(of_networks, record, first, layers, layers)),
            ),
            units="pictures",
            measure="mean over layers of log(distance of the first / of the second); similar:"
            " within 5 %",
            groups=(settings.other_reference, first),
            below=math.log(1.05),
            above=-math.log(1.05),
        ),
    ]
    return judge_together("figure 2", sentences)


def _judge_group(
    records: Sequence[Record],
    of_networks: Sequence[Record],
    layers: Sequence[str],
    group: str,
    labels: Sequence[str],
) -> list[Sentence]:
    """The sentences about the networks of one group beside the trained one."""
    half, deepest = max(len(layers) // 2, 1), layers[-1]

    def compare_ratios(record: Record) -> np.ndarray | None:
        return compare_networks(of_networks, record, TRAINED, layers, layers)

    def compare_levels(record: Record) -> np.ndarray | None:
        other = find_network(of_networks, record, TRAINED)
        if compare_ratios(record) is None or other is None:
            return None
        sides = (record["layers"], other["layers"])
        own, others = ([side[layer]["distance"] for layer in layers] for side in sides)
        return np.subtract(own, others)

    def compare_contours(record: Record) -> float | None:
        other = find_network(of_networks, record, TRAINED)
        sides = [side and side["layers"].get(deepest) for side in (record, other)]
        return None if None in sides else sides[0]["contours"] - sides[1]["contours"]

    def reduce_layers(
        compare_layers: Callable[[Record], np.ndarray | None],
        reduce: Callable[[np.ndarray], float],
    ) -> np.ndarray:
        """What is left of the layers' differences, [pictures, networks]."""

        def measure_record(record: Record) -> float | None:
            found = compare_layers(record)
            return None if found is None else float(reduce(found))

        return tabulate(measure_record)

    tabulate = functools.partial(tabulate_group, of_networks, labels)
    grow = lambda found: found[-half:].mean() - found[:half].mean()
    ratio = "log(distance of the first / of the second)"
    higher = f"{', '.join(layers[-half:])} less that in {', '.join(layers[:half])}"
    # "Especially" may be meant either way, and the two do not agree: the ratio was chosen before
    # there were results, the difference and the layers one by one when some had been seen.
    asked = [
        (
            f"From the pooling layers, reconstructions through {group} are nearer to the picture"
            " than through the trained VGG.",
            reduce_layers(compare_ratios, np.mean),
            f"mean over layers of {ratio}",
            False,
        ),
        (
            f"The advantage of {group}, as log distance ratio, is larger on the higher pooling"
            " layers.",
            reduce_layers(compare_ratios, grow),
            f"log distance ratio in {higher}",
            False,
        ),
        (
            f"The advantage of {group}, as difference in grey levels, is larger on the higher"
            " pooling layers.",
            reduce_layers(compare_levels, grow),
            f"difference in grey levels in {higher}",
            True,
        ),
        *(
            (
                f"From {layer}, reconstructions through {group} are nearer to the picture than"
                " through the trained VGG.",
                reduce_layers(compare_ratios, operator.itemgetter(place)),
                ratio,
                True,
            )
            for place, layer in enumerate(layers)
        ),
    ]
    return [
        *(
            make_sentence(
                statement,
                values,
                measure=words,
                groups=(group, TRAINED),
                below=0.0,
                post_hoc=post_hoc,
            )
            for statement, values, words, post_hoc in asked
        ),
        make_sentence(
            f"From {deepest}, reconstructions through {group} are nearer than block means of as"
            " many numbers.",
            tabulate(lambda record: compare_with_baseline(record, records, "numbers", deepest)),
            measure=ratio,
            groups=(group, "block means"),
            below=0.0,
        ),
        make_sentence(
            f"From {deepest}, {group} gives back contours better than the trained VGG.",
            tabulate(compare_contours),
            measure="difference of the contours' correlation with the picture's",
            groups=(group, TRAINED),
            above=0.0,
        ),
    ]


main = functools.partial(run_module, sys.modules[__name__])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
