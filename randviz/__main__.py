"""Paints, makes textures and rebuilds pictures with deep networks that were never trained.

Usage: randviz COMMAND [--flag=value ...]

Example:
  randviz style --content_image=chelsea --style_image=starry_night --out_dir=out/starry_cat

Commands:
  style       paint a photograph in the style of a painting
  texture     make more of a texture
  invert      rebuild a picture from the features of one layer
  studio      a page on which a photograph is painted before one's eyes
  demo        all of it on sample pictures, in minutes, with a page to look at
  compare     rebuild pictures through random and through trained weights, side by side
  select      choose a network, layer by layer, by how well it reconstructs (ranVGG)
  population  rebuild a picture through many networks and see how much they differ
  league      compare architectures without training, yours among them
  clear       remove what unfinished runs left in a folder

`randviz COMMAND --help` tells how each is used, `randviz --version` the version.

Exit codes:
  0    done
  1    a fault of the program, with a traceback: please report it
  2    a mistake in what was asked for, or no room on the disk or in memory; one sentence says which
       flag or file and what to do; of many pictures, some failed
  130  stopped by Ctrl-C, 143 by kill, 129 as the terminal closed; the same command goes on
"""

import importlib
import importlib.metadata
import inspect
import sys
from collections.abc import Sequence
from types import ModuleType

COMMANDS = (
    "style",
    "texture",
    "invert",
    "studio",
    "demo",
    "compare",
    "select",
    "population",
    "league",
    "clear",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that the first argument names; returns its exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    if args[:1] == ["help"]:  # as many programs have it: help COMMAND
        args = [*args[1:2], "--help"]
    if not args or args[0] in ("--help", "-h", "--helpshort", "--helpfull"):
        # Only here, so that a command starts sooner.
        from randviz.host.samples import describe_samples

        print(inspect.cleandoc(__doc__))
        print(f"\nSample pictures, which need no file:\n{describe_samples('--helpfull' in args)}")
        return 0 if args else 2
    if args[0] == "--version":
        print(f"randviz {importlib.metadata.version('randviz')}")
        return 0
    name, *rest = args
    if name not in COMMANDS:
        from randviz.host.settings import suggest

        print(
            f"randviz: there is no command {name!r}{suggest(name, COMMANDS)}; use one of"
            f" {', '.join(COMMANDS)}.",
            file=sys.stderr,
        )
        return 2
    return load_command(name).main(rest)


def load_command(name: str) -> ModuleType:
    """The module of a command; one of them is a study of the experiments as well."""
    folder = "experiments" if name == "league" else "commands"
    return importlib.import_module(f"randviz.{folder}.{name}")


if __name__ == "__main__":
    sys.exit(main())
