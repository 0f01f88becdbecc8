"""SIGINT, SIGTERM and SIGHUP: one sentence, and the process ends by the signal.

In a process that was started as this program a thread waits for the signals, which are blocked
everywhere else. So they are answered while the main thread imports, compiles or descends, and no
code that runs then sees an exception. Elsewhere, as in a notebook, signals are the host's business,
and handlers are set only while a descent asks for them.
"""

import atexit
import contextlib
import os
import pathlib
import signal
import sys
import threading
from collections.abc import Iterator

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
_SIGNALS = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
_SHOW_CURSOR = "\n\x1b[?25h"  # which a progress bar hides


class Wish:
    """A wish to stop.

    Attributes:
      number: of the signal; 0 as long as there was none.
    """

    number = 0


_wishes: list[Wish] = []  # of blocks that want to end by themselves, the innermost last
_listeners: list[Wish] = []  # of blocks around those
_watched: set[int] = set()  # signals that the thread waits for
_received: list[int] = []  # those of them that such blocks were told of


def is_program() -> bool:
    """Whether this process runs `randviz` or `python -m randviz`, and not code of somebody else."""
    started = sys.orig_argv[-len(sys.argv) :][:1]  # the script, or the module after -m
    return any(
        pathlib.PurePath(word.removeprefix("-m")).name.split(".")[0] == "randviz"
        for word in started
    )


def watch() -> None:
    """Answers signals from now on; to be called before anything starts a thread.

    A signal that is ignored, as under `nohup`, stays ignored.
    """
    if not hasattr(signal, "pthread_sigmask"):
        return
    _watched.update(_list_answered())
    for number in _watched:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, _watched)
    atexit.register(signal.pthread_sigmask, signal.SIG_UNBLOCK, _watched)
    threading.Thread(target=_wait, daemon=True).start()


def _list_answered() -> list[int]:
    return [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]


def _wait() -> None:
    while True:
        number = signal.sigwait(_watched)
        wish = next(reversed(_wishes), None)
        if wish and not wish.number:
            _received.append(number)
            _tell(wish, number)
            continue
        start = _SHOW_CURSOR if os.isatty(2) else ""
        said = f"{start}randviz: stopped; the same command goes on after what it has saved.\n"
        with contextlib.suppress(OSError):  # after SIGHUP the terminal may be gone
            os.write(2, said.encode())
        _end(number)


def _tell(wish: Wish, number: int) -> None:
    for told in (wish, *_listeners):
        told.number = number


def _end(number: int) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # if a library has given the signal another meaning


def end_by_signal() -> None:
    """Ends the process by the signal that its last descent stopped for, if it is a program.

    A shell tells this from an exit code: it ends its own loop too.
    """
    if _received:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        _end(_received[-1])


@contextlib.contextmanager
def defer() -> Iterator[Wish]:
    """Turns the first signal into a wish to stop; a second one stops at once.

    Yields:
      The wish, to be looked at often.
    """
    wish = Wish()

    def note(number, frame):
        _tell(wish, number)
        signal.signal(number, previous[number])

    previous = {}
    # Only the main thread may set handlers; elsewhere signals are somebody else's business.
    if not _watched and threading.current_thread() is threading.main_thread():
        previous = {number: signal.signal(number, note) for number in _list_answered()}
    _wishes.append(wish)
    try:
        yield wish
    finally:
        _wishes.remove(wish)
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def listen() -> Iterator[Wish]:
    """Notes a signal that a block of `defer` inside this one is told of, and defers none itself.

    Such a block may come to its end all the same, or end by another error.

    Yields:
      The wish.
    """
    wish = Wish()
    _listeners.append(wish)
    try:
        yield wish
    finally:
        _listeners.remove(wish)
