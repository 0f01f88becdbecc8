"""Progress of long work: a bar on a terminal, lines elsewhere."""

import sys
import time
from collections.abc import Callable
from typing import Self

import rich.console
import rich.progress

_LOG_SECONDS = 10.0
_displays: list[rich.progress.Progress] = []  # the one on the terminal, which nested ones share
_silenced: list[bool] = []  # whether this process writes no progress


def silence() -> None:
    """Writes no progress in this process from now on: another one does."""
    _silenced.append(True)


class Progress:
    """Progress with pace and time left.

    Every command that takes long reports through one of these: steps of a descent, records of a
    study, candidates of a selection.
    """

    def __init__(
        self,
        label: str,
        total: int,
        done: int = 0,
        *,
        unit: str = "step",
        print_every: int = 0,
        work: Callable[[int], float] = float,
        silent: bool = False,
    ):
        """Prepares.

        Args:
          label: what the work is called.
          total: of it, in units.
          done: how much of it was done before.
          unit: what is counted, in the singular.
          print_every: units between two lines; 0 for a line every ten seconds, or a bar.
          work: done → what it cost so far, for units that do not take equally long.
          silent: whether nothing is written, in all processes of several but the first.
        """
        self.label, self.total, self.unit, self.print_every = label, total, unit, print_every
        self.work = work
        self.first = done
        self.began: float | None = None  # when the pace began to be measured
        self.reported = 0.0  # when the last line was written; 0 before the first
        self.left: float | None = None  # seconds to the end, once the pace is known
        self.console = rich.console.Console(
            file=sys.stderr, highlight=False, quiet=silent or bool(_silenced)
        )
        self.bar = None

    def __enter__(self) -> Self:
        if self.first:
            self.console.print(f"{self.label}: going on after {self.unit} {self.first}")
        if self.console.is_terminal and not self.print_every:
            columns = (
                rich.progress.TextColumn("{task.description}"),
                rich.progress.BarColumn(),
                rich.progress.MofNCompleteColumn(),
                rich.progress.TextColumn("{task.fields[details]}"),
            )
            if not _displays:
                display = rich.progress.Progress(*columns, console=self.console)
                display.start()
            else:
                display = _displays[-1]
            _displays.append(display)
            self.bar = display
            self.task = self.bar.add_task(
                self.label, total=self.total, completed=self.first, details="compiling"
            )
        return self

    def __exit__(self, *exception) -> None:
        if self.bar:
            _displays.pop()
            if _displays:
                self.bar.remove_task(self.task)
            else:
                self.bar.stop()

    def restart(self) -> None:
        """Measures the pace from the next report on, since something is compiled before it."""
        self.began = None

    def report(self, done: int, details: str = "") -> None:
        """Reports how much is done.

        Args:
          done: units in all, those of earlier sessions included.
          details: what else there is to say.
        """
        now = time.monotonic()
        if self.began is not None:
            seconds = now - self.began
            pace = (done - self.first) / seconds
            share = self.work(done) - self.work(self.first)
            self.left = (self.work(self.total) - self.work(done)) * seconds / share
            details += f"  {pace:.2f} {self.unit}s/s  {format_seconds(self.left)} left"
        else:
            # Counted from here: what came before was mostly compilation.
            self.began, self.first = now, done
        due = not self.reported or now - self.reported > _LOG_SECONDS
        if self.print_every:
            due = not self.reported or done % self.print_every == 0
        if self.bar:
            self.bar.update(self.task, completed=done, details=details)
            self.reported = now
        elif due or done == self.total:
            line = f"{self.label}: {self.unit} {done}/{self.total}  {details}"
            self.console.print(line, soft_wrap=True)
            self.reported = now


def format_seconds(seconds: float) -> str:
    """Writes a time as minutes and seconds, and hours where there are some.

    Example:
      >>> format_seconds(200), format_seconds(7325.3)
      ('3:20', '2:02:05')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
