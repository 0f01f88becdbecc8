"""Places of many competitors, with the confidence of each: ties are shown as ties."""

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from randviz.search.intervals import LEVEL, Estimate, compute_student_p, correct, estimate


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

    One is better than another if the difference of their scores is above 0 at the level of 5 % by
    Student's t, as the intervals are, corrected for the number of others (Holm). Each place is then
    right in 95 % of cases; that all are right at once is not said, which would take a correction
    for all pairs.

    Args:
      tables: of each competitor, [n] or [R, C], the same units in the same order; higher is better.

    Returns:
      The place of each, best mean first.

    References:
      Mogstad, Romano, Shaikh, Wilhelm (2024), "Inference for ranks with applications to mobility
      across neighbourhoods and academic achievement across countries", section 3.
    """
    names = list(tables)
    # Where nothing was measured they keep their order.
    means = {name: float(np.mean(table)) if table.size else 0.0 for name, table in tables.items()}
    p_values = {
        frozenset(pair): _test(np.subtract(*(tables[name] for name in pair)))
        for pair in itertools.combinations(names, 2)
    }
    better, worse = {}, {}
    for name in names:
        others = [other for other in names if other != name]
        corrected = correct([p_values[frozenset((name, other))] for other in others])
        apart = [other for other, p in zip(others, corrected, strict=True) if p < LEVEL]
        better[name] = sum(means[other] > means[name] for other in apart)
        worse[name] = len(apart) - better[name]
    return {
        name: Place(1 + better[name], len(names) - worse[name], estimate(tables[name]))
        for name in sorted(names, key=lambda name: -means[name])
    }


def _test(difference: np.ndarray) -> float:
    """p of a mean of 0; of one unit there is none."""
    return 1.0 if difference.size < 2 else compute_student_p(difference, 0.0)
