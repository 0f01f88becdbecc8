"""Removes what unfinished runs left in an output folder; pictures and records stay.

A run that was stopped keeps its state, so that the same command can go on with it. After this it
cannot.

Usage: randviz clear --out_dir=FOLDER [--dry_run]

Example:
  randviz clear --out_dir=out/invert
"""

import dataclasses
import functools
import pathlib
import shutil

from randviz.host.folders import list_leftovers, lock_folder
from randviz.host.settings import CommandSettings, run_command, setting
from randviz.types import UserError


@dataclasses.dataclass(frozen=True)
class Settings(CommandSettings):
    """Settings of `randviz clear`."""

    dry_run: bool = setting(False, "Only says what would be removed.")
    out_dir: str = setting("", "The folder that is cleared.")


def run(settings: Settings) -> None:
    """Removes what is left over in one folder, and says what."""
    if not settings.out_dir or not pathlib.Path(settings.out_dir).is_dir():
        raise UserError(f"--out_dir={settings.out_dir} is not a folder; name one to clear.")
    with lock_folder(settings.out_dir) as folder:
        found = list_leftovers(folder)
        if not settings.dry_run:
            for path in found:
                path.unlink() if path.is_file() else shutil.rmtree(path)
        names = ", ".join(path.name for path in found) or "nothing"
        print(f"clear: {'would remove' if settings.dry_run else 'removed'} {names} in {folder}")


main = functools.partial(run_command, "randviz clear", Settings, run, doc=__doc__)
