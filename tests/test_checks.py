"""A small share of `make soak`: kills at chosen moments, and damaged files of every kind."""

import json

import h5py
import numpy as np
import pytest

from checks import hostile, kills, versions
from randviz.host.animation import keep_frame, write_animation
from randviz.host.checkpoints import load_checkpoint
from randviz.host.records import Records
from randviz.types import UserError

_INPUTS = 20  # of each kind
_FEWER = {"mat": 8}  # each is read by a process of its own


@pytest.mark.parametrize("kind", hostile.KINDS)
def test_damaged_files_are_accepted_or_refused_in_a_sentence(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # flags are read where their file is
    box = hostile.Box(tmp_path / "box")
    tried = [hostile.try_input(kind, 1, number, box) for number in range(_FEWER.get(kind, _INPUTS))]
    assert [said for outcome, said in tried if outcome not in ("accepted", "refused")] == []
    # Damaged states and frames are done without; of the others some must be refused.
    assert kind in ("state", "frame") or "refused" in {outcome for outcome, _ in tried}


def test_what_hostile_code_would_do_is_seen(tmp_path):
    box = hostile.Box(tmp_path / "box")
    assert box.find_faults() == []
    exec(f"open({box.canary!r}, 'w').close()")
    assert box.find_faults() == ["executed"]
    (tmp_path / "box" / "escaped").touch()
    assert box.find_faults() == ["lost"]


def test_results_that_differ_or_are_missing_are_seen(tmp_path):
    (tmp_path / "out.png").write_bytes(b"a")
    (tmp_path / "run.json").write_text('{"seconds": 1.5, "loss": 2.0}')
    before = kills.read_results(tmp_path)
    (tmp_path / "run.json").write_text('{"seconds": 9.5, "loss": 2.0}')
    assert kills.read_results(tmp_path) == before
    (tmp_path / "out.png").write_bytes(b"b")
    assert kills.read_results(tmp_path) != before


@pytest.mark.slow
def test_killed_commands_end_with_the_undisturbed_result(tmp_path):
    report = kills.run_kills(tmp_path, seed=0, seconds=90, names=("invert", "select"))
    assert not report.faults
    assert len(report.kills) >= 3 and report.identical


def test_weights_that_promise_more_than_they_have_are_refused_before_memory_is_taken(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("conv1_1/kernel", (10**6, 10**6), "f4", chunks=(1, 1000))
    with (tmp_path / "b.npz").open("wb") as file:
        np.savez_compressed(file, kernel=np.zeros(2**25, np.float32))
    # A matrix in MATLAB's version 4: kind, rows, columns, not complex, length of the name.
    header = np.array([0, 10**6, 10**6, 0, 2], "<i4").tobytes()
    (tmp_path / "c.mat").write_bytes(header + b"a\0" + bytes(100))
    for name in ("a.h5", "b.npz", "c.mat"):
        with pytest.raises(UserError, match=r"says that it holds (\d+ bytes|far more) of tensors"):
            load_checkpoint(str(tmp_path / name), hostile.NETWORK)


def test_changed_records_are_found(tmp_path):
    Records(tmp_path, {"seed": 0}).append({"trial": {"a": 1}, "value": 0.5})
    records = Records(tmp_path, {"seed": 0})
    assert records.records == [{"trial": {"a": 1}, "value": 0.5}]
    records.append({"trial": {"a": 2}, "value": 0.25})
    path = tmp_path / "records.jsonl"
    first, second = path.read_text().splitlines()
    without = json.dumps({"trial": {"a": 1}, "value": 0.5})
    for damaged in (first.replace("0.5", "0.6"), without):
        path.write_text(f"{damaged}\n{second}\n")
        with pytest.raises(UserError, match="line 1 of .* is damaged"):
            Records(tmp_path, {"seed": 0})


def test_records_of_earlier_versions_are_read(tmp_path):
    (tmp_path / "run.json").write_text('{"seed": 0}')
    (tmp_path / "records.jsonl").write_text('{"trial": {"a": 1}, "value": 0.5}\n')
    assert len(Records(tmp_path, {"seed": 0}).records) == 1


def test_damaged_frames_are_left_out(tmp_path):
    image = np.full((8, 8, 3), 0.5)
    for step in range(2):
        keep_frame(tmp_path / "frames", step, image)
    (tmp_path / "frames" / "00000001.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match="00000001.png is left out"):
        write_animation(tmp_path / "run.gif", tmp_path / "frames", image)
    assert (tmp_path / "run.gif").exists()


def test_workers_answer():
    """As `make soak` tries inputs: in processes of their own, until there are enough."""
    report = hostile.run_inputs(seed=0, seconds=0, least=20, kinds=("png", "recipe"))
    assert report.outcomes.total() >= 20 and report.faults == []


def test_a_worker_that_cannot_begin_is_named(monkeypatch):
    monkeypatch.setattr(hostile.sys, "executable", "false")
    with pytest.raises(RuntimeError, match="-m checks.hostile 0 died before the first input"):
        hostile.run_inputs(seed=0, seconds=0, least=1, kinds=("png",))


def test_lowest_versions_are_those_of_the_requirements():
    assert versions.list_floors(["jax>=0.8,<1", "a-b[c]>=1.2.3"]) == ["jax==0.8", "a-b==1.2.3"]
    with pytest.raises(ValueError, match="'numpy' has no lower bound"):
        versions.list_floors(["numpy"])


@pytest.mark.parametrize(("kind", "number"), [("mat", 489), ("flags", 1081)])
def test_what_the_soak_found_is_refused(kind, number, tmp_path, monkeypatch):
    """Of seed 0: SciPy's reader dies of the one, absl recurses too deep over the other."""
    monkeypatch.chdir(tmp_path)
    outcome = hostile.try_input(kind, 0, number, hostile.Box(tmp_path / "box"))
    assert outcome == ("refused", "")
