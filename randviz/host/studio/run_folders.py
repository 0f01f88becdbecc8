"""Folders of runs as the studio sees them: what is in them, and the processes at work there.

A run is an ordinary command in a process of its own. All that is known of it lies in its folder:
its state and preview while it is unfinished, its record and picture afterwards, and in `studio`
what the studio adds, namely how the command was started, what it said and what it was given. So
another server, or the same one started again, knows as much as the first.
"""

import contextlib
import json
import os
import pathlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psutil

from randviz.host import preview
from randviz.host.folders import LOCK
from randviz.host.images import explain_failure, load_image, resize_image, save_image, write_text
from randviz.host.progress import format_seconds
from randviz.host.runs import UNFINISHED_PREFIX, prepare_folder
from randviz.types import UserError

COMMANDS = ("style", "texture", "invert")  # what can be started and watched
_OWN, _START, _LOG = "studio", "start.json", "log.txt"
_NAME = re.compile(r"\w[\w.-]{0,99}")
_LISTED = ("name", "phase", "settings", "time", "pictures")
_MOST_RUNS = 60  # of a list, the newest
_MOST_TEXT = 2**24  # bytes of a record that is read
_SHOWN = (".png", ".jpg", ".jpeg", ".webp", ".bmp")  # pictures that browsers show


