"""Workers: every trial once, the records of one process, and no worker that outlives its work."""

import json
import os
import signal
import subprocess
import sys
import time

import jax
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from randviz.host import programs
from randviz.host.study import run_module
from randviz.host.workers import _Shares, list_cores

STUDY = '''
"""A study of numbers."""

import dataclasses
import os
import signal
import time

from randviz.host.settings import setting
from randviz.host.workers import WorkerSettings
from randviz.types import UserError


@dataclasses.dataclass(frozen=True)
class Settings(WorkerSettings):
    count: int = setting(6, "How many.")
    factors: tuple[str, ...] = setting(("2", "3"), "A tuple, which must arrive as one.")
    fault: str = setting("", "What happens at the last trial.")


def list_trials(settings):
    return [{"n": n} for n in range(settings.count)]


def measure(settings, trial):
    print("what a library prints")
    if trial["n"] == 2:
        open("third", "w")  # the two before have been answered
    if trial["n"] == settings.count - 1:
        if settings.fault == "mistake":
            while not os.path.exists("third"):
                time.sleep(0.01)
            raise UserError("broken.")
        if settings.fault == "bug":
            raise KeyError("broken")
        if settings.fault.startswith("SIG"):
            os.kill(os.getpid(), getattr(signal, settings.fault))
    if settings.fault == "endless":
        print("begun", file=open(f"begun_{trial['n']}", "w"))
        time.sleep(600)
    if settings.fault == "garbage":
        os.write(3, b"no answer")
        os.close(3)
    hash(settings)  # as a cache does
    return {"product": trial["n"] * int(settings.factors[1]), "process": os.getpid()}


def plot(settings, records, folder):
    (folder / "order").write_text(" ".join(str(record["trial"]["n"]) for record in records))


describe = lambda settings: {"name": "numbers"}
'''


@pytest.fixture
def run(tmp_path, monkeypatch):
    (tmp_path / "numbers_study.py").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "numbers_study", raising=False)
    import numbers_study

    return lambda *words: run_module(numbers_study, ["--num_workers=2", "--out_dir=out", *words])


pytestmark = pytest.mark.skipif(
    len(list_cores()) < 2 or jax.default_backend() != "cpu", reason="no two cores to share"
)


def read_records():
    return [json.loads(line) for line in open("out/records.jsonl")]


def test_two_workers_measure_each_trial_once_and_it_is_plotted_in_order(run, capfd):
    assert run() == 0
    records = read_records()
    assert sorted(record["product"] for record in records) == [0, 3, 6, 9, 12, 15]
    assert len({record["process"] for record in records} - {os.getpid()}) == 2
    assert open("out/order").read() == "0 1 2 3 4 5"
    # One process goes on where two ended, and finds nothing to do.
    assert run("--num_workers=1") == 0 and read_records() == records
    assert "what a library prints" not in capfd.readouterr().out


def test_a_mistake_in_a_worker_is_said_and_what_others_measured_is_kept(run, capfd):
    assert run("--fault=mistake") == 2
    assert "broken." in capfd.readouterr().err
    assert {record["trial"]["n"] for record in read_records()} >= {0, 1}
    assert not psutil.Process().children()


def test_a_killed_worker_is_said(run, capfd):
    assert run("--fault=SIGKILL", "--count=1") == 2
    assert "a worker was killed by SIGKILL, perhaps because memory ran" in capfd.readouterr().err


@pytest.mark.parametrize("fault", ["bug", "SIGSEGV", "garbage"])
def test_a_fault_of_the_program_is_a_fault_here_too(run, capfd, fault):
    with pytest.raises(RuntimeError, match="a worker failed with code"):
        run(f"--fault={fault}", "--count=1")
    if fault == "bug":
        assert "KeyError: 'broken'" in capfd.readouterr().err


def test_what_is_timed_is_measured_alone_in_this_process(run, monkeypatch):
    import numbers_study

    monkeypatch.setattr(numbers_study, "is_timed", lambda trial: trial["n"] == 1, raising=False)
    assert run("--count=2") == 0
    first, second = read_records()
    assert (first["trial"]["n"], first["process"]) == (1, os.getpid()) != second["process"]


def test_workers_end_with_the_process_that_started_them(run, tmp_path):
    words = "import numbers_study as s, sys; from randviz.host.study import run_module;"
    words += "run_module(s, sys.argv[1:])"
    parent = subprocess.Popen(
        [sys.executable, "-c", words, "--num_workers=2", "--fault=endless", "--out_dir=out"],
        cwd=tmp_path,
    )
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("begun_*"))) < 2:
        assert time.monotonic() < deadline and parent.poll() is None
        time.sleep(0.1)
    workers = psutil.Process(parent.pid).children()
    assert len(workers) == 2
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--num_workers=999"], "--num_workers=999 is more than this process has cores"),
        (["--num_workers=0"], "num_workers"),
    ],
)
def test_wrong_numbers_of_workers_are_said(run, words, said, capsys):
    assert run(*words) == 2
    assert said in capsys.readouterr().err


@given(st.integers(1, 40), st.integers(1, 8), st.randoms())
def test_each_job_is_given_once_and_neighbours_stay_together(count, num_workers, random):
    shares = _Shares(range(count), num_workers)
    given_jobs, working, last, jumps = [], set(range(num_workers)), {}, 0
    while working:
        worker = random.choice(sorted(working))
        try:
            job = shares.take(worker)
        except IndexError:
            working.remove(worker)
            continue
        jumps += job != last.get(worker, -2) + 1
        last[worker] = job
        given_jobs.append(job)
    assert sorted(given_jobs) == list(range(count))
    # Each first job, and each time that a share is halved.
    assert jumps <= num_workers * (2 + count.bit_length())


@pytest.mark.parametrize(("count", "is_released"), [(4, False), (6, True)])
def test_programs_are_let_go_of_before_mappings_run_out(tmp_path, monkeypatch, count, is_released):
    (tmp_path / "sys/vm").mkdir(parents=True)
    (tmp_path / "sys/vm/max_map_count").write_text("10\n")
    (tmp_path / "self").mkdir()
    (tmp_path / "self/maps").write_text("a mapping\n" * count)
    monkeypatch.setattr(programs, "_PROCESS", tmp_path)
    released = []
    monkeypatch.setattr(programs.jax, "clear_caches", lambda: released.append(True))
    programs.release_programs()
    assert bool(released) is is_released
    (tmp_path / "self/maps").unlink()  # as where there is no such limit
    programs.release_programs()
