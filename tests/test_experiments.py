"""Experiments as commands: rows kept, gone on with, and never mixed."""

import dataclasses
import json

import pytest

from randviz.experiments import claims
from randviz.experiments.command import Experiment, run_experiment
from randviz.host.settings import setting
from randviz.types import UserError


@dataclasses.dataclass(frozen=True)
class Settings:
    factor: int = setting(2, "What each number is multiplied by.")
    names: tuple[str, ...] = setting(("a", "b"), "Nothing; a tuple must survive JSON.")
    out_dir: str = setting("", "Where.")


class Bench:
    """An experiment whose measurements can be counted and made to fail."""

    def __init__(self, folder):
        self.folder, self.measured, self.drawn, self.broken = folder, [], None, None

    def measure(self, settings, cell):
        if cell["n"] == self.broken:
            raise UserError("broken.")
        self.measured.append(cell["n"])
        return {"product": settings.factor * cell["n"]}

    def draw(self, settings, rows, folder):
        self.drawn = [row["product"] for row in rows]

    def run(self, *words, count=4):
        cells = [{"n": n} for n in range(count)]
        experiment = Experiment("bench", Settings, lambda s: cells, self.measure, self.draw)
        return run_experiment(experiment, [f"--out_dir={self.folder}", *words], "Doc.")


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path / "out")


def test_all_cells_are_measured_once_and_drawn_in_order(bench):
    assert bench.run() == 0 and bench.run() == 0
    assert bench.measured == [0, 1, 2, 3] and bench.drawn == [0, 2, 4, 6]


def test_a_broken_experiment_goes_on_after_its_last_good_row(bench, capsys):
    bench.broken = 2
    assert bench.run() == 2
    bench.broken = None
    path = bench.folder / "rows.jsonl"
    path.write_text(path.read_text() + '{"cell": {"n": 2}, "prod')  # killed while writing
    assert bench.run() == 0
    assert bench.measured == [0, 1, 2, 3] and bench.drawn == [0, 2, 4, 6]
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_rows_of_other_settings_are_refused_and_untouched(bench, capsys):
    assert bench.run() == 0
    before = (bench.folder / "rows.jsonl").read_bytes()
    assert bench.run("--factor=3") == 2
    assert "other settings" in capsys.readouterr().err
    assert (bench.folder / "rows.jsonl").read_bytes() == before
    (bench.folder / "run.json").write_text("")
    assert bench.run() == 2


def test_a_mistake_before_the_first_row_leaves_the_folder_free(bench):
    bench.broken = 0
    assert bench.run("--factor=9") == 2
    bench.broken = None
    assert bench.run() == 0


def test_rows_that_were_not_asked_for_are_drawn_too_and_last(bench):
    assert bench.run(count=4) == 0 and bench.run(count=2) == 0
    assert bench.measured == [0, 1, 2, 3] and bench.drawn == [0, 2, 4, 6]


def test_rows_of_two_files_of_weights_are_not_mixed(bench, capsys):
    measure = bench.measure
    bench.measure = lambda s, cell: {**measure(s, cell), "weights_sha256": str(cell["n"] // 2)}
    assert bench.run(count=2) == 0
    assert bench.run(count=4) == 2
    assert "2 files of trained weights" in capsys.readouterr().err


def test_claims_are_written_with_their_verdicts(bench):
    def judge(settings, rows):
        units = [-float(row["product"]) for row in rows]
        return [claims.judge("less", units, below=1.0, figure="f", measure="m", groups=("a",))]

    cells = [{"n": n} for n in range(7)]
    experiment = Experiment("bench", Settings, lambda s: cells, bench.measure, bench.draw, judge)
    assert run_experiment(experiment, [f"--out_dir={bench.folder}"], "Doc.") == 0
    (claim,) = json.loads((bench.folder / "claims.json").read_text())["claims"]
    assert claim["verdict"] == "supported" and claim["n"] == 7 and claim["effect"] == -6.0