class RunFolder:
    """One run's folder.

    Attributes:
      path: of the folder.
      name: of the run, as the page calls it.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path
        self.name = path.resolve().name

    def keep_pictures(self, pictures: Mapping[str, str], size: int) -> dict[str, pathlib.Path]:
        """Keeps what the run is given in its folder, which is made.

        Args:
          pictures: {"content" or "style": path or sample}.
          size: longest side, in pixels, above which the pictures are made smaller.

        Returns:
          {name: path} of the pictures kept.

        Raises:
          UserError: if a picture cannot be read, or the folder not be written.
        """
        kept = {name: self.path / _OWN / f"{name}.png" for name in pictures}
        for name, source in pictures.items():
            image = load_image(source)
            save_image(kept[name], resize_image(image, min(size, max(image.shape))))
        return kept

    def write_start(self, words: Sequence[str], process: psutil.Process | None = None) -> None:
        """Writes down how the run is started.

        Args:
          words: of the command, beginning with its name.
          process: the one that was started.

        Raises:
          UserError: if it cannot be written.
        """
        start = {"words": list(words), "cwd": os.getcwd(), "time": time.time()}
        if process:
            start |= {"pid": process.pid, "born": process.create_time()}
        write_text(self.path / _OWN / _START, json.dumps(start))

    def start(self, *, log: bool = True) -> subprocess.Popen:
        """Starts the run's command, or starts it again where it was stopped.

        The process has a session of its own: a Ctrl-C meant for the server is the server's to
        pass on, and a server that is killed outright leaves the run to its end.

        Args:
          log: whether what the command says is kept in a file, and not shown on the terminal.

        Returns:
          The process.

        Raises:
          UserError: if it is at work already, or it is not known how it was started.
        """
        if self.find_process():
            raise UserError(f"{self.name} is at work already; wait for its end, or stop it.")
        start = self._read_start()
        words = start.get("words", ())
        if not words or words[0] not in COMMANDS:
            raise UserError(
                f"{self.name} was not started from here; the command that started it goes on."
            )
        # The last flag of a name counts.
        words = [*words, "--preview=true", "--watch=false", f"--out_dir={self.path.absolute()}"]
        with contextlib.ExitStack() as stack:
            stderr = None
            if log:
                stderr = stack.enter_context((self.path / _OWN / _LOG).open("wb"))
            try:
                process = subprocess.Popen(
                    [sys.executable, "-m", "randviz", *words],
                    cwd=start["cwd"],
                    stdin=subprocess.DEVNULL,
                    stdout=stderr,
                    stderr=stderr,
                    start_new_session=True,
                )
            except OSError as error:
                raise UserError(
                    f"{self.name} cannot be started ({explain_failure(error)})."
                ) from error
        with contextlib.suppress(psutil.Error):  # it may have ended
            self.write_start(start["words"], psutil.Process(process.pid))
        return process

    def stop(self) -> bool:
        """Asks the process at work to save its state and end; says whether there was one."""
        process = self.find_process()
        if process:
            with contextlib.suppress(psutil.Error):
                process.terminate()
        return process is not None

    def find_process(self) -> psutil.Process | None:
        """The process at work in the folder: the one that was started, or the lock's holder."""
        with contextlib.suppress(psutil.Error, KeyError):
            start = self._read_start()
            process = psutil.Process(start["pid"])
            if abs(process.create_time() - start["born"]) < 1 and _is_alive(process):
                return process
        with contextlib.suppress(psutil.Error, OSError, ValueError):
            lock = self.find(LOCK)
            process = psutil.Process(int(lock.read_text()))
            # A lock file left over may name a number that another process has by now.
            if process.create_time() < lock.stat().st_mtime + 1 and _is_alive(process):
                return process
        return None

    def find(self, *parts: str) -> pathlib.Path:
        """A file of the run's own.

        Raises:
          FileNotFoundError: if it is not there, is no file, or is reached by a link.
        """
        path = self.path.joinpath(*parts)
        if path.resolve() != self.path.resolve().joinpath(*parts) or not path.is_file():
            raise FileNotFoundError(path)
        return path

    def find_picture(self, name: str) -> pathlib.Path:
        """A picture of the run.

        Args:
          name: "preview" of an unfinished run, "result", or "content" and "style", what it was
            given.

        Raises:
          FileNotFoundError: if there is none.
        """
        if name == "preview":
            return self.find(self._find_state().name, preview.PICTURE)
        if name == "result":
            output = self._read("run.json").get("settings", {}).get("output_image") or "out.png"
            output = pathlib.PurePath(output).name
            if pathlib.PurePath(output).suffix.lower() not in _SHOWN:
                raise FileNotFoundError(output)
            return self.find(output)
        if name in ("content", "style"):
            return self.find(_OWN, f"{name}.png")
        raise FileNotFoundError(name)

    def _find_state(self) -> pathlib.Path:
        """The state that was last worked on; FileNotFoundError if there is none."""
        found = []
        for path in self.path.glob(f"{UNFINISHED_PREFIX}*"):
            with contextlib.suppress(FileNotFoundError):
                found.append(self.find(path.name, preview.PROGRESS))
        if not found:
            raise FileNotFoundError(self.path)
        return max(found, key=_read_time).parent

    def _read(self, *parts: str) -> dict[str, Any]:
        """What a JSON file of the run's says; nothing if it cannot be read."""
        with contextlib.suppress(OSError, ValueError, RecursionError):
            path = self.find(*parts)
            if path.stat().st_size <= _MOST_TEXT:
                found = json.loads(path.read_text(encoding="utf-8"))
                return found if isinstance(found, dict) else {}
        return {}

    def _read_start(self) -> dict[str, Any]:
        return self._read(_OWN, _START)

    def _read_log(self) -> str:
        """The last line of what the command said."""
        with contextlib.suppress(OSError):
            lines = self.find(_OWN, _LOG).read_text(errors="replace").splitlines()
            return next((line.strip()[:500] for line in reversed(lines) if line.strip()), "")
        return ""

    def describe(self) -> dict[str, Any] | None:
        """What a page shows of the run; None if the folder is none of a run.

        Returns:
          name; phase, one of "running", "stopped", "finished"; step, total; left, seconds or None;
          message; seconds; settings; losses and their steps; pictures, {name: version}; and
          whether the run can be gone on with.
        """
        start, record = self._read_start(), self._read("run.json")
        progress, state = {}, None
        with contextlib.suppress(OSError):
            state = self._find_state()
            progress = self._read(state.name, preview.PROGRESS)
        is_record = record.get("command") in COMMANDS and isinstance(record.get("losses"), list)
        if not (start or progress or is_record):
            return None
        is_running = self.find_process() is not None
        began, message = start.get("time", 0.0), ""
        written = _read_time(self.path / "run.json")
        is_finished = is_record and not is_running and written >= max(began, _read_time(state))
        found = {
            "name": self.name,
            "words": " ".join(["randviz", *start.get("words", ())]) if start else "",
            "settings": _read_settings(start, record if is_finished or not start else {}),
            "can_go_on": bool(start) and not is_running and not is_finished,
            "time": max(began, written),
        }
        if is_finished:
            losses = record["losses"]
            shown = preview.choose_shown(len(losses))
            found |= {
                "phase": "finished",
                "step": len(losses),
                "total": len(losses),
                "left": 0,
                "seconds": record.get("seconds"),
                "losses": [losses[place] for place in shown],
                "steps": [place + 1 for place in shown],
            }
        else:
            if is_running and progress.get("time", 0) < began:
                # What an earlier session wrote says nothing of the pace of this one.
                progress["left"] = None
                message = "preparing" if progress.get("step") else "compiling"
            elif not is_running:
                message = self._read_log()
            found |= {
                "phase": "running" if is_running else "stopped",
                "step": progress.get("step", 0),
                "total": progress.get("total", 0),
                "left": progress.get("left"),
                "losses": progress.get("losses", []),
                "steps": progress.get("steps", []),
            }
        left = found["left"]
        found["time_left"] = format_seconds(left) if isinstance(left, int | float) else ""
        found["message"] = message
        found["pictures"] = {
            name: version
            for name in ("preview", "result", "content", "style")
            if (version := self._find_version(name)) and (name != "result" or is_finished)
        }
        return found

    def _find_version(self, picture: str) -> str:
        """Changes when the picture does; empty if there is none."""
        with contextlib.suppress(OSError):
            return format(self.find_picture(picture).stat().st_mtime_ns, "x")
        return ""


