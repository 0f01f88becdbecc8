"""One picture or many: which ones a flag names, where each result goes, and the run over them."""

import collections
import dataclasses
import glob
import os
import pathlib
import sys
from collections.abc import Callable, Sequence

from randviz.commands.descent import Task, is_done, run_task
from randviz.commands.descent_settings import DescentSettings
from randviz.host import signals
from randviz.host.folders import lock_folder
from randviz.host.images import READ_SUFFIXES
from randviz.host.programs import release_programs
from randviz.host.progress import Progress
from randviz.host.runs import Stopped
from randviz.host.samples import is_sample
from randviz.host.settings import explain_error
from randviz.types import UserError


def run_pictures(
    name: str,
    plan: Callable[[DescentSettings], Task],
    flag: str,
    settings: DescentSettings,
) -> None:
    """Runs a command on the one picture that a flag names, or on each of many.

    Of many each has a folder in --out_dir, with what a run of it alone would write. One that was
    done before with the same settings is skipped. One that fails is said, and the others go on.
    Pictures of one size share their compiled programs.

    Args:
      name: of the command.
      plan: makes the task of one picture.
      flag: that names the pictures: a path or a sample's name, for one; a folder, a pattern, or a
        tuple of all these, for many.
      settings: of the command.

    Raises:
      UserError: as `plan` and `run_task`; of many, if there are none, if the settings fit no
        picture, or at the end, if some failed.
      Stopped: if the user stopped it.
    """
    value = getattr(settings, flag)
    if not names_many(value):
        run_task(plan(settings))
        return
    sources = find_pictures(flag, value if isinstance(value, tuple) else (value,))
    for other in ("output_image", "animation"):
        if getattr(settings, other):
            raise UserError(
                f"--{other} names one file and --{flag} names {len(sources)} pictures; leave it"
                " out, and each has a folder in --out_dir."
            )
    each = [
        dataclasses.replace(settings, **{flag: source}, out_dir=f"{settings.out_dir}/{folder}")
        for source, folder in name_folders(sources).items()
    ]
    if settings.dry_run:
        print(f"{name}: {len(sources)} pictures; of the first, {sources[0]}:")
        run_task(plan(each[0]))
        return
    with lock_folder(settings.out_dir):
        _run_each(name, plan, flag, each)


def _run_each(
    name: str,
    plan: Callable[[DescentSettings], Task],
    flag: str,
    each: Sequence[DescentSettings],
) -> None:
    total, skipped, failed = len(each), 0, []
    with Progress(name, total, unit="picture") as progress, signals.listen() as wish:
        for number, settings in enumerate(each, 1):
            source = getattr(settings, flag)
            task = None
            try:
                task = plan(settings)
                if is_done(task):
                    print(f"{name}: {source} was done before, see {settings.out_dir}")
                    skipped += 1
                    progress.restart()
                    continue
                release_programs()
                run_task(task, label=f"{name} {source}")
            except Exception as error:
                said = explain_error(error)
                is_named = said is not None and source in said
                # What is wrong before a picture is begun, and not with it, is wrong with them all.
                if said is None or wish.number or (task is None and not is_named):
                    raise
                failed.append(source)
                said = said if is_named else f"{source}: {said}"
                print(f"randviz {name}: {said}", file=sys.stderr)
            if wish.number and number < total:
                raise Stopped(
                    f"stopped after {number} of {total} pictures; the same command goes on there."
                )
            progress.report(number)
    before = f", {skipped} of them before" if skipped else ""
    done = f"{total - len(failed)} of {total} pictures are done{before}"
    if failed:
        more = f" and {len(failed) - 1} more" if failed[1:] else ""
        raise UserError(
            f"{done}; {failed[0]}{more} failed, as said above; mend that, and the same command does"
            " the rest."
        )
    print(f"{name}: {done}, see the folders in {pathlib.Path(each[0].out_dir).parent}")


def names_many(value: str | tuple[str, ...]) -> bool:
    """Whether a flag's value names a folder, a pattern or several pictures, and not one."""
    return isinstance(value, tuple) or _is_folder(value) or _is_pattern(value)


def find_pictures(flag: str, words: Sequence[str]) -> list[str]:
    """Finds the pictures that words on a command line name.

    Args:
      flag: for messages.
      words: paths and samples' names, which stand for themselves, whether or not they exist;
        folders, for the pictures right inside; and patterns, for the files that fit.

    Returns:
      Paths and names, each file once, those of a folder or pattern in alphabetical order.

    Raises:
      UserError: if there is nothing in a folder or under a pattern.
    """
    found: dict[str, str] = {}
    for word in words:
        sources = [word]
        if _is_folder(word):
            inside = glob.glob(os.path.join(glob.escape(word), "*"))
            sources = [p for p in inside if pathlib.Path(p).suffix.lower() in READ_SUFFIXES]
            if not sources:
                raise UserError(
                    f"the folder {word} has no pictures ({', '.join(READ_SUFFIXES)}); give another"
                    f" with --{flag}=."
                )
        elif _is_pattern(word):
            sources = [path for path in glob.glob(word) if not os.path.isdir(path)]
            if not sources:
                raise UserError(f"no file fits --{flag}={word}; check the folder and the pattern.")
        for source in sorted(sources):
            found.setdefault(source if is_sample(source) else os.path.abspath(source), source)
    return list(found.values())


def _is_folder(word: str) -> bool:
    return os.path.isdir(word) and not is_sample(word)


def _is_pattern(word: str) -> bool:
    return glob.has_magic(word) and not os.path.exists(word)


def name_folders(sources: Sequence[str]) -> dict[str, str]:
    """Names a folder for the result of each picture.

    Args:
      sources: paths and samples' names, each file once.

    Returns:
      {source: name}: the file's name without its suffix; where that is not enough to tell two
      pictures apart, with it; and with as many of the folders above as it takes.

    Example:
      >>> list(name_folders(["a/cat.jpg", "a/dog.jpg", "a/dog.png", "b/dog.png"]).values())
      ['cat', 'dog.jpg', 'a/dog.png', 'b/dog.png']
    """
    names = {}
    for source in sources:
        path = pathlib.Path(source if is_sample(source) else os.path.abspath(source))
        parts = path.parts[path.is_absolute() :]
        longer = ["/".join(parts[-count:]) for count in range(1, len(parts) + 1)]
        names[source] = [path.stem, *longer]
    while True:
        # Some file systems take upper and lower case for the same.
        taken = collections.Counter(options[0].casefold() for options in names.values())
        alike = [
            source
            for source, options in names.items()
            if len(options) > 1 and taken[options[0].casefold()] > 1
        ]
        if not alike:
            return {source: options[0] for source, options in names.items()}
        for source in alike:
            names[source] = names[source][1:]
