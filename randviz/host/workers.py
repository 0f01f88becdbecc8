"""Workers: processes of this machine that share the jobs of one command.

On Linux each has its own cores. One process leaves a part of them idle where pictures are small.
"""

import collections
import contextlib
import dataclasses
import importlib
import itertools
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import psutil

from randviz.host import progress
from randviz.host.programs import release_programs
from randviz.host.settings import CommandSettings, explain_error, print_warnings, setting
from randviz.types import UserError

_KILLED = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")  # somebody, or the system, ended it


@dataclasses.dataclass(frozen=True)
class WorkerSettings(CommandSettings):
    """Settings of a command whose jobs processes can share."""

    num_workers: int = setting(
        1,
        "Processes that measure side by side, on Linux each on its own cores; the last bits depend"
        " on how many cores there are.",
        lower_bound=1,
        rare=True,
    )


def check_workers(num_workers: int) -> None:
    """Checks that each worker has a core.

    Raises:
      UserError: if there are more workers than cores, or JAX computes elsewhere.
    """
    if num_workers > 1 and jax.default_backend() != "cpu":
        raise UserError(
            f"--num_workers={num_workers} shares the processor's cores, and JAX computes on a"
            f" {jax.default_backend()} here; leave it out."
        )
    cores = list_cores()
    if num_workers > len(cores):
        raise UserError(
            f"--num_workers={num_workers} is more than this process has cores, {len(cores)}; take"
            " as many or fewer."
        )


def list_cores() -> list[int]:
    """The numbers of the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(psutil.cpu_count() or 1))


def share_jobs(
    prepare: Callable[[Any], Callable[[Any], Any]],
    setup: Any,
    jobs: Sequence[Any],
    num_workers: int,
) -> Iterator[tuple[Any, Any]]:
    """Has workers do jobs.

    They end with this process, however it ends.

    Args:
      prepare: setup → job → answer, a function at the top of a module; called in each worker.
      setup: plain values.
      jobs: plain values. A worker gets consecutive ones, which often share compiled programs.
      num_workers: how many there are at most.

    Yields:
      (job, answer), in the order in which they are done.

    Raises:
      UserError: that of a worker, or if one was killed.
      RuntimeError: if a worker failed by a fault of the program.
    """
    num_workers = min(num_workers, len(jobs))
    shares = _Shares(jobs, num_workers)
    replies: queue.SimpleQueue = queue.SimpleQueue()
    workers: list[subprocess.Popen] = []
    current: dict[int, Any] = {}
    failure: Exception | None = None

    def assign(number: int) -> None:
        with contextlib.suppress(IndexError):
            current[number] = shares.take(number)
            _tell(workers[number], current[number])

    try:
        for number in range(num_workers):
            workers.append(_start(prepare, list_cores()[number::num_workers]))
            threading.Thread(
                target=_collect, args=(number, workers[number], replies), daemon=True
            ).start()
            _tell(workers[number], setup)
            assign(number)
        # After a failure, what the others have done by then is not lost.
        while current and not (failure and replies.empty()):
            number, reply = replies.get()
            if number not in current:
                continue  # it has ended, and nothing of it is missed
            job = current.pop(number)
            if reply is None:
                failure = failure or _explain_end(workers[number])
            elif "error" in reply:
                failure = failure or UserError(reply["error"])
            else:
                if not failure:
                    assign(number)
                yield job, reply["answer"]
    finally:
        for worker in workers:
            with contextlib.suppress(OSError):
                worker.stdin.close()
        for worker in workers:
            worker.wait()
    if failure:
        raise failure


class _Shares:
    """Jobs divided among workers, consecutive ones to the same.

    A worker with none left takes the second half of the longest remaining share.
    """

    def __init__(self, jobs: Sequence[Any], count: int):
        ends = [len(jobs) * number // count for number in range(count + 1)]
        self.shares = [collections.deque(jobs[i:j]) for i, j in itertools.pairwise(ends)]

    def take(self, number: int) -> Any:
        """The next job of a worker.

        Raises:
          IndexError: if there is none.
        """
        if not self.shares[number]:
            longest = max(self.shares, key=len)
            half = (len(longest) + 1) // 2
            self.shares[number].extendleft([longest.pop() for _ in range(half)])
        return self.shares[number].popleft()


def _start(prepare: Callable, cores: list[int]) -> subprocess.Popen:
    # Before any other import: whatever a library prints must not get between the answers, JAX makes
    # a thread for each core that it sees, and this process may have signals blocked.
    lines = [
        "import os, signal, sys",
        "channel = os.dup(1)",
        "os.dup2(2, 1)",
        f"sys.path[:] = {sys.path!r}",
    ]
    if hasattr(os, "sched_setaffinity"):
        lines.append(f"os.sched_setaffinity(0, {cores})")
    if hasattr(signal, "pthread_sigmask"):
        lines.append("signal.pthread_sigmask(signal.SIG_SETMASK, ())")
    lines += [
        f"from {__name__} import answer",
        f"answer(channel, {prepare.__module__!r}, {prepare.__name__!r})",
    ]
    return subprocess.Popen(
        [sys.executable, "-c", "\n".join(lines)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C reaches this process only; workers end when it does
    )


def _tell(worker: subprocess.Popen, message: Any) -> None:
    with contextlib.suppress(OSError):  # it has ended, which `_collect` reports
        worker.stdin.write(json.dumps(message) + "\n")
        worker.stdin.flush()


def _collect(number: int, worker: subprocess.Popen, replies: queue.SimpleQueue) -> None:
    with contextlib.suppress(ValueError):  # a worker that was killed leaves half a line
        for line in worker.stdout:
            replies.put((number, json.loads(line)))
    replies.put((number, None))


def _explain_end(worker: subprocess.Popen) -> Exception:
    try:
        code = worker.wait(timeout=10)
    except subprocess.TimeoutExpired:
        worker.kill()
        return RuntimeError("a worker wrote something else than an answer.")
    names = {getattr(signal, name): name for name in _KILLED if hasattr(signal, name)}
    if -code not in names:
        return RuntimeError(f"a worker failed with code {code}; what it wrote is above.")
    name = names[-code]
    cause = ", perhaps because memory ran out" if name == "SIGKILL" else ""
    return UserError(
        f"a worker was killed by {name}{cause}; the same command goes on after the last record,"
        " with fewer --num_workers if need be."
    )


def answer(channel: int, module: str, prepare: str) -> None:
    """Does jobs for the process that started this one, as long as that one lives.

    Args:
      channel: the descriptor that answers are written to.
      module, prepare: names of the function that is told the setup; see `share_jobs`.
    """
    messages: queue.SimpleQueue = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(messages,), daemon=True).start()
    progress.silence()
    with os.fdopen(channel, "w") as answers, print_warnings("worker"):
        try:
            work = getattr(importlib.import_module(module), prepare)(messages.get())
            while True:
                _reply(answers, {"answer": work(messages.get())})
                release_programs()
        except Exception as error:
            said = explain_error(error)
            if said is None:
                raise
            _reply(answers, {"error": said})


def _listen(messages: queue.SimpleQueue) -> None:
    try:
        for line in sys.stdin:
            messages.put(json.loads(line))
    finally:
        os._exit(0)  # in the middle of a job too: nobody waits for it


def _reply(answers: Any, message: dict[str, Any]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()
