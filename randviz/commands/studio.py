"""Opens a page on which a photograph is painted before one's eyes.

Drop a photograph and a painting on it, or pick samples; choose strength, size and method; stop, go
on, compare, download. The page is this machine's own: nobody else can open it, and nothing on it
comes from elsewhere. It needs `pip install 'randviz[studio]'`.

Usage: randviz studio [--flag=value ...]

Example:
  randviz studio --out_dir=out/studio

Each run is an ordinary `randviz style` in a folder of its own, with its picture and run.json.
Ctrl-C ends the page and stops the run at work, whose state is saved; start the studio again and go
on with it.
"""

import dataclasses
import functools
from collections.abc import Callable

from randviz.commands.pictures import names_many
from randviz.host import signals
from randviz.host.runs import Stopped, prepare_folder
from randviz.host.settings import list_flags, run_command, setting
from randviz.types import UserError


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of `randviz studio`."""

    out_dir: str = setting("out/studio", "Folder of the runs, a folder for each.")
    port: int = setting(
        8765,
        "Port on this machine's own address, 127.0.0.1; 0 for any that is free.",
        lower_bound=0,
        upper_bound=65535,
    )


def run(settings: Settings) -> None:
    """Serves the page until a signal."""
    serve = _import_serve()
    folder = prepare_folder(settings.out_dir)

    def show(workshop, address: str) -> None:
        print(f"studio: open {address}\nstudio: Ctrl-C ends it", flush=True)

    with signals.defer() as wish:
        workshop = serve(folder, wish, port=settings.port, ready=show)
        stopped = workshop.close()
    saved = f" {stopped[0]} is saved and can be gone on with." if stopped else ""
    raise Stopped(f"the page is closed.{saved}")


def watchable(name: str, flag: str, run: Callable[..., None]) -> Callable[..., None]:
    """Lets a command be watched on a page.

    With --watch, the command becomes the page's server, and the run a process of its own under it.
    It ends when the run has ended and no page is open any more.

    Args:
      name: of the command.
      flag: that names its picture.
      run: it, from its settings.

    Returns:
      The same, watched where the settings say so.
    """

    def run_watched(settings) -> None:
        if settings.watch and not settings.dry_run:
            _watch(name, flag, settings)
        else:
            run(settings)

    return run_watched


def _watch(name: str, flag: str, settings) -> None:
    serve = _import_serve()
    source = getattr(settings, flag)
    if names_many(source):
        raise UserError(f"--watch shows one picture and --{flag} names many; leave one out.")
    folder = prepare_folder(settings.out_dir)
    # A square of it could not be laid over the result.
    pictures = {"content": source} if name != "texture" and not settings.square else {}
    if name == "style" and settings.style_image:
        pictures["style"] = settings.style_image[0]

    def start(workshop, address: str) -> None:
        watched = workshop.find_itself()
        watched.keep_pictures({role: p for role, p in pictures.items() if p}, settings.image_size)
        watched.write_start([name, *list_flags(settings)])
        workshop.start(watched, log=False)
        print(f"{name}: watch it at {address}", flush=True)

    with signals.defer() as wish:
        workshop = serve(folder, wish, watched=folder.resolve().name, ready=start)
        workshop.close()
    if wish.number or workshop.last.returncode < 0:
        raise Stopped("stopped; the same command goes on after what it has saved.")
    if workshop.last.returncode:
        raise UserError("the run ended early, as said above; mend that, and start it again.")


def _import_serve() -> Callable:
    # Not at the top: the server is an extra, and the other commands start sooner without it.
    try:
        from randviz.host.studio.server import serve
    except ImportError as error:
        raise UserError(
            f"the page needs {error.name}, which is not installed; run `pip install"
            " 'randviz[studio]'`."
        ) from error
    return serve


main = functools.partial(run_command, "randviz studio", Settings, run, doc=__doc__)
