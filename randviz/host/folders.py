"""Output folders: one process at a time, and what unfinished runs left in them."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

try:
    import fcntl
except ImportError:  # where there are no such locks, two processes are the user's business
    fcntl = None

from randviz.host.images import TEMPORARY_PREFIX, explain_failure
from randviz.host.runs import UNFINISHED_PREFIX, prepare_folder
from randviz.types import UserError

LOCK = ".lock"


@contextlib.contextmanager
def lock_folder(path: str | pathlib.Path) -> Iterator[pathlib.Path]:
    """Makes an output folder and keeps other processes out of it.

    The lock is the kernel's: it ends with the process, however that ends, and a file left over
    locks nothing. A folder that was made here and stayed empty is removed again.

    Args:
      path: of the folder.

    Yields:
      The folder.

    Raises:
      UserError: if it cannot be written, or another process is at work in it.
    """
    is_new = not pathlib.Path(path).exists()
    folder = prepare_folder(path)
    file = _take_lock(folder) if fcntl else None
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):  # somebody may have removed the folder
            if file is not None:
                (folder / LOCK).unlink()
            if is_new:
                folder.rmdir()
        if file is not None:
            os.close(file)


def _take_lock(folder: pathlib.Path) -> int | None:
    """The lock file, open, with the number of this process in it; None where nothing is locked."""
    path = folder / LOCK
    while True:
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise UserError(
                f"the output folder {folder} cannot be locked ({explain_failure(error)}); choose"
                " another --out_dir."
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The process that had it may have removed the file after it was opened here.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file), os.stat(path)):
                    os.truncate(file, 0)
                    with contextlib.suppress(OSError):  # a full disk is said when it matters
                        os.write(file, str(os.getpid()).encode())
                    return file
        except BlockingIOError as error:
            holder = os.read(file, 20).decode() or "of unknown number"
            os.close(file)
            raise UserError(
                f"process {holder} is at work in the folder {folder}; wait for its end, or choose"
                " another --out_dir."
            ) from error
        except OSError:  # some network file systems have no locks
            os.close(file)
            return None
        os.close(file)


def list_leftovers(folder: pathlib.Path) -> list[pathlib.Path]:
    """What unfinished runs left in a folder in which none is at work: states, temporary files."""
    prefixes = UNFINISHED_PREFIX, TEMPORARY_PREFIX
    return sorted(path for prefix in prefixes for path in folder.glob(f"{prefix}*"))


def report_leftovers(name: str, folder: pathlib.Path) -> None:
    """Prints a line about what runs of other settings left in a folder, if they did.

    Args:
      name: of the command.
      folder: in which a run has just finished.
    """
    names = [path.name for path in list_leftovers(folder)]
    if names:
        more = f" and {len(names) - 1} more" if names[1:] else ""
        print(
            f"{name}: an unfinished run of other settings left {names[0]}{more}; `randviz clear"
            f" --out_dir={folder}` removes what such runs left."
        )
