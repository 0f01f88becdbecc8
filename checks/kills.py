"""Kills long commands at random moments and starts them again: nothing is lost, nothing differs.

Each round takes a command in a folder of its own, ends it some times by a signal, during imports,
compilation, descents and saves, and then lets it finish. What it wrote must be, bit for bit, what
one undisturbed run wrote. Needs Linux's /proc.
"""

import collections
import concurrent.futures
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).parents[1]
SIGNALS = ("KILL", "TERM", "INT", "HUP")
_SCRIPT = ROOT / "checks" / "saving_often" / "randviz.py"
_OUT = "out"  # the output folder, in that of a round
_LONGEST = 240.0  # seconds of one process; more is a hang
_TICK = 0.002  # seconds between two looks at a process
_SAVES = (".unfinished-*/*.orbax-checkpoint-tmp", ".randviz-*", "pictures/.randviz-*")
_VARYING = ("seconds", "sessions", "finished")  # fields of records that say how it went
_TROUBLE = ("Traceback", "Fatal Python error", "Segmentation fault", "core dumped")

_STYLE = "commands.style --content_image=columns --style_image=starry_night"
_PAPER = "--method=paper --content_layers=conv1_1 --style_layers=conv1_1"
_SELECTION = "--image_size=24 --num_steps=60 --num_candidates=2"
_MANY = "--layers=conv1_1 --num_networks=3 --selection_steps=20"
COMMANDS = {
    "invert": "commands.invert --image=chelsea --layer=conv1_1 --image_size=32 --num_steps=400"
    " --animation=out/run.gif",
    "style, filters": f"{_STYLE} --image_size=40 --scale_sizes=28,40 --num_steps=300",
    "style, paper": f"{_STYLE} {_PAPER} --image_size=32 --num_steps=400 --save_every=100",
    "style, paper, scales": f"{_STYLE} {_PAPER} --image_size=32 --min_size=16 --num_steps=400",
    "texture": "commands.texture --texture_image=brick --image_size=32 --num_steps=300",
    "texture, paper": "commands.texture --texture_image=brick --method=paper --layers=conv1_1"
    " --image_size=32 --num_steps=400",
    "select": f"commands.select --reference_image=astronaut {_SELECTION} --last_layer=conv1_2",
    "population": f"commands.population --image=chelsea {_SELECTION} {_MANY}",
    "figure 3": f"experiments.fig3_variance {_SELECTION} {_MANY} --reference_size=24",
}


class Fault(NamedTuple):
    """Something that should not be.

    Attributes:
      kind: "tracebacks" for a process that ended otherwise than it should, "lost" for results,
        states or records that are gone, "different" for a result that is not the undisturbed one.
      text: what happened, for people.
    """

    kind: str
    text: str


class Report(NamedTuple):
    """What came of the kills.

    Attributes:
      kills: (command, signal) of each.
      identical: the command of each round whose results were the undisturbed run's.
      faults: all that were found.
    """

    kills: list[tuple[str, str]]
    identical: list[str]
    faults: list[Fault]


def run_kills(
    folder: pathlib.Path, *, seed: int, seconds: float, names: Sequence[str] = tuple(COMMANDS)
) -> Report:
    """Kills and goes on with the commands in turn, two rounds at a time.

    Args:
      folder: for everything that is written.
      seed: of what is killed when; the moments depend on the machine's pace too.
      seconds: after which no round begins and nothing more is killed.
      names: of the commands, in `COMMANDS`.

    Returns:
      The report.
    """
    deadline = time.monotonic() + seconds
    report = Report([], [], [])
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        undisturbed = dict(
            zip(
                names,
                pool.map(lambda name: _run_undisturbed(folder, name, report), names),
                strict=True,
            )
        )
        names = [name for name in names if undisturbed[name]]

        def work(lane: int) -> None:
            number = lane
            while names and time.monotonic() < deadline:
                name = names[number % len(names)]
                rng = random.Random(f"{seed} {number}")
                _Round(folder, number, name, rng, report).run(*undisturbed[name], deadline)
                number += 2

        for future in [pool.submit(work, lane) for lane in range(2)]:
            future.result()
    return report


def print_report(report: Report) -> None:
    """Prints a table of the kills, a line for each command, and the faults."""
    kills = collections.Counter(report.kills)
    identical = collections.Counter(report.identical)
    print(f"| command | {' | '.join(SIGNALS)} | rounds with the undisturbed result |")
    print("|---" * (len(SIGNALS) + 2) + "|")
    for name in dict.fromkeys(name for name, _ in report.kills):
        counts = " | ".join(str(kills[name, word]) for word in SIGNALS)
        print(f"| {name} | {counts} | {identical[name]} |")
    for fault in report.faults:
        print(f"{fault.kind}: {fault.text}")


