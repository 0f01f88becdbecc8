"""An animation of a run, from frames that are kept as files until it is finished."""

import pathlib
import warnings

from PIL import Image as Pillow

from randviz.host.images import replace_atomically, save_image, to_8_bits
from randviz.types import Image, UserError

_SUFFIXES = (".webp", ".gif")
_NUM_FRAMES = 40  # of a run whose interval is not chosen
_FRAME_MS, _LAST_MS = 100, 1500  # how long a frame and the last one are seen


def check_animation(path: pathlib.Path, picture: pathlib.Path) -> None:
    """Says whether an animation can be saved under this name, before the work of making it.

    Args:
      path: of the animation.
      picture: path of the run's picture.

    Raises:
      UserError: the suffix is not one of a format of animations, or both paths are the same.
    """
    if path.suffix.lower() not in _SUFFIXES:
        suffixes = " or ".join(_SUFFIXES)
        raise UserError(f"{path} does not end in a known format of animations; use {suffixes}.")
    if path.absolute() == picture.absolute():
        raise UserError(
            f"{path} is to be both the picture and the animation; name another with --animation."
        )


def choose_interval(num_steps: int) -> int:
    """Steps between two frames for about forty of them.

    Example:
      >>> choose_interval(500), choose_interval(9)
      (12, 1)
    """
    return max(1, round(num_steps / _NUM_FRAMES))


def keep_frame(folder: pathlib.Path, step: int, image: Image) -> None:
    """Keeps the picture of a step, in the place of the one that was kept of this step before.

    Args:
      folder: of the frames of one run; made if it is not there.
      step: number of steps done.
      image: [H, W, 3], nominally in [0, 1].

    Raises:
      UserError: as `save_image`.
    """
    save_image(folder / f"{step:08}.png", image)


def write_animation(
    path: pathlib.Path, folder: pathlib.Path, last: Image, *, quality: int = 95
) -> None:
    """Writes the frames of a run and its result as an animation that repeats for ever.

    Args:
      path: of the animation, .webp or .gif.
      folder: of the frames kept; those that cannot be read are left out with a warning.
      last: [H, W, 3], nominally in [0, 1], the result; all frames are scaled to its size, and it is
        seen longer than they are.
      quality: of WebP, 1 to 100.

    Raises:
      UserError: the file cannot be written, or the image is none, as `save_image`.
    """
    end = to_8_bits(last, str(path))
    frames = []
    for kept in sorted(folder.glob("*.png")):
        try:
            with Pillow.open(kept) as frame:
                frames.append(frame.convert("RGB").resize(end.size, Pillow.Resampling.LANCZOS))
        except Exception as error:  # on a damaged file Pillow's decoders raise nearly anything
            warnings.warn(
                f"the frame {kept} is left out, as it is damaged ({error}).", stacklevel=2
            )
    first, *rest = [*frames, end]
    with replace_atomically(path) as temporary:
        first.save(
            temporary,
            save_all=True,
            append_images=rest,
            duration=[_FRAME_MS] * len(frames) + [_LAST_MS],
            loop=0,
            quality=quality,
        )
