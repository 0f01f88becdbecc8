"""Long runs: watched, saved, stopped at any moment, and gone on with where they were."""

import contextlib
import hashlib
import importlib.metadata
import json
import logging
import math
import os
import pathlib
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
import rich.console
import rich.progress

from randviz.descent import lbfgs
from randviz.host.images import explain_failure, replace_atomically
from randviz.types import Image, UserError

_CHUNK_SECONDS = 0.5  # between two looks at the clock and at a wish to stop
_CHUNK_STEPS = 64  # the trace capacity that `lbfgs.advance` compiles for at the least
_SAVE_SECONDS = 20.0  # at most so much work is lost when the process is killed outright
_LOG_SECONDS = 10.0
_STATE_VERSION = 1  # of what is saved; another number leaves older states alone


class Stopped(Exception):
    """The user asked a run to stop; its state is saved."""


class Run(NamedTuple):
    """A finished descent.

    Attributes:
      image: [H, W, 3], not clipped.
      trace: all steps, [T] each, NumPy.
      seconds: spent descending, earlier sessions included, compilation too.
      sessions: how many times the command was started for it.
    """

    image: Image
    trace: lbfgs.Trace
    seconds: float
    sessions: int


def fingerprint(metadata: Any) -> str:
    """A short name for what a run computes: equal metadata, equal name.

    Args:
      metadata: anything that JSON can write.

    Returns:
      Twelve hexadecimal digits.
    """
    text = json.dumps(metadata, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def describe_machine() -> dict[str, Any]:
    """The versions and the device that a result depends on."""
    packages = ("randviz", "jax", "jaxlib", "flax", "jaxopt", "optax", "numpy")
    device = jax.devices()[0]
    return {
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "python": sys.version.split()[0],
        "platform": device.platform,
        "device": device.device_kind,
        "matmul_precision": jax.config.jax_default_matmul_precision,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def prepare_folder(path: str | pathlib.Path, flag: str = "out_dir") -> pathlib.Path:
    """Makes an output folder and makes sure that it can be written.

    Args:
      path: of the folder.
      flag: that named it, for the message.

    Raises:
      UserError: if it cannot.
    """
    folder = pathlib.Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".randviz-probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"the output folder {path} cannot be written ({explain_failure(error)}); choose"
            f" another --{flag}."
        ) from error
    return folder


def write_record(path: pathlib.Path, record: dict[str, Any]) -> None:
    """Writes a run record as JSON, whole or not at all; numbers that are not finite become null."""
    with replace_atomically(path) as temporary:
        temporary.write_text(json.dumps(_finite(record), indent=2, default=str) + "\n")


def _finite(record: Any) -> Any:
    if isinstance(record, dict):
        return {name: _finite(value) for name, value in record.items()}
    if isinstance(record, list | tuple):
        return [_finite(value) for value in record]
    return None if isinstance(record, float) and not math.isfinite(record) else record


def descend(
    objective: lbfgs.Objective,
    start: Image,
    *,
    num_steps: int,
    folder: pathlib.Path,
    metadata: Any,
    solver: str = "jaxopt",
    memory: int = lbfgs.MEMORY,
    print_every: int = 0,
    save_every: int = 0,
    show: Callable[[int, Image], None] | None = None,
    label: str = "descent",
) -> Run:
    """Descends in chunks on the host: draws the progress, saves the state, shows the pictures.

    The state lies in the folder under the run's fingerprint, so that the same command goes on with
    it and another command in the same folder does not touch it. The last image is the same, bit
    for bit, however often the run was stopped. The last state stays too, until the caller has put
    the result in safety and calls `forget`.

    Args:
      objective: image → scalar.
      start: [H, W, 3].
      num_steps: T.
      folder: exists and can be written.
      metadata: everything the result depends on; see `fingerprint`.
      solver: "jaxopt", "optax" or "adam".
      memory: how many steps L-BFGS remembers.
      print_every: steps between two lines of progress; 0 for one every ten seconds.
      save_every: steps between two calls of `show`; 0 for none.
      show: called as show(step, image).
      label: what the progress is called.

    Returns:
      The finished run.

    Raises:
      Stopped: after SIGINT or SIGTERM, with the state saved.
    """
    session = _Session(
        state=lbfgs.init(_for_one_evaluation(objective), start, solver=solver, memory=memory),
        trace=lbfgs.Trace(*(np.zeros(num_steps, dtype) for dtype in "fffi?")),
        progress=np.zeros(3),
    )
    place = _place_of_states(folder, metadata)
    with _keep_states(place) as states, _catch_signals() as wish:
        session = _restore(states, session, place)
        state, trace = session.state, lbfgs.Trace(*map(np.array, session.trace))
        step, before, sessions = int(session.progress[0]), *session.progress[1:]
        del session  # or the first state would be held to the end, half a gigabyte at 1024 pixels
        began = saved = time.monotonic()

        def save() -> None:
            progress = np.array([step, before + time.monotonic() - began, sessions + 1])
            states.save(step, args=ocp.args.StandardSave(_Session(state, trace, progress)))

        count = 1  # the first chunk pays for the compilation and says nothing about the pace
        with _Watch(label, num_steps, step, print_every) as watch:
            while step < num_steps:
                ends = [(step // every + 1) * every for every in (print_every, save_every) if every]
                chunk = min(step + count, num_steps, *ends) - step
                tick = time.monotonic()
                state, rows = lbfgs.advance(objective, state, num_steps=chunk, solver=solver)
                for whole, part in zip(trace, jax.device_get(rows), strict=True):
                    whole[step : step + chunk] = part
                now = time.monotonic()
                if watch.told:
                    pace = (now - tick) / chunk
                    count = int(min(max(_CHUNK_SECONDS / pace, 1), _CHUNK_STEPS))
                step += chunk
                watch.tell(step, float(trace.loss[step - 1]))
                if step == num_steps:
                    save()
                    break
                if show and save_every and step % save_every == 0:
                    show(step, state.image)
                if wish.stop:
                    save()
                    raise Stopped(
                        f"stopped after step {step} of {num_steps}; the same command goes on there."
                    )
                if now - saved > _SAVE_SECONDS:
                    save()
                    saved = now
    return Run(state.image, trace, before + time.monotonic() - began, int(sessions) + 1)


def delete_checkpoint(folder: pathlib.Path, metadata: Any) -> None:
    """Removes the state of a run whose result is in safety."""
    shutil.rmtree(_place_of_states(folder, metadata), ignore_errors=True)


def _place_of_states(folder: pathlib.Path, metadata: Any) -> pathlib.Path:
    return folder / f".unfinished-{fingerprint([_STATE_VERSION, metadata])}"


def _for_one_evaluation(objective: lbfgs.Objective) -> lbfgs.Objective:
    """The objective through its network's `for_one_evaluation`, if it has a network."""
    network = getattr(objective, "network", None)
    return objective.replace(network=network.for_one_evaluation()) if network else objective


class _Session(NamedTuple):
    """What is saved of an unfinished run."""

    state: lbfgs.State
    trace: lbfgs.Trace  # [num_steps] each, zeros beyond the step reached
    progress: np.ndarray  # step reached, seconds spent, sessions


def _restore(states: ocp.CheckpointManager, start: _Session, place: pathlib.Path) -> _Session:
    """The last state saved, or the start if there is none that can be read."""
    step = states.latest_step()
    if step is None:
        return start
    try:
        return states.restore(step, args=ocp.args.StandardRestore(start))
    except Exception as error:  # what a damaged file raises depends on where the damage is
        reason = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        warnings.warn(
            f"the state saved in {place} cannot be read ({reason}); the run begins anew.",
            stacklevel=2,
        )
        states.delete(step)
        return start


@contextlib.contextmanager
def _keep_states(folder: pathlib.Path) -> Iterator[ocp.CheckpointManager]:
    logging.getLogger("absl").setLevel(logging.ERROR)  # orbax reports each file it writes
    options = ocp.CheckpointManagerOptions(max_to_keep=1, create=True)
    with ocp.CheckpointManager(folder.absolute(), options=options) as states:
        yield states


class _Wish:
    stop = False


@contextlib.contextmanager
def _catch_signals() -> Iterator[_Wish]:
    """Turns the first SIGINT or SIGTERM into a wish to stop; a second one stops at once."""
    wish = _Wish()

    def note(number, frame):
        wish.stop = True
        signal.signal(number, previous[number])

    # Only the main thread may set handlers; elsewhere signals are somebody else's business.
    try:
        previous = {n: signal.signal(n, note) for n in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:
        previous = {}
    try:
        yield wish
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class _Watch:
    """Progress with loss, pace and time left: a bar on a terminal, lines elsewhere."""

    def __init__(self, label: str, num_steps: int, step: int, print_every: int):
        self.label, self.num_steps, self.print_every = label, num_steps, print_every
        self.first_step, self.began = step, 0.0
        self.told = 0.0  # when the last line was written; 0 before the first
        self.console = rich.console.Console(stderr=True, highlight=False)
        self.bar = None

    def __enter__(self) -> "_Watch":
        if self.first_step:
            self.console.print(f"{self.label}: going on after step {self.first_step}")
        if self.console.is_terminal and not self.print_every:
            columns = (
                rich.progress.TextColumn("{task.description}"),
                rich.progress.BarColumn(),
                rich.progress.MofNCompleteColumn(),
                rich.progress.TextColumn("{task.fields[metadata]}"),
            )
            self.bar = rich.progress.Progress(*columns, console=self.console)
            self.bar.start()
            self.task = self.bar.add_task(
                self.label, total=self.num_steps, completed=self.first_step, metadata="compiling"
            )
        return self

    def __exit__(self, *exception) -> None:
        if self.bar:
            self.bar.stop()

    def tell(self, step: int, loss: float) -> None:
        now = time.monotonic()
        metadata = f"loss {loss:.4g}"
        if self.told:
            pace = (step - self.first_step) / (now - self.began)
            left = (self.num_steps - step) / pace
            metadata += f"  {pace:.2f} steps/s  {format_seconds(left)} left"
        else:
            # Counted from here: what came before was mostly compilation.
            self.began, self.first_step = now, step
        due = not self.told or now - self.told > _LOG_SECONDS
        if self.print_every:
            due = not self.told or step % self.print_every == 0
        if self.bar:
            self.bar.update(self.task, completed=step, metadata=metadata)
            self.told = now
        elif due or step == self.num_steps:
            line = f"{self.label}: step {step}/{self.num_steps}  {metadata}"
            self.console.print(line, soft_wrap=True)
            self.told = now


def format_seconds(seconds: float) -> str:
    """Writes a time as minutes and seconds, and hours where there are some.

    Example:
      >>> format_seconds(200), format_seconds(7325.3)
      ('3:20', '2:02:05')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
