"""What the paper says and what came out: a sentence, numbers, an interval and a verdict.

Verdicts are given by one rule, `RULE`, over all claims of a figure together.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from randviz.commands.trials import list_values_of
from randviz.search.intervals import (
    ENOUGH,
    LEVEL,
    Estimate,
    Tested,
    compute_p_value,
    correct,
    estimate,
)

SUPPORTED, CONTRADICTED, INCONCLUSIVE, NOT_RUN = VERDICTS = (
    "supported",
    "contradicted",
    "inconclusive",
    "not run",
)
RULE = f"""\
A claim puts a mean over independent units on one side of a threshold, or between two. It is
*supported* if its whole 95 % interval (Student's t) lies there and *contradicted* if none of it
does, in both cases only if there are at least {ENOUGH} units and p, corrected for the number of the
figure's claims (Holm), is below {LEVEL:g}; otherwise it is *inconclusive*. p is two-sided, of a
sign-flip test at the threshold; where pictures and networks, or photographs and paintings, are
crossed, both are units, and p is of Student's t. Of rank correlations the interval is Fisher's and
p of permutations; their units are architectures, which are not drawn at random and resemble each
other, so that both hold for these only. What is not a unit was not varied, and the
interval leaves it out: figure 1 has one ranVGG for each convention, all have one trained network.
*Post hoc*: the measure was chosen after results had been seen."""


class Sentence(NamedTuple):
    """A sentence of the paper that can be tested, and what was measured.

    Attributes:
      statement: the sentence, in plain language.
      values: [n], one for each unit, or [R, C], where two kinds of unit are crossed; or what was
        found of an effect that is no mean, where the threshold is 0.
      units: what a unit is, in the plural.
      measure: what the effect, the mean of the values, is.
      groups: what is compared.
      below: the effect is said to lie below this.
      above: the effect is said to lie above this.
      post_hoc: whether the measure was chosen after results had been seen.
    """

    statement: str
    values: Sequence[Any] | Tested
    units: str
    measure: str
    groups: Sequence[str]
    below: float | None = None
    above: float | None = None
    post_hoc: bool = False


class Claim(NamedTuple):
    """A sentence and what came out.

    Attributes:
      statement, units, measure, groups, post_hoc: as in `Sentence`.
      figure: where the paper shows it.
      n: units that the interval rests on.
      effect: the mean, None if there is none.
      interval: its 95 % interval, None for fewer than two units.
      p: two-sided, at the threshold nearest to a wrong verdict; None for fewer than two units.
      corrected_p: for the number of the figure's claims.
      verdict: one of `VERDICTS`.
      why: the verdict's reason, a sentence.
    """

    statement: str
    figure: str
    measure: str
    groups: tuple[str, ...]
    units: str
    n: int
    effect: float | None
    interval: tuple[float, float] | None
    p: float | None
    corrected_p: float | None
    verdict: str
    why: str
    post_hoc: bool


def judge_together(figure: str, sentences: Sequence[Sentence]) -> list[Claim]:
    """Judges the sentences of a figure by `RULE`.

    Args:
      figure: its name.
      sentences: all of them, since p-values are corrected for their number.

    Returns:
      A claim for each, in their order.
    """
    found = [
        values.estimate if isinstance(values, Tested) else estimate(values)
        for values in (sentence.values for sentence in sentences)
    ]
    p_values = [
        _test(sentence, mean.value) if mean.n > 1 else None
        for sentence, mean in zip(sentences, found, strict=True)
    ]
    corrected = iter(correct([p for p in p_values if p is not None]))
    return [
        _decide(figure, sentence, mean, p, None if p is None else next(corrected))
        for sentence, mean, p in zip(sentences, found, p_values, strict=True)
    ]


def _test(sentence: Sentence, effect: float) -> float:
    """p at the limit that the effect is beyond, or, between two, at the worse of them."""
    if isinstance(sentence.values, Tested):
        return sentence.values.p
    limits = {1: sentence.below, -1: sentence.above}
    limits = {side: limit for side, limit in limits.items() if limit is not None}
    beyond = [limit for side, limit in limits.items() if side * (effect - limit) > 0]
    return max(compute_p_value(sentence.values, limit) for limit in beyond or limits.values())


def _decide(
    figure: str, sentence: Sentence, mean: Estimate, p: float | None, corrected_p: float | None
) -> Claim:
    below = math.inf if sentence.below is None else sentence.below
    above = -math.inf if sentence.above is None else sentence.above
    inside = above < mean.low and mean.high < below
    outside = mean.low > below or mean.high < above
    limits = {"below": sentence.below, "above": sentence.above}
    place = " and ".join(f"{word} {x:.3g}" for word, x in limits.items() if x is not None)
    if not mean.n:
        verdict = NOT_RUN
        why = f"There are no measurements of {' and '.join(sentence.groups)}."
    elif mean.n < ENOUGH:
        verdict = INCONCLUSIVE
        why = f"Independent units: {mean.n} ({sentence.units}); a verdict takes {ENOUGH}."
    else:
        decided = corrected_p < LEVEL and (inside or outside)
        verdict = (SUPPORTED if inside else CONTRADICTED) if decided else INCONCLUSIVE
        share = "All" if inside else "Nothing" if outside else "Only a part"
        why = f"{share} of the 95 % interval lies {place}; corrected p = {corrected_p:.2g}."
    return Claim(
        statement=sentence.statement,
        figure=figure,
        measure=sentence.measure,
        groups=tuple(sentence.groups),
        units=sentence.units,
        n=mean.n,
        effect=mean.value if mean.n else None,
        interval=(mean.low, mean.high) if mean.n > 1 else None,
        p=p,
        corrected_p=corrected_p,
        verdict=verdict,
        why=why,
        post_hoc=sentence.post_hoc,
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


def tabulate(
    records: Sequence[dict[str, Any]],
    axes: tuple[str, str],
    *,
    measure: Callable[[dict[str, Any]], float | None],
) -> np.ndarray:
    """Tables a measure over two crossed kinds of unit.

    Args:
      records: with a "trial" each, one for each pair.
      axes: the names of the places in trials that are the rows and the columns.
      measure: of a record; None leaves the pair out.

    Returns:
      [R, C], rows and columns sorted by name or number, so that tables of other records of the same
      units fit together; rows that lack a column are left out.
    """
    rows, columns = (sorted(list_values_of(records, axis)) for axis in axes)
    table = np.full((len(rows), len(columns)), np.nan)
    for record in records:
        row, column = (record["trial"][axis] for axis in axes)
        table[rows.index(row), columns.index(column)] = measure(record)
    return table[np.isfinite(table).all(axis=1)]
