"""Shows what an untrained deep network knows.

Usage: randviz COMMAND [--flag=value ...]

Commands:
  invert      rebuild a picture from the features of one layer
  texture     make more of a texture
  style       paint a photograph in the style of a painting
  compare     rebuild pictures through random and through trained weights, side by side
  select      choose a network, layer by layer, by how well it reconstructs (ranVGG)
  population  rebuild a picture through many networks and see how much they differ
  studio      a page on which a photograph is painted before one's eyes
  demo        all of it on sample pictures, in minutes, with a page to look at
  clear       remove what unfinished runs left in a folder

`randviz COMMAND --help` tells each one's flags, `randviz --version` the version. Samples are
pictures that need no file:
"""

import importlib
import importlib.metadata
import inspect
import sys
from collections.abc import Sequence

COMMANDS = ("invert", "texture", "style", "compare", "select", "population")
COMMANDS += ("studio", "demo", "clear")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that the first argument names; returns its exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("--help", "-h", "help"):
        # Only here, so that a command starts sooner.
        from randviz.host.samples import describe_samples

        print(inspect.cleandoc(__doc__))
        print(describe_samples())
        return 0 if args else 2
    if args[0] == "--version":
        print(f"randviz {importlib.metadata.version('randviz')}")
        return 0
    name, *rest = args
    if name not in COMMANDS:
        print(
            f"randviz: there is no command {name!r}; use one of {', '.join(COMMANDS)}.",
            file=sys.stderr,
        )
        return 2
    return importlib.import_module(f"randviz.commands.{name}").main(rest)


if __name__ == "__main__":
    sys.exit(main())
