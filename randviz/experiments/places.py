"""Places of many competitors, with the confidence of each: ties are shown as ties."""

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from randviz.search.intervals import LEVEL, Estimate, compute_p_value, correct, estimate


class Place(NamedTuple):
    """The places that one competitor may have.

    Attributes:
      low: the best of them, 1 and the number of those that are better.
      high: the worst, 1 and the number of those that are not worse.
      score: the mean over units.
    """

    low: int
    high: int
    score: Estimate

    def __str__(self) -> str:
        return str(self.low) if self.low == self.high else f"{self.low}–{self.high}"


def find_places(tables: Mapping[str, np.ndarray]) -> dict[str, Place]:
    """Orders competitors by their scores on the same units.

    One is better than another if the difference of their scores is above 0 at the level of 5 %,
    corrected for the number of pairs (Holm). All places are then right at once in 95 % of cases.

    Args:
      tables: of each competitor, [n] or [R, C], the same units in the same order; higher is better.

    Returns:
      The place of each, best mean first.

    References:
      Mogstad, Romano, Shaikh, Wilhelm (2024), "Inference for ranks with applications to mobility
      across neighbourhoods and academic achievement across countries", section 3.
    """
    names = list(tables)
    better = {name: 0 for name in names}
    worse = {name: 0 for name in names}
    pairs = list(itertools.combinations(names, 2))
    differences = [np.asarray(tables[a]) - np.asarray(tables[b]) for a, b in pairs]
    p_values = correct([_test(difference) for difference in differences])
    for (a, b), difference, p in zip(pairs, differences, p_values, strict=True):
        if p < LEVEL:
            winner, loser = (a, b) if difference.mean() > 0 else (b, a)
            better[loser] += 1
            worse[winner] += 1
    # Where nothing was measured they keep their order.
    order = sorted(
        names, key=lambda name: -float(np.mean(tables[name])) if tables[name].size else 0.0
    )
    return {
        name: Place(1 + better[name], len(names) - worse[name], estimate(tables[name]))
        for name in order
    }


def _test(difference: np.ndarray) -> float:
    """p of a mean of 0; of one unit there is none."""
    return 1.0 if difference.size < 2 else compute_p_value(difference, 0.0)
