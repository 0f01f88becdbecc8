"""Figure 2: several pictures rebuilt from the five pooling layers, untrained beside trained.

Claim: ranVGG gives better reconstructions than the trained VGG, especially on the higher layers;
from the fifth pooling layer the trained VGG hardly gives back even the contours.
Expect: a panel for each picture, a row for each network and a column for each layer. At laptop
scale about five minutes on two cores, half of that without trained weights.

Example:
  python -m randviz.experiments.fig2_pools --image=chelsea --image_size=64 --num_steps=100
"""

import dataclasses
import functools
import sys
from collections.abc import Sequence

import numpy as np

from randviz.commands import compare
from randviz.commands.trials import TRAINED, filter_records, list_labels, list_values_of
from randviz.experiments.claims import Claim, Sentence, judge_together, log_ratio, pair_records
from randviz.experiments.figure import PICTURES, FigureSettings
from randviz.host.records import Record
from randviz.host.study import run_module

list_trials, measure, plot = compare.list_trials, compare.measure, compare.plot
workload, describe = compare.workload, compare.describe


@dataclasses.dataclass(frozen=True)
class Settings(FigureSettings, compare.Settings):
    """Settings of figure 2."""

    image: tuple[str, ...] = PICTURES
    out_dir: str = "out/fig2_pools"


def judge(settings: Settings, records: list[Record]) -> list[Claim]:
    """What the records say about the paper's sentences; a picture is a unit."""
    groups = (list_labels(settings)[0], TRAINED)
    layers = list_values_of(records, "layer")

    def of_pictures(measure: str, chosen: Sequence[str]) -> list[list[tuple[float, float]]]:
        """[pictures][layers] pairs, of pictures that have all of them."""
        found = []
        for image in list_values_of(records, "image"):
            here = [
                record
                for record in filter_records(records, image=image)
                if record["trial"]["layer"] in chosen
            ]
            pairs = pair_records(here, "weights", groups, measure=lambda record: record[measure])
            found += [pairs] if pairs and len(pairs) == len(chosen) else []
        return found

    distances = of_pictures("distance", layers)
    ratios = np.array([log_ratio(pairs) for pairs in distances]).reshape(-1, len(layers))
    sentences = [
        Sentence(
            "From the pooling layers, reconstructions through ranVGG are nearer to the picture than"
            " through the trained VGG.",
            ratios.mean(axis=1),
            units="pictures",
            measure="mean over layers of log(distance of the first / of the second), by picture",
            groups=groups,
            below=0.0,
        )
    ]
    if len(layers) > 1:
        half = len(layers) // 2
        levels = np.array([np.subtract(*zip(*pairs, strict=True)) for pairs in distances])
        levels = levels.reshape(-1, len(layers))
        # "Especially" may be meant either way, and the two do not agree: the first was chosen
        # before there were results, the second when they had been seen.
        readings = {"log distance ratio": ratios, "difference in grey levels": levels}
        for scale, found in readings.items():
            sentences.append(
                Sentence(
                    f"The advantage of ranVGG, as {scale}, is larger on the higher pooling layers.",
                    found[:, -half:].mean(axis=1) - found[:, :half].mean(axis=1),
                    units="pictures",
                    measure=f"{scale} in {', '.join(layers[-half:])} less that in"
                    f" {', '.join(layers[:half])}, by picture",
                    groups=groups,
                    below=0.0,
                    post_hoc=found is levels,
                )
            )
    contours = np.reshape(of_pictures("contours", layers[-1:]), (-1, 2))
    sentences += [
        Sentence(
            "From the fifth pooling layer ranVGG gives back contours better than the trained VGG.",
            contours[:, 0] - contours[:, 1],
            units="pictures",
            measure=f"difference of the contours' correlation with the picture's, {layers[-1]}",
            groups=groups,
            above=0.0,
        ),
        Sentence(
            "From the fifth pooling layer the trained VGG hardly gives back even the contours.",
            contours[:, 1],
            units="pictures",
            measure=f"the contours' correlation with the picture's, {layers[-1]}; hardly: below"
            " 0.3",
            groups=groups[1:],
            below=0.3,
        ),
    ]
    return judge_together("figure 2", sentences)


main = functools.partial(run_module, sys.modules[__name__])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
