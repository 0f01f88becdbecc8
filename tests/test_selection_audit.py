"""The selection audit: statistics against closed forms, and verdicts on known answers."""

import itertools
import json
import math

import numpy as np
import pytest
import scipy.stats

from randviz.experiments import selection_audit as audit
from randviz.experiments import selection_statistics as statistics
from randviz.host.settings import parse_flags

DRAWS = 16
RNG = np.random.default_rng(5)


def make_records(relate, *, networks=10, copy_others=True, stacked_shift=0.0):
    """Records in which distances are `relate(log losses)`, and other pictures agree or do not."""
    rng = np.random.default_rng(0)
    records = []
    for seed, layer in itertools.product(range(networks), ("conv2_1", "conv3_1")):
        logs = rng.normal(size=DRAWS)
        elsewhere = logs if copy_others else rng.normal(size=DRAWS)
        numbers = lambda logs: {
            "losses": np.exp(logs).tolist(),
            "raw_losses": np.exp(rng.normal(size=DRAWS)).tolist(),
            "distances": np.exp(relate(logs, rng)).tolist(),
        }
        trial = {"seed": seed, "input_offset": "0", "layer": layer}
        common = {"race_draw": int(np.argmin(logs)), "race_share": 0.5}
        plain = {"draws_below": [0], **numbers(logs), **common}
        stacked = {"draws_below": [3], **numbers(logs - stacked_shift), **common, "others": {}}
        records.append(
            {"trial": {**trial, "below": "plain"}, **plain, "others": {"o": numbers(elsewhere)}}
        )
        records.append({"trial": {**trial, "below": "stacked"}, **stacked})
    return records


def settings_for(records, folder="."):
    return audit.Settings(
        layers=("conv1_1", "conv2_1", "conv3_1"),
        input_offsets=("0",),
        num_networks=len({record["trial"]["seed"] for record in records}),
        out_dir=str(folder),
    )


def plotted(records, folder, capsys):
    """The paragraph and the JSON object that `plot` prints."""
    audit.plot(settings_for(records), records, folder)
    *_, paragraph, last = capsys.readouterr().out.splitlines()
    assert (folder / "audit.png").stat().st_size > 10_000
    assert " ".join((folder / "verdict.md").read_text().split()).find(paragraph[:60]) > 0
    return paragraph, json.loads(last)


FOLLOWS = lambda logs, rng: logs
UNRELATED = lambda logs, rng: rng.normal(size=len(logs))


@pytest.mark.parametrize("size", [1, 2, 5, 16])
def test_the_mean_over_all_subsets_is_that_of_trying_them(size):
    losses, values = RNG.integers(0, 6, 7), RNG.normal(size=7)  # with ties
    size = min(size, 7)
    tried = [
        values[min(subset, key=lambda i: (losses[i], i))]
        for subset in itertools.combinations(range(7), size)
    ]
    assert statistics.expected_best(losses, values, size) == pytest.approx(np.mean(tried))


@pytest.mark.parametrize("size", statistics.SIZES)
def test_the_prediction_is_the_closed_form(size):
    grid = (np.arange(20_000) + 0.5) / 20_000
    assert statistics.predict_best(grid, size) == pytest.approx(1 / (size + 1), abs=1e-4)
    assert statistics.predict_best(-np.log(grid), size) == pytest.approx(1 / size, abs=2e-3)
    pool = RNG.normal(size=9)
    tried = RNG.choice(pool, (100_000, size)).min(axis=1)
    assert statistics.predict_best(pool, size) == pytest.approx(tried.mean(), abs=0.02)


def test_gains_of_alike_networks_are_those_predicted():
    rng = np.random.default_rng(1)
    losses = np.exp(rng.normal(size=(200, DRAWS)))
    records = [{"losses": record.tolist(), "distances": record.tolist()} for record in losses]
    observed = np.mean(
        [statistics.gain(record["losses"], np.log(record["losses"]), 16) for record in records]
    )
    predicted = statistics.predicted_gain(records, 16)
    assert observed == pytest.approx(1.766, abs=0.1)  # of 16 standard Gaussians
    assert predicted == pytest.approx(1.766, abs=0.1)
    assert statistics.predicted_gain(records, 1) == pytest.approx(0, abs=1e-9)


def test_a_network_does_not_predict_itself():
    records = make_records(FOLLOWS)[::4]  # one layer
    found = statistics.measure_gains(records, [1, 8])
    spread = [{**records[0], "losses": np.power(records[0]["losses"], 9.0).tolist()}, *records[1:]]
    changed = statistics.measure_gains(spread, [1, 8])
    assert changed["predicted"][0] == found["predicted"][0]
    assert changed["observed"][0][1] == pytest.approx(9 * found["observed"][0][1])
    assert math.isnan(statistics.measure_gains(records[:1], [2])["predicted"][0][0])


def test_rank_correlation_is_scipys_and_unknown_for_constants():
    a, b = RNG.integers(0, 5, 20).tolist(), RNG.normal(size=20).tolist()
    ranks = scipy.stats.rankdata
    assert statistics.rank_correlation(a, b) == pytest.approx(np.corrcoef(ranks(a), ranks(b))[0, 1])
    assert statistics.rank_correlation(a, b) == pytest.approx(scipy.stats.spearmanr(a, b).statistic)
    assert math.isnan(statistics.rank_correlation([1.0] * 20, b))