def read_results(folder: pathlib.Path) -> dict[str, Any]:
    """All that a finished run wrote, by name, without the fields that say how it went.

    Args:
      folder: of the run.

    Returns:
      {name: bytes, or values of JSON}.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and not any(part.startswith(".") for part in path.parts):
            content = path.read_bytes()
            if path.suffix in (".json", ".jsonl"):
                lines = content.splitlines() if path.suffix == ".jsonl" else [content]
                content = [json.loads(line, object_hook=_drop_varying) for line in lines]
            found[name] = content
    return found


def _drop_varying(values):
    return {name: value for name, value in values.items() if name not in (*_VARYING, "check")}


def _start(name: str, folder: pathlib.Path, cache: pathlib.Path) -> subprocess.Popen:
    module, *flags = COMMANDS[name].split()
    words = [sys.executable, "-P", str(_SCRIPT), f"randviz.{module}", *flags, f"--out_dir={_OUT}"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cache)}
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "said").open("w") as said:
        return subprocess.Popen(words, cwd=folder, env=env, stdout=said, stderr=said)


def _wait(process: subprocess.Popen) -> int | None:
    """The exit status; None after a hang, which is ended."""
    try:
        return process.wait(_LONGEST)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return None


def _run_undisturbed(folder, name, report):
    """(results, seconds) of a run with programs compiled; None if it fails."""
    for attempt in ("first", "second"):
        place = folder / f"{name} {attempt}"
        began = time.monotonic()
        process = _start(name, place, folder / "cache")
        if _wait(process) != 0:
            said = (place / "said").read_text(errors="replace")
            report.faults.append(Fault("tracebacks", f"{name}, undisturbed: {said[-500:]}"))
            return None
    return read_results(place / _OUT), time.monotonic() - began


class _Round:
    """One command in a folder of its own."""

    def __init__(self, folder, number, name, rng, report):
        self.name, self.rng, self.report = name, rng, report
        self.place = folder / f"round {number}"
        # Some compile all programs themselves, and are killed while they do.
        self.cache = (self.place if rng.random() < 0.2 else folder) / "cache"
        self.records, self.step = [], 0

    def run(self, expected, seconds, deadline):
        for _ in range(self.rng.randint(3, 7)):
            if time.monotonic() < deadline:
                self._kill(seconds)
        process = _start(self.name, self.place, self.cache)
        status = _wait(process)
        said = (self.place / "said").read_text(errors="replace")
        if status != 0 or any(word in said for word in _TROUBLE):
            self._fault("tracebacks", f"gone on with, it ended with {status}: {said[-500:]}")
            return
        found = read_results(self.place / _OUT)
        if missing := [name for name in expected if name not in found]:
            self._fault("lost", f"{', '.join(missing)} missing at the end")
        elif different := [name for name in found if found[name] != expected.get(name)]:
            self._fault("different", f"{', '.join(different)} in {self.place}")
        else:
            self.report.identical.append(self.name)

    def _fault(self, kind, text):
        self.report.faults.append(Fault(kind, f"{self.name}, {self.place.name}: {text}"))

    def _kill(self, seconds):
        word = self.rng.choice(("KILL", *SIGNALS))
        number = getattr(signal, f"SIG{word}")
        at_save = self.rng.random() < 0.4
        moment = time.monotonic() + self.rng.uniform(0, seconds)
        process = _start(self.name, self.place, self.cache)
        while process.poll() is None and (
            time.monotonic() < moment or not (word == "KILL" or _is_watching(process.pid))
        ):
            time.sleep(_TICK)
            if at_save and any(self._list_saves()):
                break
        if process.poll() is None:
            process.send_signal(number)
            self.report.kills.append((self.name, word))
        status = _wait(process)
        said = (self.place / "said").read_text(errors="replace")
        # A run that was at its end may end well, or by the signal without a word.
        finished = process.returncode == 0 or "stopped" not in said
        if status not in (-number, 0) or any(word in said for word in _TROUBLE):
            self._fault("tracebacks", f"after {word} it ended with {status}: {said[-500:]}")
        elif word != "KILL" and status == -number and not finished and said.count("stopped") != 1:
            self._fault("tracebacks", f"after {word} it said {said[-500:]}")
        self._look_for_losses()

    def _list_saves(self):
        return [path for saves in _SAVES for path in (self.place / _OUT).glob(saves)]

    def _look_for_losses(self):
        """Compares records and states with those after the kill before."""
        out = self.place / _OUT
        path = out / "records.jsonl"
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        whole = lines[: len(self.records)]
        if whole != self.records:
            self._fault(
                "lost", f"of {len(self.records)} records {len(whole)} are left as they were"
            )
        # The last line may have been cut off; it is measured again.
        self.records = [line for line in lines if line.endswith("}")]
        if not path.exists() and not (out / "run.json").exists():
            names = [path.name for path in out.glob(".unfinished-*/*")]
            step = max((int(name) for name in names if name.isdigit()), default=0)
            if step < self.step:
                self._fault("lost", f"the last state is of step {step}, after {self.step}")
            self.step = step


def _is_watching(pid: int) -> bool:
    """Whether the process has come to answer signals itself; before, Python's own start does."""
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True
    blocked = next(line for line in status.splitlines() if line.startswith("SigBlk"))
    return bool(int(blocked.split()[1], 16) >> (signal.SIGINT - 1) & 1)
