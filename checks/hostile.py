"""Feeds damaged and hostile files to the functions that read them.

Workers make the inputs from a seed and their numbers and read them in their own process, whose
memory is bounded; whoever takes too long, or dies, is replaced. An input may be accepted or refused
with a `UserError`. Anything else is a fault.

Example:
  python -m checks.hostile png 0 17      (what becomes of input 17 of seed 0, with its traceback)
"""

import collections
import concurrent.futures
import contextlib
import functools
import importlib.util
import itertools
import json
import os
import pathlib
import queue
import random
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from checks.good_files import NETWORK, make_files
from checks.kills import ROOT, Fault
from checks.mutations import mutate, mutate_bytes, mutate_json
from randviz.commands import invert, style
from randviz.commands.inputs import load_picture
from randviz.commands.network_choice import choose_network
from randviz.descent.descent import find_solver
from randviz.host import runs
from randviz.host.animation import keep_frame, write_animation
from randviz.host.checkpoints import load_checkpoint
from randviz.host.records import Records
from randviz.host.runs import Stage, checkpoint_folder, delete_checkpoint, descend
from randviz.host.settings import parse_flags
from randviz.types import UserError

_BATCH = 200  # inputs of a kind at a time
_LONGEST = 60.0  # seconds for one input
_MEMORY = 6 * 2**30  # bytes that an input may take
_PICTURES = ("png", "jpg", "webp", "gif", "bmp", "tif")
# Only torch can write a .pth, and the package does without it.
_PTH = ("pth",) if importlib.util.find_spec("torch") else ()
_WEIGHTS = ("h5", "safetensors", "npz", *_PTH, "mat")


class Report(NamedTuple):
    """What became of the inputs.

    Attributes:
      outcomes: how many of (kind, outcome); outcomes are "accepted", "refused" and the faults'.
      faults: "tracebacks", "executed" and "lost".
    """

    outcomes: collections.Counter
    faults: list[Fault]


class Box:
    """A folder for one input at a time.

    Attributes:
      inside: where inputs lie and outputs go.
      canary: a file that hostile code would write.
    """

    def __init__(self, folder: pathlib.Path):
        self._folder = folder
        self.inside, self._guard = folder / "inside", folder / "guard"
        self.canary = str(self._guard / "canary")
        self._guard.mkdir(parents=True, exist_ok=True)
        (self._guard / "precious").write_text("precious")
        self.clear()

    def clear(self) -> None:
        """Empties the inside."""
        shutil.rmtree(self.inside, ignore_errors=True)
        self.inside.mkdir()

    def write(self, name: str, data: bytes) -> str:
        """Writes an input; returns its path."""
        path = self.inside / name
        path.write_bytes(data)
        return str(path)

    def find_faults(self) -> list[str]:
        """The kinds of faults that are to be seen outside."""
        guarded = {path.name: path.read_text() for path in self._guard.iterdir()}
        if "canary" in guarded:
            pathlib.Path(self.canary).unlink()
            return ["executed"]
        intact = guarded == {"precious": "precious"} and len(list(self._folder.iterdir())) == 2
        return [] if intact else ["lost"]


def _keep_whole(read: Callable, data: bytes, path: str) -> list[str]:
    """Reads an input and looks whether it is still there."""
    try:
        read(path)
    finally:
        if pathlib.Path(path).read_bytes() != data:
            raise AssertionError("the input was changed")


def _read_picture(path):
    load_picture("image", path, 32)


def _read_mask(path):
    settings = style.Settings(style_image=("hubble",), style_masks=(path,))
    style.load_masks(settings, (12, 16))


def _read_weights(path):
    load_checkpoint(path, NETWORK)


def _read_recipe(path):
    choose_network(invert.Settings(network=path)).sample("conv1_1")


def _read_flags(path):
    os.chdir(os.path.dirname(path))
    parse_flags(invert.Settings, [f"--flagfile={path}"])


_METADATA = {"study": "soak", "settings": {"seed": 1, "image": ["chelsea"], "scale": 0.015}}


