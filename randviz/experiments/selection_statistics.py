"""The statistics of the selection audit: records in, estimates with intervals out.

Networks are the units: numbers of a network's layers are averaged first.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.stats

from randviz.commands.trials import filter_records, list_values_of
from randviz.host.records import Record
from randviz.search.intervals import Estimate, estimate, jackknife

SIZES = (1, 2, 4, 8, 16)  # K
TRANSFER_SIZE = 4  # K there: among 16 draws, many subsets to average over


def expected_best(losses: Sequence[float], values: Sequence[float], size: int) -> float:
    """The value that selection among K of n draws gives, averaged over all subsets of K.

    Args:
      losses: [n], what is compared; of equal ones the first is kept.
      values: [n], what is asked of the draw kept.
      size: K.

    Returns:
      Σ_i C(n − i, K − 1) / C(n, K) · v_i, where v_i belongs to the i-th smallest loss: of all
      subsets of K, that share has the i-th as its best.
    """
    n = len(losses)
    ranked = np.asarray(values)[np.argsort(losses, kind="stable")]
    shares = [math.comb(n - i, size - 1) / math.comb(n, size) for i in range(1, n + 1)]
    return float(np.dot(shares, ranked))


def predict_best(pool: Sequence[float], size: int) -> float:
    """The expected minimum of K independent draws from a sample's distribution.

    Args:
      pool: [N], the sample.
      size: K.

    Returns:
      Σ_i x_(i) [((N − i + 1) / N)^K − ((N − i) / N)^K], x_(i) the i-th smallest.

    References:
      David, Nagaraja (2003), "Order Statistics", section 2.1: P(min > x) = (1 − F(x))^K.
    """
    above = (np.arange(len(pool), -1, -1) / len(pool)) ** size
    return float(np.dot(np.sort(pool), above[:-1] - above[1:]))


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's ρ of two lists of numbers; NaN where one of them is constant."""
    if len(set(a)) == 1 or len(set(b)) == 1:
        return math.nan
    return float(scipy.stats.spearmanr(a, b).statistic)


def is_tied(record: Record) -> bool:
    """Whether every draw got down to the resolution of float32, so that none is the best."""
    return min(record["losses"]) == max(record["losses"])


def distinct_problems(records: Sequence[Record]) -> list[Record]:
    """Rows that are neither tied nor a repetition.

    A stacked network that kept draw 0 everywhere below is the plain one, and no second problem.
    """
    new = lambda record: record["trial"]["below"] == "plain" or any(record["draws_below"])
    return [record for record in records if not is_tied(record) and new(record)]


def levels(distances: Sequence[float]) -> np.ndarray:
    """Image distances in decibels; a thousandth of a grey level counts as none."""
    return 20 * np.log10(np.maximum(distances, 1e-3))


def gain(losses: Sequence[float], values: np.ndarray, size: int) -> float:
    """How much lower the value of the best of K draws by loss is than that of one draw."""
    return float(np.mean(values)) - expected_best(losses, values, size)


def predicted_gain(others: Sequence[Record], size: int) -> float:
    """The gain in log loss among K draws that other networks' single draws let one expect."""
    pool = []
    for record in others:
        logs = np.log(record["losses"])
        # Deviations from a mean of n draws are too small by the root of (n - 1) / n.
        pool += list((logs - logs.mean()) * math.sqrt(len(logs) / (len(logs) - 1)))
    return -predict_best(pool, size) if pool else math.nan


