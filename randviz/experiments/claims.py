"""What the paper says and what came out: a sentence, numbers, an interval and a verdict.

An effect is estimated with a 95 % interval, by resampling whole units (pictures, networks). A
sentence is supported if the interval lies on the side of the threshold that the sentence names,
and not supported otherwise. Without enough units there is no interval and no verdict.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

ENOUGH = 6  # units; an interval from fewer says more than is known
NUM_RESAMPLES = 2000
VERDICTS = ("supported", "not supported", "not run")


class Estimate(NamedTuple):
    """A number from n problems with its 95 % interval, NaN where n is too small for one."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        if self.n < ENOUGH:
            return f"not enough samples (n = {self.n})"
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}], n = {self.n}"

    def judge(self, above: str, below: str, unclear: str) -> str:
        """The text for an interval above, below or around zero, and the numbers."""
        text = above if self.low > 0 else below if self.high < 0 else unclear
        return f"{text} ({self})" if self.n >= ENOUGH else str(self)


def bootstrap(
    problems: Sequence[Any], statistic: Callable[[np.ndarray], float] = np.mean
) -> Estimate:
    """Estimates a statistic of independent problems with a percentile bootstrap interval.

    Args:
      problems: [n] or [n, columns], what was found in each.
      statistic: of such an array.

    Returns:
      The statistic and the central 95 % of what it is in resampled problems.
    """
    problems = np.asarray(problems, float)
    n = len(problems)
    value = float(statistic(problems)) if n else math.nan
    if n < ENOUGH:
        return Estimate(value, math.nan, math.nan, n)
    picks = np.random.default_rng(0).integers(0, n, (NUM_RESAMPLES, n))
    low, high = np.quantile([statistic(problems[pick]) for pick in picks], (0.025, 0.975))
    return Estimate(value, float(low), float(high), n)


def bootstrap_crossed(table: Sequence[Sequence[float]]) -> Estimate:
    """Estimates a mean over two crossed kinds of unit, as photographs and paintings are.

    Numbers of one row or column are not independent, so whole rows and whole columns are resampled.

    Args:
      table: [R, C], what was found for each pair.

    Returns:
      The mean and the central 95 % of what it is in resampled tables; n is the smaller of R and C.

    References:
      Owen (2007), "The pigeonhole bootstrap": the interval is a little too wide, never too narrow.
    """
    table = np.asarray(table, float)
    n = min(table.shape)
    if n < ENOUGH:
        return Estimate(float(np.mean(table)) if table.size else math.nan, math.nan, math.nan, n)
    rng = np.random.default_rng(0)
    rows, columns = (rng.integers(0, side, (NUM_RESAMPLES, side)) for side in table.shape)
    means = table[rows[:, :, None], columns[:, None, :]].mean((1, 2))
    low, high = np.quantile(means, (0.025, 0.975))
    return Estimate(float(np.mean(table)), float(low), float(high), n)


class Claim(NamedTuple):
    """A sentence of the paper that can be tested, and what came out.

    Attributes:
      statement: the sentence, in plain language.
      figure: where the paper shows it.
      measure: what the effect is.
      groups: what is compared.
      n: units that the interval rests on.
      effect: the estimate, None if there is none.
      interval: its 95 % interval, None if there are too few units.
      verdict: one of `VERDICTS`.
      why: the verdict's reason, a sentence.
    """

    statement: str
    figure: str
    measure: str
    groups: tuple[str, ...]
    n: int
    effect: float | None
    interval: tuple[float, float] | None
    verdict: str
    why: str


def judge_units(
    statement: str,
    units: Sequence[Any],
    *,
    figure: str,
    measure: str,
    groups: Sequence[str],
    statistic: Callable[[np.ndarray], float] = np.mean,
    below: float | None = None,
    above: float | None = None,
) -> Claim:
    """Judges a sentence that puts an effect below or above a threshold, or between two.

    Args:
      statement: the sentence.
      units: [n] or [n, columns], what was found in each independent unit.
      figure, measure, groups: as in `Claim`.
      statistic: the effect, of such an array.
      below: the whole interval must lie below this.
      above: the whole interval must lie above this.

    Returns:
      The claim with its verdict.
    """
    found = bootstrap(units, statistic)
    return judge_estimate(
        statement,
        found,
        figure=figure,
        measure=measure,
        groups=groups,
        below=below,
        above=above,
    )


def judge_estimate(
    statement: str,
    found: Estimate,
    *,
    figure: str,
    measure: str,
    groups: Sequence[str],
    below: float | None = None,
    above: float | None = None,
) -> Claim:
    """As `judge_units`, of an estimate that is there already."""
    enough = found.n >= ENOUGH and all(map(math.isfinite, found[:3]))
    supported = enough and (below is None or found.high < below)
    supported = supported and (above is None or found.low > above)
    limits = {"below": below, "above": above}
    bounds = [f"{word} {limit:.3g}" for word, limit in limits.items() if limit is not None]
    if enough:
        verb = "lies" if supported else "does not lie"
        why = f"The 95 % interval {verb} {' and '.join(bounds)}."
    elif found.n:
        why = f"Too few samples for an interval: {found.n}, of at least {ENOUGH}."
    else:
        why = f"There are no measurements of {' and '.join(groups)}."
    return Claim(
        statement=statement,
        figure=figure,
        measure=measure,
        groups=tuple(groups),
        n=found.n,
        effect=found.value if math.isfinite(found.value) else None,
        interval=(found.low, found.high) if enough else None,
        verdict=VERDICTS[0 if supported else 1] if enough else VERDICTS[2],
        why=why,
    )


def log_ratio(pairs: Sequence[tuple[float, float]]) -> np.ndarray:
    """log(a / b) of pairs [n, 2], the effect of most claims: 0 for equal ones."""
    return np.log(np.reshape(pairs, (-1, 2)) + 1e-9) @ np.array([1.0, -1.0])


def pair_records(
    records: Sequence[dict[str, Any]],
    axis: str,
    groups: tuple[str, str],
    *,
    measure: Callable[[dict[str, Any]], float | None],
) -> list[tuple[float, float]]:
    """Finds the records whose trials differ in one place only.

    Args:
      records: with a "trial" each.
      axis: the name of the place in which the two groups differ.
      groups: its two values.
      measure: of a record; None leaves the pair out.

    Returns:
      The measures of both, a pair for each trial that both groups have, in the order of the first.
    """
    sides: tuple[dict, dict] = ({}, {})
    for record in records:
        trial = record["trial"]
        if trial.get(axis) in groups:
            rest = tuple((name, value) for name, value in trial.items() if name != axis)
            sides[groups.index(trial[axis])][rest] = measure(record)
    pairs = [(value, sides[1].get(rest)) for rest, value in sides[0].items()]
    return [pair for pair in pairs if None not in pair]