def _try_records(kind: str, rng: random.Random, box: Box) -> None:
    """A study's folder with one of its two files damaged."""
    records = Records(box.inside, _METADATA)
    for number in range(4):
        records.append({"trial": {"number": number, "layer": "pool1"}, "value": 0.5, "all": [1, 2]})
    path = box.inside / ("run.json" if kind == "run record" else "records.jsonl")
    if kind == "run record":
        damaged = mutate(kind, [path.read_bytes()], rng, box.canary)
    else:
        lines = path.read_bytes().splitlines(keepends=True)
        at = rng.randrange(len(lines))
        if rng.random() < 0.5:
            lines[at] = mutate_json(lines[at], rng) + b"\n"
        damaged = mutate_bytes(b"".join(lines), rng) if rng.random() < 0.7 else b"".join(lines)
    path.write_bytes(damaged)
    before = (box.inside / "records.jsonl").read_bytes().splitlines()
    try:
        found = Records(box.inside, _METADATA).records
        if not all(record["value"] == 0.5 and record["all"] == [1, 2] for record in found):
            raise AssertionError(f"damaged records are taken for good ones: {found}")
    finally:
        after = (box.inside / "records.jsonl").read_bytes().splitlines()
        if len(after) < len(before) - 1 or after != before[: len(after)]:
            raise AssertionError(f"of {len(before)} records {len(after)} are left")


@functools.cache
def _plan_descent():
    """A descent that is compiled once for a worker."""
    target = jnp.full((8, 8, 3), 0.3)
    return [Stage(lambda: jax.tree_util.Partial(_measure, target), (8, 8), 6)], target / 2


def _measure(target, image):
    return jnp.sum((image - target) ** 2)


def _descend(folder):
    stages, start = _plan_descent()
    return descend(stages, start, folder=folder, metadata="soak", solver=find_solver("adam"))


@functools.cache
def _keep_state() -> tuple[tempfile.TemporaryDirectory, np.ndarray]:
    """A folder with the last two states of a descent, and its result."""
    runs._SAVE_SECONDS = runs._CHUNK_SECONDS = 0.0  # so that there are two states
    folder = tempfile.TemporaryDirectory()
    return folder, np.asarray(_descend(pathlib.Path(folder.name)).image)


def _try_state(kind: str, rng: random.Random, box: Box) -> None:
    """A run's folder with one file of its state damaged."""
    folder, expected = _keep_state()
    shutil.copytree(folder.name, box.inside, dirs_exist_ok=True)
    paths = [path for path in sorted(box.inside.rglob("*")) if path.is_file()]
    path = rng.choice(paths)
    data = path.read_bytes()
    what = rng.random()
    if what < 0.1:
        path.unlink()
        path.mkdir()
    elif what < 0.2:
        shutil.rmtree(rng.choice([path.parent, checkpoint_folder(box.inside, "soak")]))
    elif what < 0.5 and data[:1] == b"{":
        path.write_bytes(mutate_json(data, rng))
    else:
        path.write_bytes(mutate_bytes(data, rng))
    with contextlib.redirect_stderr(None):
        found = np.asarray(_descend(box.inside).image)
    if not np.array_equal(found, expected):
        raise AssertionError("another image than the undisturbed run's")
    delete_checkpoint(box.inside, "soak")


def _try_frame(kind: str, rng: random.Random, box: Box) -> None:
    """An animation with one of its frames damaged."""
    frames = box.inside / "frames"
    for step in range(3):
        keep_frame(frames, step, np.full((8, 8, 3), 0.5))
    path = frames / "00000001.png"
    path.write_bytes(mutate("png", [path.read_bytes()], rng, box.canary))
    write_animation(box.inside / "run.gif", frames, np.full((8, 8, 3), 0.5))


def _try_file(kind: str, rng: random.Random, box: Box) -> None:
    """A damaged file of one kind, given to what reads it."""
    read = _read_mask if kind == "mask" else _READERS[kind]
    made = rng.choice(_PICTURES) if kind == "mask" else kind
    data = mutate(made, _make_files(made), rng, box.canary)
    _keep_whole(read, data, box.write(f"in.{made}", data))


@functools.cache
def _make_files(kind):
    with tempfile.TemporaryDirectory() as folder:
        return make_files(kind, pathlib.Path(folder))


_READERS = {
    **dict.fromkeys(_PICTURES, _read_picture),
    **dict.fromkeys(_WEIGHTS, _read_weights),
    "recipe": _read_recipe,
    "flags": _read_flags,
}
_TRIES = {
    **dict.fromkeys((*_READERS, "mask"), _try_file),
    **dict.fromkeys(("records", "run record"), _try_records),
    "state": _try_state,
    "frame": _try_frame,
}
KINDS = tuple(_TRIES)