def test_a_networks_layers_are_averaged_first():
    records = [{"trial": {"seed": seed}} for seed in (0, 1, 0, 1)]
    found = statistics.average_by_network(records, [1.0, 2.0, 3.0, math.nan])
    assert found.tolist() == [2, 2]
    assert statistics.average_by_network([], []).size == 0


def test_verdict_where_distance_and_other_pictures_follow_the_loss(tmp_path, capsys):
    records = make_records(FOLLOWS, stacked_shift=0.4)
    paragraph, found = plotted(records, tmp_path, capsys)
    zero = found["offsets"]["0"]
    assert zero["ranking"]["normalized"]["value"] == pytest.approx(1)
    assert zero["ranking"]["difference"]["low"] > 0 and "compared with L: better" in paragraph
    assert zero["transfer"]["share"]["value"] == pytest.approx(1)
    assert "other pictures: alike" in paragraph
    assert zero["gain_db"]["value"] == pytest.approx(zero["best_gain_db"]["value"])
    assert found["stacking"]["log_loss"]["value"] == pytest.approx(0.4)
    assert found["stacking"]["log_loss"]["n"] == 10  # networks, not layers of networks
    assert "log loss: better" in paragraph
    assert found["race"]["same"]["value"] == 1 and found["race"]["saved"] == 0.5


def test_verdict_flips_where_nothing_follows_the_loss(tmp_path, capsys):
    paragraph, found = plotted(
        make_records(UNRELATED, networks=12, copy_others=False), tmp_path, capsys
    )
    zero = found["offsets"]["0"]
    assert abs(zero["ranking"]["normalized"]["value"]) < 0.25
    assert "compared with L: neither" in paragraph and "not certainly related" in paragraph
    assert abs(zero["transfer"]["share"]["value"]) < 0.4
    assert zero["gain_db"]["value"] < 0.5 * zero["best_gain_db"]["value"]
    assert "image distance, dB: neither" in paragraph


def test_ties_are_reported_and_counted_nowhere_else(tmp_path, capsys):
    records = make_records(FOLLOWS)
    _, before = plotted(records, tmp_path, capsys)
    tied = {
        **records[0],
        "trial": {**records[0]["trial"], "layer": "conv1_1"},
        "losses": [1e-10] * DRAWS,
    }
    paragraph, after = plotted([tied, *records], tmp_path, capsys)
    assert "At conv1_1 all draws tie, at the resolution of float32 (networks: 1)" in paragraph
    assert after["offsets"]["0"].pop("tied") == {"conv1_1": 1}
    assert before["offsets"]["0"].pop("tied") == {}
    assert after == before


def test_few_problems_get_no_verdict(tmp_path, capsys):
    paragraph, found = plotted(make_records(FOLLOWS, networks=1), tmp_path, capsys)
    assert paragraph.count("a verdict takes 10") == 5
    assert found["offsets"]["0"]["gain_unpredicted"]["value"] is None
    paragraph, _ = plotted([], tmp_path, capsys)
    assert "no measurements" in paragraph


def test_a_race_is_judged_by_the_full_selection():
    records = make_records(FOLLOWS)
    second = int(np.argsort(records[0]["losses"])[1])
    records[0] = {**records[0], "race_draw": second}
    found = statistics.measure_race(records)
    assert found["same"].value == pytest.approx(1 - 1 / len(records)) and found["rank"] == 2
    lost = math.log(records[0]["losses"][second] / min(records[0]["losses"]))
    assert found["excess"].value == pytest.approx(lost / len(records))


def test_a_copy_of_a_plain_network_is_no_second_problem():
    records = make_records(FOLLOWS)
    copies = [{**record, "draws_below": [0]} for record in records]
    found = statistics.summarize(settings_for(records), copies)
    assert found["race"]["same"].n == 10 and found["stacking"]["log_loss"].n == 0


def test_its_flag_file_parses_and_its_trials_are_distinct():
    words = ["--flagfile=experiments/selection_audit.flags"]
    found = audit.list_trials(parse_flags(audit.Settings, words))
    assert len({json.dumps(trial) for trial in found}) == len(found) == 33
    assert not any(c["below"] == "stacked" and c["layer"] == "conv1_1" for c in found)


@pytest.mark.slow
def test_a_small_audit_runs_from_end_to_end_and_starts_again(tmp_path, capsys):
    words = [
        f"--out_dir={tmp_path}", "--image_size=12", "--layers=conv1_1,conv2_1", "--num_networks=1",
        "--num_candidates=3", "--num_below=2", "--num_steps=4", "--input_offsets=0",
    ]  # fmt: skip
    assert audit.main(words) == 0
    first = capsys.readouterr().out.splitlines()
    records = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    assert [record["trial"]["below"] for record in records] == ["plain", "plain", "stacked"]
    assert all(len(record["losses"]) == 3 and 0 < record["race_share"] <= 1 for record in records)
    assert audit.main(words) == 0
    assert capsys.readouterr().out.splitlines()[-1] == first[-1]