class Workshop:
    """A folder with the folders of runs in it, and with the processes that were started here."""

    def __init__(self, path: pathlib.Path):
        """Prepares.

        Args:
          path: a folder of runs, or of one run alone.
        """
        self.path = path
        self.processes: dict[str, subprocess.Popen] = {}
        self.last: subprocess.Popen | None = None  # of those that were started here
        self._described: dict[str, tuple[Any, dict[str, Any] | None]] = {}

    def find(self, name: str) -> RunFolder:
        """The run of a name.

        Raises:
          FileNotFoundError: if there is none, or it is a link.
        """
        itself = self.find_itself()
        if name == itself.name and itself.describe():
            return itself
        path = self.path / name
        if not _NAME.fullmatch(name) or path.is_symlink() or not path.is_dir():
            raise FileNotFoundError(name)
        return RunFolder(path)

    def find_itself(self) -> RunFolder:
        """The folder as that of one run."""
        return RunFolder(self.path)

    def make(self, name: str) -> RunFolder:
        """Makes the folder of a new run.

        Raises:
          UserError: if another run is at work, the name is taken, or the folder not be made.
        """
        self._check_free()
        path = prepare_folder(self.path) / name
        try:
            path.mkdir()
        except OSError as error:
            raise UserError(f"{path} cannot be made ({explain_failure(error)}).") from error
        return RunFolder(path)

    def list_runs(self) -> Iterator[dict[str, Any]]:
        """Describes the newest runs, newest first, without losses."""
        with contextlib.suppress(FileNotFoundError):
            folders = [self.find_itself()]
            with os.scandir(self.path) as entries:
                folders += [
                    RunFolder(pathlib.Path(entry.path))
                    for entry in entries
                    if _NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
                ]
            folders.sort(key=lambda folder: _read_time(folder.path), reverse=True)
            found = [self._describe(folder) for folder in folders[:_MOST_RUNS]]
            found = [run for run in found if run]
            yield from sorted(found, key=lambda run: run["time"], reverse=True)

    def _describe(self, folder: RunFolder) -> dict[str, Any] | None:
        """What a list shows of a run; read again only if it may have changed."""
        times = [_read_time(folder.path), _read_time(folder.path / "run.json")]
        key = str(folder.path)
        known, found = self._described.get(key, (None, None))
        if known != times or (found and found["phase"] == "running"):
            found = folder.describe()
            if found:
                found = {name: found[name] for name in _LISTED}
                if found["phase"] == "running":
                    # Not one version after another: a list need not follow each step.
                    found["pictures"] = dict.fromkeys(found["pictures"], "now")
            self._described[key] = times, found
        return found

    def start(self, folder: RunFolder, *, log: bool = True) -> None:
        """Starts a run, or goes on with it.

        Raises:
          UserError: if another one that was started here is at work, or as `RunFolder.start`.
        """
        self._check_free()
        self.last = self.processes[folder.name] = folder.start(log=log)

    def _check_free(self) -> None:
        self.reap()
        if self.processes:
            raise UserError(
                f"{next(iter(self.processes))} is at work; stop it first, or wait for its end."
            )

    def reap(self) -> None:
        """Forgets processes that have ended."""
        # One by one, since another thread may add one meanwhile.
        for name, process in list(self.processes.items()):
            if process.poll() is not None:
                self.processes.pop(name, None)

    def close(self) -> list[str]:
        """Stops what was started here, waits until its state is saved, and names it."""
        self.reap()
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait()
        return list(self.processes)


def new_name(settings: Mapping[str, Any]) -> str:
    """A name for a new run's folder, from its time and settings.

    Example:
      >>> new_name({"style_image": "a/My Painting.png", "image_size": 256})[15:]
      '-My_Painting-256'
    """
    style = re.sub(r"\W+", "_", pathlib.PurePath(settings["style_image"]).stem)[:40].strip("_")
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{style or 'style'}-{settings['image_size']}"


def _is_alive(process: psutil.Process) -> bool:
    return process.status() != psutil.STATUS_ZOMBIE


def _read_time(path: pathlib.Path | None) -> float:
    """When a path was last changed, in seconds; 0 if it is not there."""
    with contextlib.suppress(OSError, AttributeError):
        return path.stat().st_mtime
    return 0.0


def _read_settings(start: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, str]:
    """{flag: value as text} of a run: what was asked for, or what its record says."""
    found = {}
    if record:
        for name, value in record.get("settings", {}).items():
            if isinstance(value, list):
                value = ",".join(map(str, value))
            found[name] = str(value)
        return found
    for word in start.get("words", ())[1:]:
        name, _, value = word.removeprefix("--").partition("=")
        found[name] = value
    return found
