"""Figure 3: how much reconstructions vary, over many networks and many starting noises.

Claim: ranVGG, whose layers are selected, varies less and comes nearer than a purely random VGG, and
both vary less and come nearer than the trained VGG.
Expect: box.png, a box for each kind and layer, and the claims with their intervals; random networks
and ranVGGs with un-centred and with centred input. Sample n is network n with starting noise n;
trained weights are always the same, so only the noise varies.

Example:
  python -m randviz.experiments.fig3_variance --num_networks=8 --image_size=32 --num_steps=50
"""

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from randviz.commands import population
from randviz.commands.population import PopulationSettings
from randviz.commands.trials import TRAINED, filter_records, list_values_of
from randviz.experiments.claims import Claim, Sentence, judge_together, log_ratio, pair_records
from randviz.experiments.figure import CENTRED, OTHER_PICTURES, UNCENTRED
from randviz.host.records import Record, Trial
from randviz.host.study import Workload, run_module
from randviz.search.intervals import jackknife
from randviz.types import UserError


@dataclasses.dataclass(frozen=True)
class Settings(PopulationSettings):
    """Settings of figure 3."""

    image: tuple[str, ...] = ("chelsea",)
    square: bool = True
    layers: tuple[str, ...] = ("pool3", "pool5")
    kinds: tuple[str, ...] = ("random", "ranvgg", "random-centred", "ranvgg-centred", TRAINED)
    normalization_images: tuple[str, ...] = OTHER_PICTURES
    num_networks: int = 32
    reference_size: int = 64
    out_dir: str = "out/fig3_variance"


def _without_missing(settings: Settings) -> Settings:
    """Without the trained network where no file of it is given."""
    if settings.trained_weights:
        return settings
    kinds = tuple(kind for kind in settings.kinds if kind != TRAINED)
    return dataclasses.replace(settings, kinds=kinds)


def list_trials(settings: Settings) -> list[Trial]:
    """Each sample of each kind with each layer: sample by sample.

    Raises:
      UserError: for several pictures, whose samples would not be independent, or as
        `population.make_plan`.
    """
    if len(settings.image) > 1:
        raise UserError(f"--image={','.join(settings.image)}: figure 3 rebuilds one picture.")
    plan = population.make_plan(_without_missing(settings))
    return [
        {
            "network": 0 if kind == TRAINED else sample,
            "weights": kind,
            "image": image,
            "layer": layer,
            "noise": sample,
        }
        for sample in range(settings.num_networks)
        for kind in plan.kinds
        for image in plan.pictures
        for layer in plan.layers
    ]


def describe(settings: Settings) -> dict[str, Any]:
    """See `population.describe`."""
    return population.describe(_without_missing(settings))


def workload(settings: Settings) -> Workload:
    """See `population.workload`."""
    return population.workload(_without_missing(settings), list_trials(settings))


def measure(settings: Settings, trials: Sequence[Trial], records: Sequence[Record]) -> list[Record]:
    """See `population.measure`."""
    return population.measure(_without_missing(settings), trials, records)


def plot(settings: Settings, records: list[Record], folder: pathlib.Path) -> None:
    """Draws the boxes and prints their table."""
    population.conclude(_without_missing(settings), _by_sample(records), folder)


def _by_sample(records: Sequence[Record]) -> list[Record]:
    """The records with the sample's number for the network's, and no other noise."""
    return [
        {**record, "trial": {**trial, "network": trial["noise"], "noise": 0}}
        for record in records
        for trial in [record["trial"]]
    ]


def log_spread_ratio(pairs: np.ndarray) -> float:
    """log(standard deviation of the first column / of the second)."""
    spreads = np.std(pairs, axis=0, ddof=1)
    return float(np.log(spreads[0] / spreads[1]))


def judge(settings: Settings, records: list[Record]) -> list[Claim]:
    """What the records say, layer by layer; a sample, network and noise together, is a unit."""
    records = _by_sample(records)
    found = []
    for layer in list_values_of(records, "layer"):
        here = filter_records(records, layer=layer)
        for suffix, convention in (("", UNCENTRED), ("-centred", CENTRED)):
            found += _judge_layer(here, layer, suffix, f"{convention} input")
    return judge_together("figure 3", found)


def _judge_layer(
    records: Sequence[Record], layer: str, suffix: str, convention: str
) -> list[Sentence]:
    """The sentences about one layer and one convention."""
    ranvgg, random = f"ranvgg{suffix}", f"random{suffix}"
    names = {
        ranvgg: f"ranVGG with {convention}",
        random: f"a purely random VGG with {convention}",
        TRAINED: "the trained VGG",
    }
    found = []
    for first, second in ((ranvgg, random), (random, TRAINED), (ranvgg, TRAINED)):
        pair_by = functools.partial(pair_records, records, "weights", (first, second))
        distances = pair_by(measure=lambda record: record["distance"])
        one, other = names[first], names[second]
        asked = [
            (
                f"Reconstructions from {layer} come nearer through {one} than through {other}.",
                log_ratio(distances),
                "mean over samples of log(distance of the first / of the second)",
                False,
            ),
            (
                f"Reconstructions from {layer} vary less through {one} than through {other}.",
                jackknife(distances, log_spread_ratio),
                "log(standard deviation of the first's distances / of the second's), jackknifed",
                False,
            ),
            # A spread in grey levels is small already where distances are.
            (
                f"Relative to the distance, reconstructions from {layer} vary less through {one}"
                f" than through {other}.",
                jackknife(np.log(np.reshape(distances, (-1, 2))), log_spread_ratio),
                "log(standard deviation of the first's log distances / of the second's),"
                " jackknifed",
                True,
            ),
        ]
        if second == random:
            # Records of earlier versions have none.
            errors = pair_by(measure=lambda record: record.get("feature_error"))
            asked.append(
                (
                    f"Selection lowers the loss from {layer} of a VGG with {convention}.",
                    2 * log_ratio(errors),
                    "mean over samples of log(loss of the first / of the second), the squared"
                    " relative error of the features",
                    False,
                )
            )
        found += [
            Sentence(
                statement,
                values,
                units="samples",
                measure=words,
                groups=(first, second),
                below=0.0,
                post_hoc=post_hoc,
            )
            for statement, values, words, post_hoc in asked
        ]
    return found


STUDY = dataclasses.replace(
    population.STUDY,
    name="fig3_variance",
    list_trials=list_trials,
    describe=describe,
    workload=workload,
    measure=measure,
    plot=plot,
    judge=judge,
)


main = functools.partial(run_module, sys.modules[__name__])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
