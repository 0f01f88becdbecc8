"""In a notebook: results show themselves as pictures, and a run shows how far it is."""

import io
import sys
from typing import NamedTuple

from randviz.descent.descent import Iterate, Progress
from randviz.host.images import to_8_bits
from randviz.types import UserError


def encode_png(image) -> bytes:
    """The bytes of a PNG with 8 bits a channel.

    Args:
      image: [H, W, 3], RGB, nominally in [0, 1].

    Raises:
      UserError: as `to_8_bits`.
    """
    file = io.BytesIO()
    to_8_bits(image, "the picture").save(file, "PNG")
    return file.getvalue()


def _repr_png_(self: NamedTuple) -> bytes | None:
    try:
        return encode_png(self.image)
    except (UserError, TypeError):
        return None  # of many images, under `jit`, or not finite: shown as text


def show_as_pictures(*kinds: type) -> None:
    """Lets notebooks show values of these types as pictures.

    The types are the core's, which knows no files and formats; so they are given this from outside.

    Args:
      kinds: types with `image`, [H, W, 3].
    """
    for kind in kinds:
        kind._repr_png_ = _repr_png_


def show_progress() -> Progress:
    """Makes what shows a run: in a notebook its picture as it grows, elsewhere a line on stderr.

    Returns:
      A function of an `Iterate`, for `progress` of one run.

    Example:
      >>> progress = show_progress()
      >>> progress(Iterate(20, None, 0.25))
    """
    if "IPython" not in sys.modules or sys.modules["IPython"].get_ipython() is None:
        return lambda found: print(_describe(found), file=sys.stderr)
    from IPython.display import display

    handles = []

    def show(found: Iterate) -> None:
        text = {"text/plain": _describe(found)}
        if not handles:
            handles.append(display(text, raw=True, display_id=True))
            handles.append(display(found, display_id=True))
        handles[0].update(text, raw=True)
        handles[1].update(found)

    return show


def _describe(found: Iterate) -> str:
    return f"step {found.step}  loss {found.loss:.4g}"