def try_input(kind: str, seed: int, number: int, box: Box) -> tuple[str, str]:
    """Makes one input and reads it.

    Args:
      kind: in `KINDS`.
      seed: of all inputs.
      number: of this one.
      box: where.

    Returns:
      The outcome, and for a fault its last line.
    """
    rng = random.Random(f"{seed} {kind} {number}")
    box.clear()
    outcome, said = "accepted", ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _TRIES[kind](kind, rng, box)
    except UserError as error:
        outcome = "refused"
        if "\n" in str(error) or len(str(error)) > 1500:
            outcome, said = "tracebacks", f"not one sentence: {str(error)[:300]}"
    except BaseException as error:
        lost = isinstance(error, AssertionError)
        outcome, said = "lost" if lost else "tracebacks", traceback.format_exc()
    for fault in box.find_faults():
        outcome = fault
    return outcome, said


def run_inputs(
    *, seed: int, seconds: float, least: int = 0, kinds: Sequence[str] = KINDS
) -> Report:
    """Tries inputs of all kinds in turn, in two workers.

    Args:
      seed: of all inputs.
      seconds: after which no batch begins, unless there were too few inputs.
      least: inputs to be tried all the same.
      kinds: in `KINDS`.
    """
    deadline = time.monotonic() + seconds
    report = Report(collections.Counter(), [])
    jobs = ((kind, first) for first in range(0, 10**9, _BATCH) for kind in kinds)
    lock = threading.Lock()

    def work() -> None:
        with _Worker(seed) as worker:
            while time.monotonic() < deadline or report.outcomes.total() < least:
                with lock:
                    kind, first = next(jobs)
                for number in range(first, first + _BATCH):
                    if time.monotonic() > deadline and report.outcomes.total() >= least:
                        break
                    outcome, said = worker.ask(kind, number)
                    with lock:
                        report.outcomes[kind, outcome] += 1
                        if outcome not in ("accepted", "refused"):
                            place = f"python -m checks.hostile {kind!r} {seed} {number}"
                            report.faults.append(Fault(outcome, f"{place}: {said[-300:]}"))

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(work) for _ in range(2)]:
            future.result()
    return report


def print_report(report: Report) -> None:
    """Prints a table of the inputs, a line for each kind, and the faults."""
    print("| kind | inputs | refused | accepted | faults |\n|---|---|---|---|---|")
    for kind in KINDS:
        found = {outcome: n for (of, outcome), n in report.outcomes.items() if of == kind}
        refused, accepted = found.pop("refused", 0), found.pop("accepted", 0)
        others = sum(found.values())
        print(f"| {kind} | {refused + accepted + others} | {refused} | {accepted} | {others} |")
    for fault in report.faults:
        print(f"{fault.kind}: {fault.text}")


class _Worker:
    """A process that tries inputs, and its successors."""

    def __init__(self, seed: int):
        self._seed, self._process = seed, None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._end()

    def ask(self, kind: str, number: int) -> tuple[str, str]:
        if self._process is None:
            self._start()
        self._process.stdin.write(f"{json.dumps([kind, number])}\n")
        self._process.stdin.flush()
        try:
            line = self._answers.get(timeout=_LONGEST)
        except queue.Empty:
            line = None
        if line:
            return tuple(json.loads(line))
        status = self._process.poll()
        self._end()
        died = f"died with {status}" if status is not None else f"no answer in {_LONGEST} s"
        return "tracebacks", died

    def _start(self):
        words = [sys.executable, "-m", "checks.hostile", str(self._seed)]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            words,
            env=env,
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._answers = queue.Queue()
        read = lambda lines, answers: [answers.put(line) for line in itertools.chain(lines, [""])]
        arguments = (self._process.stdout, self._answers)
        threading.Thread(target=read, args=arguments, daemon=True).start()
        if not self._answers.get(timeout=10 * _LONGEST):  # it has begun
            raise RuntimeError(f"{shlex.join(words[1:])} died before the first input")

    def _end(self):
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None


def _answer(seed: int) -> None:
    """Tries the inputs that are asked for on standard input."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    with tempfile.TemporaryDirectory() as folder:
        box = Box(pathlib.Path(folder) / "box")
        _keep_state()
        for kind in _WEIGHTS:
            _make_files(kind)
        with open("/proc/self/statm") as status:
            used = int(status.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        answers.write("begun\n")
        answers.flush()
        for line in sys.stdin:
            kind, number = json.loads(line)
            answers.write(json.dumps(try_input(kind, seed, number, box)) + "\n")
            answers.flush()


if __name__ == "__main__":
    if sys.argv[2:]:
        with tempfile.TemporaryDirectory() as folder:
            box = Box(pathlib.Path(folder) / "box")
            print(*try_input(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), box), sep="\n")
            print(sorted(box.inside.rglob("*")))
    else:
        _answer(int(sys.argv[1]))
