"""Workers: processes of this machine that share the jobs of one command.

Each has its own cores of the processor. One process leaves a part of them idle where pictures are
small, and compiles on one of them.
"""

import collections
import contextlib
import dataclasses
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

from randviz.host.settings import CommandSettings, explain_error, setting
from randviz.types import UserError


@dataclasses.dataclass(frozen=True)
class WorkerSettings(CommandSettings):
    """Settings of a command whose jobs processes can share."""

    num_workers: int = setting(
        1,
        "Processes that measure side by side, each on its own cores; last bits depend on how many"
        " cores there are.",
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
    cores = _list_cores()
    if num_workers > len(cores):
        raise UserError(
            f"--num_workers={num_workers} is more than this process has cores, {len(cores)}; take"
            " as many or fewer."
        )


def _list_cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(psutil.cpu_count() or 1))


def share_jobs(
    statement: str, introduction: Any, jobs: Sequence[Any], num_workers: int
) -> Iterator[tuple[Any, Any]]:
    """Has workers do jobs.

    They end with this process, however it ends.

    Args:
      statement: in Python, what a worker runs; it calls `answer`.
      introduction: what each is told first, plain values.
      jobs: plain values. A worker gets neighbours as long as there are some, since those share
        compiled programs.
      num_workers: how many there are at most.

    Yields:
      (job, answer), in the order in which they are done.

    Raises:
      UserError: that of a worker, or if one was killed.
      RuntimeError: if a worker failed by a fault of the program.
    """
    num_workers = min(num_workers, len(jobs))
    runs = _Runs(jobs, num_workers)
    replies: queue.SimpleQueue = queue.SimpleQueue()
    workers: list[subprocess.Popen] = []
    current: dict[int, Any] = {}

    def assign(number: int) -> None:
        with contextlib.suppress(IndexError):
            current[number] = runs.take(number)
            _tell(workers[number], current[number])

    try:
        for number in range(num_workers):
            workers.append(_start(statement, _list_cores()[number::num_workers]))
            threading.Thread(
                target=_collect, args=(number, workers[number], replies), daemon=True
            ).start()
            _tell(workers[number], introduction)
            assign(number)
        while current:
            number, reply = replies.get()
            if reply is None:
                raise _explain_end(workers[number].wait())
            if "error" in reply:
                raise UserError(reply["error"])
            job = current.pop(number)
            assign(number)
            yield job, reply["answer"]
    finally:
        for worker in workers:
            with contextlib.suppress(OSError):
                worker.stdin.close()
        for worker in workers:
            worker.wait()


class _Runs:
    """Jobs in runs of neighbours, one for each worker.

    Whoever has done his takes the second half of the longest.
    """

    def __init__(self, jobs: Sequence[Any], count: int):
        ends = [len(jobs) * number // count for number in range(count + 1)]
        self.runs = [collections.deque(jobs[i:j]) for i, j in itertools.pairwise(ends)]

    def take(self, number: int) -> Any:
        """The next job of a worker.

        Raises:
          IndexError: if there is none.
        """
        if not self.runs[number]:
            longest = max(self.runs, key=len)
            half = (len(longest) + 1) // 2
            self.runs[number].extendleft([longest.pop() for _ in range(half)])
        return self.runs[number].popleft()


def _start(statement: str, cores: list[int]) -> subprocess.Popen:
    # Before JAX is imported: it makes a thread for each core that it sees.
    pin = f"import os; os.sched_setaffinity(0, {cores}); "
    return subprocess.Popen(
        [sys.executable, "-c", pin * hasattr(os, "sched_setaffinity") + statement],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is this process's, whose end ends the worker
    )


def _tell(worker: subprocess.Popen, message: Any) -> None:
    with contextlib.suppress(OSError):  # it has ended, which `_collect` reports
        worker.stdin.write(json.dumps(message) + "\n")
        worker.stdin.flush()


def _collect(number: int, worker: subprocess.Popen, replies: queue.SimpleQueue) -> None:
    for line in worker.stdout:
        replies.put((number, json.loads(line)))
    replies.put((number, None))


def _explain_end(code: int) -> Exception:
    if code >= 0:
        return RuntimeError("a worker failed; what it said stands above.")
    return UserError(
        f"a worker was killed ({signal.Signals(-code).name}), perhaps for want of memory; the same"
        " command goes on after what was measured, with fewer --num_workers if need be."
    )


def answer(prepare: Callable[[Any], Callable[[Any], Any]]) -> None:
    """Does jobs for the process that started this one, to the end of that process or of the jobs.

    Args:
      prepare: introduction → job → answer, all plain values.
    """
    # What libraries print must not get between the answers.
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    messages: queue.SimpleQueue = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(messages,), daemon=True).start()
    try:
        work = prepare(messages.get())
        while True:
            _reply(channel, {"answer": work(messages.get())})
    except Exception as error:
        said = explain_error(error)
        if said is None:
            raise
        _reply(channel, {"error": said})


def _listen(messages: queue.SimpleQueue) -> None:
    for line in sys.stdin:
        messages.put(json.loads(line))
    os._exit(0)  # in the middle of a job too: nobody waits for it


def _reply(channel: Any, message: dict[str, Any]) -> None:
    channel.write(json.dumps(message) + "\n")
    channel.flush()
