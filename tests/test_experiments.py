"""Studies: records kept, gone on with, and never mixed."""

import dataclasses
import json

import pytest

from randviz.experiments import claims
from randviz.host.settings import CommandSettings, run_command, setting
from randviz.host.study import Study, one_by_one, run_study
from randviz.types import UserError


@dataclasses.dataclass(frozen=True)
class Settings(CommandSettings):
    factor: int = setting(2, "What each number is multiplied by.")
    names: tuple[str, ...] = setting(("a", "b"), "Nothing; a tuple must survive JSON.")


class Bench:
    """A study whose measurements can be counted and made to fail."""

    def __init__(self, folder):
        self.folder, self.measured, self.plotted, self.broken = folder, [], None, None

    def measure(self, settings, trial):
        if trial["n"] == self.broken:
            raise UserError("broken.")
        self.measured.append(trial["n"])
        return {"product": settings.factor * trial["n"]}

    def plot(self, settings, records, folder):
        self.plotted = [record["product"] for record in records]

    def run(self, *args, count=4, **parts):
        trials = [{"n": n} for n in range(count)]
        parts = {"measure": one_by_one(self.measure), **parts}
        study = Study("bench", lambda settings: trials, plot=self.plot, **parts)
        run = lambda settings: run_study(study, settings)
        return run_command("bench", Settings, run, [f"--out_dir={self.folder}", *args], "Doc.")


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path / "out")


def test_all_trials_are_measured_once_and_plotted_in_order(bench):
    assert bench.run() == 0 and bench.run() == 0
    assert bench.measured == [0, 1, 2, 3] and bench.plotted == [0, 2, 4, 6]


def test_a_broken_study_goes_on_after_its_last_good_record(bench, capsys):
    bench.broken = 2
    assert bench.run() == 2
    bench.broken = None
    path = bench.folder / "records.jsonl"
    path.write_text(path.read_text() + '{"trial": {"n": 2}, "prod')  # killed while writing
    assert bench.run() == 0
    assert bench.measured == [0, 1, 2, 3] and bench.plotted == [0, 2, 4, 6]
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_records_of_other_settings_are_refused_and_untouched(bench, capsys):
    assert bench.run() == 0
    before = (bench.folder / "records.jsonl").read_bytes()
    assert bench.run("--factor=3") == 2
    assert "other settings" in capsys.readouterr().err
    assert (bench.folder / "records.jsonl").read_bytes() == before
    (bench.folder / "run.json").write_text("")
    assert bench.run() == 2


def test_a_mistake_before_the_first_record_leaves_the_folder_free(bench):
    bench.broken = 0
    assert bench.run("--factor=9") == 2
    bench.broken = None
    assert bench.run() == 0


def test_records_that_were_not_asked_for_are_plotted_too_and_last(bench):
    assert bench.run(count=4) == 0 and bench.run(count=2) == 0
    assert bench.measured == [0, 1, 2, 3] and bench.plotted == [0, 2, 4, 6]


def test_records_of_two_files_of_weights_are_not_mixed(bench, capsys):
    measure = bench.measure
    bench.measure = lambda s, trial: {
        **measure(s, trial), "weights_sha256": str(trial["n"] // 2)
    }  # fmt: skip
    assert bench.run(count=2) == 0
    assert bench.run(count=4) == 2
    assert "2 files of trained weights" in capsys.readouterr().err


def test_what_records_depend_on_beside_the_settings_is_compared_too(bench, capsys):
    assert bench.run(describe=lambda settings: {"pictures": {"a": "1"}}) == 0
    assert bench.run(describe=lambda settings: {"pictures": {"a": "2"}}) == 2
    assert "other settings (a; see" in capsys.readouterr().err


def test_batches_are_measured_together_and_see_the_records_before(bench, capsys):
    seen = []

    def measure(settings, trials, records):
        seen.append((len(trials), len(records)))
        return [{"product": trial["n"]} for trial in trials]

    pairs = lambda settings, trials: [trials[i : i + 2] for i in range(0, len(trials), 2)]
    assert bench.run(count=5, measure=measure, list_batches=pairs) == 0
    assert seen == [(2, 0), (2, 2), (1, 4)] and bench.plotted == [0, 1, 2, 3, 4]
    assert "trial 5/5" in capsys.readouterr().err


def test_an_interruption_keeps_what_was_measured(bench, capsys):
    def measure(settings, trial):
        if trial["n"] == 2:
            raise KeyboardInterrupt
        return {"product": trial["n"]}

    assert bench.run(measure=one_by_one(measure)) == 130
    assert "goes on after the last record" in capsys.readouterr().err
    assert bench.run() == 0 and bench.measured == [2, 3]


def test_claims_are_written_with_their_verdicts(bench):
    def judge(settings, records):
        units = [-float(record["product"]) for record in records]
        sentence = claims.Sentence("a", units, "pictures", "m", ("a",), below=1.0)
        return claims.judge_together("f", [sentence])

    assert bench.run(count=11, judge=judge) == 0
    (claim,) = json.loads((bench.folder / "claims.json").read_text())["claims"]
    assert claim["verdict"] == "supported" and claim["n"] == 11 and claim["effect"] == -10.0
