"""Intervals and p-values: against closed forms, and as often right as they say."""

import itertools

import numpy as np
import pytest
import scipy.stats

from randviz.search.intervals import (
    Estimate,
    compute_p_value,
    correct,
    correlate_ranks,
    estimate,
    jackknife,
)

TRIALS = 2000
DISTRIBUTIONS = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "exponential": lambda rng, shape: rng.exponential(size=shape) - 1,
}
# Standard deviations of rows, columns and the rest.
CROSSED = {
    "rows": (1, 0, 0),
    "both": (1, 1, 0),
    "rows and rest": (1, 0, 1),
    "both and rest": (1, 1, 1),
    "rest": (0, 0, 1),
}


def list_tables():
    """Simulated values with mean 0, [trials, n] or [trials, R, C], and what they are."""
    for name, sample in DISTRIBUTIONS.items():
        rng = np.random.default_rng(0)
        for n in (10, 32):
            yield f"{name}, n = {n}", sample(rng, (TRIALS, n))
        for design, (rows, columns, rest) in CROSSED.items():
            shapes = (TRIALS, 6, 1), (TRIALS, 1, 6), (TRIALS, 6, 6)
            parts = zip((rows, columns, rest), shapes, strict=True)
            yield (
                f"{name}, 6 × 6, {design}",
                sum(deviation * sample(rng, shape) for deviation, shape in parts),
            )
    rng = np.random.default_rng(0)
    yield "normal, log ratio of spreads, n = 32", rng.normal(size=(TRIALS // 2, 32, 2))


def measure_coverage():
    """How often the interval holds the true value, by what was simulated."""
    found = {}
    for name, tables in list_tables():
        if "spreads" in name:
            tables = [jackknife(units, log_spread_ratio) for units in tables]
        ends = np.array([estimate(table)[1:3] for table in tables])
        found[name] = np.mean((ends[:, 0] <= 0) & (0 <= ends[:, 1]))
    return found


def log_spread_ratio(pairs):
    return np.log(np.divide(*np.std(pairs, axis=0, ddof=1)))


def test_intervals_hold_the_mean_as_often_as_they_say():
    for name, share in measure_coverage().items():
        if "normal" in name and not name.endswith(", rest"):
            assert abs(share - 0.95) < 0.02, f"{name}: {share}"
        elif "normal" in name:
            assert 0.95 < share < 0.99, f"{name}: {share}"  # without rows and columns, too wide
        else:
            # Skewness costs coverage, most where few units decide; this only bounds how much.
            assert share > 0.86, f"{name}: {share}"


def test_an_interval_is_students():
    units = np.random.default_rng(1).normal(size=12)
    found, theirs = estimate(units), scipy.stats.ttest_1samp(units, 0).confidence_interval()
    assert found[:3] == pytest.approx((units.mean(), theirs.low, theirs.high)) and found.n == 12
    assert np.isnan(estimate(units[:1]).low) and estimate(units[:1]).value == units[0]
    assert np.isnan(estimate([]).value) and estimate([]).n == 0
    assert estimate([2.0, 2.0, 2.0]) == (2, 2, 2, 3)


def test_a_sign_flip_is_exact():
    units = np.random.default_rng(2).normal(0.5, size=9)
    flips = [np.dot(signs, units - 0.1) for signs in itertools.product((-1, 1), repeat=9)]
    expected = np.mean(np.abs(flips) >= np.abs(np.sum(units - 0.1)) - 1e-12)
    assert compute_p_value(units, 0.1) == pytest.approx(expected)
    assert compute_p_value(np.arange(1.0, 11.0), 0.0) == pytest.approx(2 / 1024)
    many = np.random.default_rng(3).normal(0.3, size=32)
    theirs = scipy.stats.ttest_1samp(many, 0).pvalue
    assert compute_p_value(many, 0.0) == pytest.approx(theirs, abs=0.02)


def test_a_sign_flip_rejects_a_true_mean_as_rarely_as_it_says():
    rng = np.random.default_rng(4)
    rejected = [compute_p_value(rng.laplace(size=10), 0.0) < 0.05 for _ in range(150)]
    assert 0.005 < np.mean(rejected) < 0.1


def test_whole_rows_and_whole_columns_are_the_units_of_a_table():
    """Where all that varies are the rows, a table is worth its rows and not its numbers."""
    rows = np.random.default_rng(0).normal(size=(8, 1))
    table = rows + np.zeros((8, 6))
    for crossed in (estimate(table), estimate(table.T)):
        assert crossed[:3] == pytest.approx(estimate(rows.ravel())[:3]) and crossed.n == 14
    pairs = estimate(table.ravel())
    assert crossed.high - crossed.low > 2 * (pairs.high - pairs.low)
    theirs = scipy.stats.ttest_1samp(rows.ravel(), 0.4).pvalue
    assert compute_p_value(table, 0.4) == pytest.approx(theirs)
    # One row says nothing of other rows.
    assert estimate(rows.T) == estimate(rows) == estimate(rows.ravel())
    constant = np.full((3, 4), 2.0)
    assert estimate(constant) == (2, 2, 2, 7)
    assert compute_p_value(constant, 2.0) == 1 and compute_p_value(constant, 1.0) == 0


def test_the_correction_is_holms():
    assert correct([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert correct([0.9, 0.5]) == [1, 1] and correct([]) == []


def test_the_jackknife_gives_back_a_mean_and_unbiases_a_variance():
    units = np.random.default_rng(5).normal(size=9)
    assert jackknife(units, np.mean) == pytest.approx(units)
    assert np.mean(jackknife(units, np.var)) == pytest.approx(np.var(units, ddof=1))
    assert jackknife(units[:2], np.var).size == 0


def test_an_estimate_says_what_it_is_worth():
    assert str(estimate([])) == "no measurements" and str(estimate([1.0])) == "1.00, n = 1"
    words = ("more", "less", "unclear")
    assert Estimate(1, 0.5, 1.5, 10).judge(*words) == "more (1.00 [0.50, 1.50], n = 10)"
    assert Estimate(-1, -1.5, -0.5, 10).judge(*words).startswith("less")
    assert Estimate(0, -1, 1, 10).judge(*words).startswith("unclear")
    assert Estimate(1, 0.5, 1.5, 9).judge(*words).startswith("unclear (1.00 [0.50, 1.50], n = 9;")


if __name__ == "__main__":
    for name, share in measure_coverage().items():
        print(f"{name}: {share:.3f}")


def test_rank_correlations_are_scipys_and_seldom_excluded_by_chance():
    rng = np.random.default_rng(3)
    excluded = []
    for _ in range(300):
        x, y = rng.normal(size=(2, 11))
        found = correlate_ranks(x, y).estimate
        assert found.value == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
        excluded.append(not found.low <= 0 <= found.high)
    assert np.mean(excluded) < 0.09  # of 5 %, more have a probability of 1 in 1,000
    x = np.arange(12.0)
    assert correlate_ranks(x, x**3).p < 0.001 < 0.2 < correlate_ranks(x, np.cos(9 * x)).p
