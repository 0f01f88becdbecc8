"""Long runs: watched, saved, stopped at any moment, and gone on with where they were."""

import bisect
import contextlib
import errno
import hashlib
import importlib.metadata
import itertools
import json
import logging
import math
import os
import pathlib
import platform
import re
import secrets
import shutil
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from randviz.descent.descent import find_solver, init, take_steps
from randviz.descent.schedule import resize
from randviz.descent.solver import Objective, Solver, State, Trace
from randviz.host import signals
from randviz.host.images import explain_failure, save_image, write_text
from randviz.host.preview import Preview
from randviz.host.progress import Progress
from randviz.objectives.objective import find_non_finite, objective_at
from randviz.types import Image, UserError, first_line

_CHUNK_SECONDS = 0.5  # between two looks at the clock and at a wish to stop
_CHUNK_STEPS = 64  # the trace capacity that `advance` compiles for at the least
_SAVE_SECONDS = 20.0  # at most so much work is lost when the process is killed outright
_STATE_VERSION = 3  # of what is saved; another number leaves older states alone
_NUM_STATES = 2  # kept, so that there is an earlier one if the last is damaged
_PATIENCE = 10  # steps in a row that lead to no finite value before a run is given up
UNFINISHED_PREFIX = ".unfinished-"  # of the folders of states


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
    trace: Trace
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
    """The versions, the devices and the settings that the last bits of a result depend on.

    What is drawn from a seed depends on none of them; the order of XLA's sums may on each.
    """
    packages = ("randviz", "jax", "jaxlib", "flax", "jaxopt", "optax", "numpy")
    device = jax.devices()[0]
    return {
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "python": sys.version.split()[0],
        "platform": device.platform,
        "device": device.device_kind,
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "num_devices": jax.device_count(),
        "x64": jax.config.jax_enable_x64,
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
    write_text(path, json.dumps(as_json(record), indent=2, default=str) + "\n")


def as_json(record: Any) -> Any:
    """Numbers as JSON has them, without infinity: null where a picture came back exactly."""
    if isinstance(record, dict):
        return {name: as_json(value) for name, value in record.items()}
    if isinstance(record, list | tuple):
        return [as_json(value) for value in record]
    return None if isinstance(record, float) and not math.isfinite(record) else record


class Stage(NamedTuple):
    """A descent at one size, of one or several from coarse to fine.

    Attributes:
      make_objective: makes it, image → scalar or redrawn.
      shape: (H, W) of the image that descends.
      num_steps: T of this stage.
      periodic: whether the image repeats beyond its edges, where it is scaled to the shape.
    """

    make_objective: Callable[[], Objective]
    shape: tuple[int, ...]
    num_steps: int
    periodic: bool = False


def descend(
    stages: Sequence[Stage],
    start: Image,
    *,
    folder: pathlib.Path,
    metadata: Any,
    solver: Solver | str = "jaxopt",
    print_every: int = 0,
    save_every: int = 0,
    show: Callable[[int, Image], None] | None = None,
    preview: Preview | None = None,
    label: str = "descent",
) -> Run:
    """Descends in chunks on the host: reports progress, saves the state, shows the pictures.

    The state lies in the folder under the run's fingerprint, so that the same command goes on with
    it and another command in the same folder does not touch it. The last image is the same, bit
    for bit, however often the run was stopped. The last state stays too, until the caller has put
    the result in safety and calls `delete_checkpoint`. Where a state cannot be read, the one before
    it is taken.

    Args:
      stages: what descends, stage by stage; each starts from the result of the one before.
      start: [H, W, 3], scaled to the first stage's shape.
      folder: exists and can be written.
      metadata: everything the result depends on; see `fingerprint`.
      solver: a value or a name.
      print_every: steps between two lines of progress; 0 for one every ten seconds.
      save_every: steps between two calls of `show`; 0 for none.
      show: called as show(step, image).
      preview: told of every chunk of steps, for those who watch from outside.
      label: what the progress is called.

    Returns:
      The finished run.

    Raises:
      Stopped: after SIGINT, SIGTERM or SIGHUP, with the state saved.
      UserError: if a state cannot be saved, or the loss or its gradient is not finite and stays so;
        the last good image is then in the folder's last_good.png.
    """
    solver = find_solver(solver)
    ends = list(itertools.accumulate(stage.num_steps for stage in stages))
    total = ends[-1]
    place = checkpoint_folder(folder, metadata)
    wish = None
    with _keep_states(place) as states, contextlib.ExitStack() as stack:
        session = _restore(states, stages, ends, solver, place)
        if session is None:
            trace = Trace(*(np.zeros(total, dtype) for dtype in "fffi?"))
            step, before, sessions, state, image = 0, 0.0, 0, None, start
        else:
            state, trace = session.state, Trace(*map(np.array, session.trace))
            step, before, sessions = int(session.progress[0]), *session.progress[1:]
            image = state.image
            del session  # or the first state would be held to the end
        began = saved = time.monotonic()

        def save() -> None:
            progress = np.array([step, before + time.monotonic() - began, sessions + 1])
            session = _Session(state, trace, progress, _add_up(state, trace, progress))
            try:
                _check_space(place, session)
                states.save(step, args=ocp.args.StandardSave(session))
            except Exception as error:  # orbax and tensorstore have no error of their own
                for partial in place.glob("*.orbax-checkpoint-tmp"):
                    shutil.rmtree(partial, ignore_errors=True)
                raise UserError(
                    f"the state after step {step} cannot be saved in {place} ({_explain(error)});"
                    f" the same command goes on after step {states.latest_step() or 0}."
                ) from error

        def work(done: int) -> float:
            begins = [0, *ends[:-1]]
            return sum(
                min(max(done - begin, 0), stage.num_steps) * math.prod(stage.shape)
                for begin, stage in zip(begins, stages, strict=True)
            )

        with Progress(label, total, step, print_every=print_every, work=work) as progress:
            for stage, end in zip(stages, ends, strict=True):
                if step > end:
                    continue
                objective = stage.make_objective()
                progress.restart()
                if state is None:
                    state = init(
                        _for_one_evaluation(objective),
                        resize(image, stage.shape, periodic=stage.periodic),
                        num_steps=stage.num_steps,
                        solver=solver,
                    )
                count = 1  # the first chunk pays for the compilation and says nothing of the pace
                timed = False
                while step < end:
                    stops = [
                        (step // every + 1) * every for every in (print_every, save_every) if every
                    ]
                    chunk = min(step + count, end, *stops) - step
                    tick = time.monotonic()
                    state, lines = take_steps(objective, state, num_steps=chunk, solver=solver)
                    for whole, part in zip(trace, jax.device_get(lines), strict=True):
                        whole[step : step + chunk] = part[:chunk]
                    now = time.monotonic()
                    if timed:
                        pace = (now - tick) / chunk
                        count = int(min(max(_CHUNK_SECONDS / pace, 1), _CHUNK_STEPS))
                    timed = True
                    step += chunk
                    # Before, there is nothing to save, and a signal need not wait for a compiler.
                    wish = wish or stack.enter_context(signals.defer())
                    progress.report(step, f"loss {float(trace.loss[step - 1]):.4g}")
                    if preview:
                        preview.report(trace.loss[:step], progress.left, solver.result(state))
                    if not np.isfinite(trace.loss[step - 1]) or (
                        state.failures >= min(_PATIENCE, total)
                        and not np.isfinite(trace.gradient_norm[step - 1])
                    ):
                        _give_up(objective, state, solver, step, folder)
                    if step == total:
                        # The result itself may still be saved where a state cannot.
                        with contextlib.suppress(UserError):
                            save()
                        break
                    if show and save_every and step % save_every == 0:
                        show(step, solver.result(state))
                    if wish.number:
                        save()
                        raise Stopped(
                            f"stopped after step {step} of {total}; the same command goes on there."
                        )
                    if now - saved > _SAVE_SECONDS:
                        save()
                        saved = now
                image, state = solver.result(state), None
    return Run(image, trace, before + time.monotonic() - began, int(sessions) + 1)


def delete_checkpoint(folder: pathlib.Path, metadata: Any) -> None:
    """Removes the state of a run whose result is in safety."""
    shutil.rmtree(checkpoint_folder(folder, metadata), ignore_errors=True)


def checkpoint_folder(folder: pathlib.Path, metadata: Any) -> pathlib.Path:
    """The folder inside a run's folder that holds its state while it is unfinished."""
    return folder / f"{UNFINISHED_PREFIX}{fingerprint([_STATE_VERSION, metadata])}"


def _for_one_evaluation(objective: Objective) -> Objective:
    """The objective in the way that is soonest compiled, if it has one."""
    return objective.for_one_evaluation() if hasattr(objective, "for_one_evaluation") else objective


class _Session(NamedTuple):
    """What is saved of an unfinished run."""

    state: State
    trace: Trace  # [num_steps] each, zeros beyond the step reached
    progress: np.ndarray  # step reached, seconds spent, sessions
    checksum: np.ndarray  # of all the others, since the files themselves have none


def _add_up(*parts: Any) -> np.ndarray:
    """The checksum of a session's parts."""
    found = 0
    for leaf in jax.tree.leaves(parts):
        found = zlib.crc32(np.asarray(leaf).tobytes(), found)
    return np.array(found, np.uint32)


def _check_space(place: pathlib.Path, session: _Session) -> None:
    """Fails where a state does not fit, before half of it fills what the result needs."""
    place.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(place).free < sum(leaf.nbytes for leaf in jax.tree.leaves(session)):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _explain(error: Exception) -> str:
    """The reason in an error of orbax's or tensorstore's, which may have many lines."""
    if isinstance(error, OSError):
        return explain_failure(error)
    system = re.search(r"\[os_error_code='(\d+)'", str(error))
    if system:
        return os.strerror(int(system[1]))
    return first_line(error)


def _give_up(
    objective: Objective, state: State, solver: Solver, step: int, folder: pathlib.Path
) -> NoReturn:
    """Saves the last good image and says what is not finite."""
    picture = folder / "last_good.png"
    save_image(picture, solver.result(state))
    # The step that failed has been counted.
    drawn = objective_at(objective, state.step - 1)
    found = find_non_finite(drawn, solver.next_place(state)) or "the loss is not finite"
    raise UserError(
        f"{found}, so the run ends at step {step}; the last good image is {picture}, and smaller"
        " weights or another picture may help."
    )


def _restore(
    states: ocp.CheckpointManager,
    stages: Sequence[Stage],
    ends: Sequence[int],
    solver: Solver,
    place: pathlib.Path,
) -> _Session | None:
    """The last session that can be read, or None; those that cannot are set aside."""
    damaged = []
    session = None
    for step in sorted(states.all_steps(), reverse=True):
        try:
            session = _read(states, step, stages, ends, solver)
            break
        except Exception as error:  # what a damaged file raises depends on where the damage is
            aside = place / f"damaged-{step}-{secrets.token_hex(4)}"
            damaged.append(f"{place / str(step)} cannot be read ({_explain(error)})")
            (place / str(step)).rename(aside)
    if damaged:
        states.reload()
        then = f"goes on after step {int(session.progress[0])}" if session else "begins anew"
        warnings.warn(f"the state {' and '.join(damaged)}; the run {then}.", stacklevel=2)
    return session


def _read(
    states: ocp.CheckpointManager,
    step: int,
    stages: Sequence[Stage],
    ends: Sequence[int],
    solver: Solver,
) -> _Session:
    """The session saved after a step; anything may be raised if it is damaged."""
    stage = stages[min(bisect.bisect_left(ends, step), len(stages) - 1)]

    def make_state() -> State:
        image = jnp.zeros((*stage.shape, 3), jnp.float32)
        return init(stage.make_objective(), image, num_steps=stage.num_steps, solver=solver)

    state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), jax.eval_shape(make_state))
    trace = Trace(*(np.zeros(ends[-1], dtype) for dtype in "fffi?"))
    template = _Session(state, trace, np.zeros(3), np.array(0, np.uint32))
    session = states.restore(step, args=ocp.args.StandardRestore(template))
    if _add_up(*session[:-1]) != session.checksum:
        raise ValueError("its checksum is another")
    return session


def _is_not_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in record.getMessage()


@contextlib.contextmanager
def _keep_states(folder: pathlib.Path) -> Iterator[ocp.CheckpointManager]:
    # What they report here is raised as well.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").addFilter(_is_not_orbax)
    options = ocp.CheckpointManagerOptions(
        max_to_keep=_NUM_STATES, create=True, enable_async_checkpointing=False
    )
    report = sys.unraisablehook
    # Where one file fails, those that were begun beside it find their event loop closed.
    sys.unraisablehook = lambda found: (
        None if str(found.exc_value) == "Event loop is closed" else report(found)
    )
    open_states = lambda: ocp.CheckpointManager(folder.absolute(), options=options)
    try:
        try:
            manager = open_states()
        except (ValueError, RecursionError):
            # What orbax notes beside each state may be damaged, and is not needed to read it.
            for notes in folder.glob("*/_CHECKPOINT_METADATA"):
                notes.unlink()
            manager = open_states()
        with manager as states:
            yield states
    finally:
        sys.unraisablehook = report