def measure_gains(group: Sequence[Record], sizes: Sequence[int]) -> dict[str, list[list[float]]]:
    """The gain of each K in each network of one layer and offset, [networks][K] each.

    Returns:
      observed: in log loss; predicted: from the pooled deviations of the other networks, so that a
      network does not predict itself; distance_db: of the draw with the smallest loss;
      best_distance_db: of the draw with the smallest distance, which no loss can beat.
    """
    found = {"observed": [], "predicted": [], "distance_db": [], "best_distance_db": []}
    for record in group:
        others = [other for other in group if other is not record]
        losses, distances = record["losses"], record["distances"]
        decibels = levels(distances)
        found["observed"].append([gain(losses, np.log(losses), size) for size in sizes])
        found["predicted"].append([predicted_gain(others, size) for size in sizes])
        found["distance_db"].append([gain(losses, decibels, size) for size in sizes])
        found["best_distance_db"].append([gain(distances, decibels, size) for size in sizes])
    return found


def measure_spread(groups: Sequence[Sequence[Record]]) -> dict[str, float]:
    """Standard deviations of the log loss: between draws of a layer, and between networks."""
    within, between = [], []
    for group in groups:
        logs = np.log([record["losses"] for record in group])
        within.append(np.mean(np.var(logs, axis=1, ddof=1)))
        if len(group) > 1:
            # Means of n draws differ a little even where networks do not.
            between.append(np.var(logs.mean(axis=1), ddof=1) - within[-1] / logs.shape[1])
    root = lambda variances: math.sqrt(max(np.mean(variances), 0)) if variances else math.nan
    return {"draws": root(within), "networks": root(between)}


def average_by_network(records: Sequence[Record], values: Sequence[Any]) -> np.ndarray:
    """The mean over a network's records, which are not independent of each other.

    Args:
      records: [n].
      values: [n] or [n, columns], of each; with a NaN it is left out.

    Returns:
      [networks] or [networks, columns].
    """
    groups: dict[int, list[np.ndarray]] = {}
    for record, value in zip(records, values, strict=True):
        if np.isfinite(value).all():
            groups.setdefault(record["trial"]["seed"], []).append(value)
    return np.array([np.mean(group, axis=0) for group in groups.values()])


def measure_transfer(records: Sequence[Record], size: int) -> dict[str, Estimate]:
    """How draws ranked on the reference image do on the other pictures.

    Returns:
      correlation: Spearman's, of the losses on both; share: of the gain among K draws, how much is
      left on the other picture; distance_db: the gain left there in image distance.
    """
    records = [record for record in records if record["others"]]
    found = np.reshape([_transfer_of(record, size) for record in records], (-1, 4))
    left_and_own = average_by_network(records, found[:, 1:3])
    return {
        "correlation": estimate(average_by_network(records, found[:, 0])),
        "share": estimate(
            jackknife(left_and_own, lambda pairs: pairs[:, 0].sum() / pairs[:, 1].sum())
        ),
        "distance_db": estimate(average_by_network(records, found[:, 3])),
    }


def _transfer_of(record: Record, size: int) -> np.ndarray:
    """Rank correlation, gain elsewhere, gain here, dB elsewhere: averaged over other pictures."""
    losses = record["losses"]
    own = gain(losses, np.log(losses), size)
    found = [
        (
            rank_correlation(losses, other["losses"]),
            gain(losses, np.log(other["losses"]), size),
            own,
            gain(losses, levels(other["distances"]), size),
        )
        for other in record["others"].values()
    ]
    return np.mean(found, axis=0)


def correlate_with_distance(record: Record) -> tuple[float, float]:
    """Spearman's ρ of image distance with ω L and with L, averaged over the record's pictures."""
    pictures = [record, *record["others"].values()]
    return tuple(
        float(np.mean([rank_correlation(found[name], found["distances"]) for found in pictures]))
        for name in ("losses", "raw_losses")
    )


def measure_ranking(records: Sequence[Record]) -> dict[str, Estimate]:
    """How well ω L and L rank draws by image distance, and by how much ω L does better."""
    pairs = [correlate_with_distance(record) for record in records]
    pairs = average_by_network(records, pairs).reshape(-1, 2)
    return {
        "normalized": estimate(pairs[:, 0]),
        "raw": estimate(pairs[:, 1]),
        "difference": estimate(pairs[:, 0] - pairs[:, 1]),
    }


def rank_of_race(record: Record) -> int:
    """The place, in the full selection, of the draw that the race kept: 1 is the winner's."""
    return 1 + sum(loss < record["losses"][record["race_draw"]] for loss in record["losses"])


def measure_race(records: Sequence[Record]) -> dict[str, Any]:
    """How often a race keeps the full selection's draw, and what it costs and saves.

    Returns:
      same: share of problems; rank: of its draw where it is another; excess: mean log loss of its
      draw above the winner's, over all problems; saved: the share of steps.
    """
    ranks = [rank_of_race(record) for record in records]
    excess = [
        math.log(record["losses"][record["race_draw"]] / min(record["losses"]))
        for record in records
    ]
    missed = [rank for rank in ranks if rank > 1]
    return {
        "same": estimate(average_by_network(records, np.equal(ranks, 1))),
        "rank": float(np.mean(missed)) if missed else math.nan,
        "excess": estimate(average_by_network(records, excess)),
        "saved": 1 - float(np.mean([record["race_share"] for record in records]))
        if records
        else math.nan,
    }


def measure_stacking(records: Sequence[Record]) -> dict[str, Estimate]:
    """What the choice of the layers below does for the same draws of the layer above.

    Returns:
      log_loss, distance_db: plain minus stacked, mean over draws; positive where stacking helps.
    """
    plain = {place_of(record): record for record in filter_records(records, below="plain")}
    stacked = [
        record for record in filter_records(records, below="stacked") if place_of(record) in plain
    ]

    def less(measure: Callable[[Record], np.ndarray]) -> Estimate:
        gains = [np.mean(measure(plain[place_of(r)]) - measure(r)) for r in stacked]
        return estimate(average_by_network(stacked, gains))

    return {
        "log_loss": less(lambda record: np.log(record["losses"])),
        "distance_db": less(lambda record: levels(record["distances"])),
    }


def place_of(record: Record) -> tuple[Any, ...]:
    """Which problem a record is about: its trial, whatever lies below the layer."""
    return tuple(value for name, value in record["trial"].items() if name != "below")


def summarize(settings: Any, records: Sequence[Record]) -> dict[str, Any]:
    """All findings, from the records alone; tied problems are listed and left out of the rest."""
    sizes = [size for size in SIZES if size <= settings.num_candidates]
    return {
        "sizes": sizes,
        "transfer_size": min(TRANSFER_SIZE, sizes[-1]),
        "offsets": {
            offset: _summarize_offset(
                filter_records(records, input_offset=offset, below="plain"), sizes
            )
            for offset in settings.input_offsets
        },
        "stacking": measure_stacking(distinct_problems(records)),
        "race": measure_race(distinct_problems(records)),
    }


def _summarize_offset(records: Sequence[Record], sizes: Sequence[int]) -> dict[str, Any]:
    untied = [record for record in records if not is_tied(record)]
    layers = list_values_of(untied, "layer")
    groups = {layer: filter_records(untied, layer=layer) for layer in layers}
    gains = {layer: measure_gains(group, sizes) for layer, group in groups.items()}

    by_layer = [record for group in groups.values() for record in group]

    def of_largest(name: str) -> np.ndarray:
        return np.array([network[-1] for found in gains.values() for network in found[name]])

    def average(values: np.ndarray) -> Estimate:
        return estimate(average_by_network(by_layer, values))

    return {
        "tied": dict(Counter(record["trial"]["layer"] for record in records if is_tied(record))),
        "gains": gains,
        "gain": average(of_largest("observed")),
        "gain_unpredicted": average(of_largest("observed") - of_largest("predicted")),
        "gain_db": average(of_largest("distance_db")),
        "best_gain_db": average(of_largest("best_distance_db")),
        "spread": measure_spread(list(groups.values())),
        "transfer": measure_transfer(untied, min(TRANSFER_SIZE, sizes[-1])),
        "ranking": measure_ranking(untied),
    }
