"""Pictures on disk ↔ arrays.

Everything here is numpy on the host: an image is float32 [H, W, 3], RGB, in [0, 1]. Whatever is
odd about a file (orientation, profile, transparency, depth) is dealt with in `load_image`; an image
is clipped and rounded to 8 or 16 bits only when it is saved or drawn.
"""

import contextlib
import io
import numbers
import os
import secrets
import struct
import sys
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import tifffile
from PIL import Image as Pillow
from PIL import ImageCms, ImageFile, ImageOps, UnidentifiedImageError

from randviz.host.samples import SAMPLES, is_sample, open_sample
from randviz.types import UserError

TEMPORARY_PREFIX = ".randviz-"  # of files that take their names once they are whole
_BRIGHTEST = 4.0  # of nine tenths of the values of an image that is saved
_LONGEST_SIDE = 65_535  # pixels of a picture that is read, as many as a JPEG can have
_SAVE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
READ_SUFFIXES = (*_SAVE_SUFFIXES, ".gif")  # by which pictures are known in a folder
_DEEP_SUFFIXES = (".png", ".tif", ".tiff")  # formats that also hold 16 bits a channel
# Pillow keeps the high bytes of 16-bit colours. Asked for the other order of bytes (that of a file,
# or N for the machine's own), it keeps the low ones.
_LOW_BYTES = {"RGB;16B": "RGB;16L", "RGB;16L": "RGB;16B"}
_LOW_BYTES["RGB;16N"] = "RGB;16B" if sys.byteorder == "little" else "RGB;16L"

# Tags of TIFF files, and the kinds (sample format, bits) that Pillow reads as numbers without sign,
# or with one, though they are not.
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_MISREAD = {(2, 8): "8-bit numbers with a sign", (1, 32): "32-bit numbers without sign"}


def load_image(source: str | os.PathLike, *, image_size: int | None = None) -> np.ndarray:
    """Loads a picture as a viewer would show it.

    EXIF orientation and an embedded colour profile are applied, transparency is laid over white,
    grey becomes RGB, floating-point grey and 16 bits keep their depth (of colours only those
    without profile and transparency), and of an animation the first frame is taken. A warning says
    when something was laid over white, stretched or ignored.

    Args:
      source: the path of a picture, or a name in `samples.SAMPLES`. A sample wins over a file of
        the same name in the working directory, which can still be had as "./name".
      image_size: the longest side of the result, in pixels; None keeps the picture's own size.

    Returns:
      float32 [H, W, 3], RGB, in [0, 1].

    Raises:
      UserError: the file is missing, not readable, not a picture or damaged, or `image_size` is
        not a positive whole number.

    Example:
      >>> load_image("coffee", image_size=90).shape
      (60, 90, 3)
    """
    if image_size is not None and not (isinstance(image_size, numbers.Integral) and image_size > 0):
        raise UserError(
            f"image_size must be a positive whole number of pixels, like 256, not {image_size!r}."
        )
    name = os.path.expanduser(os.fspath(source))
    with _explain_damage(name):
        picture = open_sample(name) if is_sample(name) else _open_file(name)
        # A damaged palette or profile fails only when it is used.
        if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
            image = _read_deep_grey(picture, name)
        else:
            image = _read_colours(picture, name)
    return image if image_size is None else resize_image(image, image_size)


def resize_image(image: np.ndarray, image_size: int) -> np.ndarray:
    """Scales an image so that its longest side has a given length, keeping its shape.

    Args:
      image: [H, W, 3], in [0, 1].
      image_size: the longest side of the result, in pixels.

    Returns:
      float32 [H, W, 3], in [0, 1]; neither side falls below one pixel.
    """
    size = image.shape[1], image.shape[0]
    if image_size == max(size):
        return image
    # Channel by channel in floating point, so that 16-bit pictures keep their depth.
    channels = [
        Pillow.fromarray(channel).resize(scale_size(size, image_size), Pillow.Resampling.LANCZOS)
        for channel in np.moveaxis(image, -1, 0)
    ]
    return np.clip(np.stack(channels, axis=-1), 0, 1)  # Lanczos overshoots at edges


def crop_square(image: np.ndarray) -> np.ndarray:
    """Takes the largest square in the middle of an image.

    Args:
      image: [H, W, 3].

    Returns:
      [S, S, 3], S the smaller of H and W.
    """
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


def save_image(
    path: str | os.PathLike, image: np.ndarray, *, quality: int = 95, bits: int = 8
) -> None:
    """Saves an image, clipped to [0, 1] and rounded to 8 or 16 bits, whole or not at all.

    Args:
      path: where to; the suffix chooses the format, and missing folders are made.
      image: [H, W, 3], RGB, nominally in [0, 1].
      quality: of JPEG and WebP, 1 to 100; other formats have no loss.
      bits: of a channel, 8 or 16; 16 in PNG and TIFF only.

    Raises:
      UserError: the suffix is unknown, or not of a format with so many bits, the quality is not in
        1 to 100, the place cannot be written, or the image is not [H, W, 3], is not of
        floating-point numbers, has values that are not finite, or is in 0 to 255.
    """
    path = os.path.expanduser(os.fspath(path))
    check_suffix(path, bits=bits)
    if not (isinstance(quality, numbers.Integral) and 1 <= quality <= 100):
        raise UserError(f"quality must be a whole number from 1 to 100, like 95, not {quality!r}.")
    levels = _to_levels(image, path, bits)
    with replace_atomically(path) as temporary:
        if bits == 8:
            # The options are JPEG's, and WebP's quality; the other formats ignore them. Synthesised
            # pictures are full of fine colour, which JPEG's usual subsampling would smear.
            Pillow.fromarray(levels).save(temporary, quality=quality, subsampling=0)
        elif temporary.suffix.lower() == ".png":
            temporary.write_bytes(_encode_deep_png(levels))
        else:
            tifffile.imwrite(temporary, levels, photometric="rgb", compression="zlib")


def check_suffix(path: str | os.PathLike, *, bits: int = 8) -> None:
    """Says whether a picture can be saved under this name, before the work of making it.

    Args:
      path: where to.
      bits: of a channel.

    Raises:
      UserError: the suffix is not one of a known format, or of one with so many bits.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _SAVE_SUFFIXES:
        suffixes = ", ".join(_SAVE_SUFFIXES)
        raise UserError(
            f"{path} does not end in a known format of pictures; use one of {suffixes}."
        )
    if bits not in (8, 16):
        raise UserError(f"a picture has 8 or 16 bits a channel, not {bits}; give one of the two.")
    if bits == 16 and suffix not in _DEEP_SUFFIXES:
        suffixes = ", ".join(_DEEP_SUFFIXES)
        raise UserError(f"{path} cannot hold 16 bits a channel; use one of {suffixes}, or 8 bits.")


@contextlib.contextmanager
def replace_atomically(path: str | os.PathLike) -> Iterator[Path]:
    """Lends a temporary path that takes the place of `path` once the block ends well.

    Whoever reads `path` finds the old contents or the new, never half a file. If the block fails
    or is interrupted, the old file stays and the temporary one is removed.

    Args:
      path: the file to write; missing folders are made.

    Yields:
      A path in the same folder with the same suffix, to be written in the block.

    Raises:
      UserError: the file cannot be written; every OSError in the block is reported so.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "run.json"
      >>> with replace_atomically(path) as temporary:
      ...     _ = temporary.write_text("{}")
      >>> path.read_text()
      '{}'
    """
    path = Path(path)
    # Not tempfile: it would leave the file readable by its owner only.
    temporary = path.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}{path.suffix}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        reason = explain_failure(error)
        raise UserError(f"{path} cannot be written ({reason}); choose another place.") from error
    finally:
        # The failure that brought us here is the one to report, not a second one of the clean-up.
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Writes a file of text in UTF-8, see `replace_atomically`."""
    with replace_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def to_8_bits(image: np.ndarray, name: str) -> Pillow.Image:
    """Clips an image to [0, 1] and rounds it, halves up, to the 256 levels of a file."""
    return Pillow.fromarray(_to_levels(image, name, bits=8))


def to_array(picture: Pillow.Image) -> np.ndarray:
    """Brings 8-bit values to [0, 1], as float32."""
    return np.asarray(picture, np.float32) / 255


def scale_size(size: tuple[int, ...], longest: int) -> tuple[int, ...]:
    """Scales a width and a height so that the larger one is `longest`; neither falls below 1."""
    return tuple(max(1, round(side * longest / max(size))) for side in size)


def _to_levels(image: np.ndarray, name: str, bits: int) -> np.ndarray:
    """Clips an image to [0, 1] and rounds it, halves up, to whole numbers of 8 or 16 bits."""
    image = np.asarray(image)
    # By jax.numpy, because NumPy itself does not count bfloat16 among the floating-point numbers.
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise UserError(
            f"{name}: the image has type {image.dtype}; give floating-point numbers in [0, 1], that"
            " is divide 0 to 255 by 255."
        )
    image = image.astype(np.float64)
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise UserError(f"{name}: an image has shape [H, W, 3], not {list(image.shape)}.")
    strange = np.count_nonzero(~np.isfinite(image))
    if strange:
        counted = f"{strange} of the image's {image.size} values"
        raise UserError(f"{name}: {counted} are not finite numbers; find where they come from.")
    # A descent leaves [0, 1] by a little and here and there; a picture in 0 to 255, were it of the
    # night, does in many places.
    bright = np.quantile(image, 0.9)
    if bright > _BRIGHTEST:
        raise UserError(
            f"{name}: a tenth of the image's values are above {bright:g}; give numbers in [0, 1],"
            " that is divide 0 to 255 by 255."
        )
    levels = np.floor(np.clip(image, 0, 1) * (2**bits - 1) + 0.5)
    return levels.astype(np.uint8 if bits == 8 else np.uint16)


def _encode_deep_png(levels: np.ndarray) -> bytes:
    """The bytes of a PNG with 16 bits a channel, which Pillow cannot write.

    Args:
      levels: uint16 [H, W, 3].
    """

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)

    height, width, _ = levels.shape
    rows = levels.astype(">u2").view(np.uint8).reshape(height, -1)
    # Each row begins with the number of its filter. Up, the difference to the row above (the first
    # has zeros above), makes the picture smaller to compress than no filter.
    rows = np.insert(np.diff(rows, axis=0, prepend=np.uint8(0)), 0, 2, axis=1)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)  # 2: RGB
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*parts) for parts in chunks)


@contextlib.contextmanager
def _explain_damage(name: str) -> Iterator[None]:
    """Says in a sentence why a picture cannot be read, whatever fails inside."""
    try:
        yield
        return
    except (UserError, Warning):
        raise
    except FileNotFoundError:
        problem = f"does not exist; give a picture's path or a sample's name ({', '.join(SAMPLES)})"
    except IsADirectoryError:
        problem = "is a folder; give the path of a picture inside it"
    except UnidentifiedImageError:
        problem = "is not of a kind that can be read" if os.path.getsize(name) else "is empty"
        problem += "; give a picture such as a PNG or JPEG"
    except Pillow.DecompressionBombError:
        problem = (
            f"has more than {2 * Pillow.MAX_IMAGE_PIXELS:,} pixels, or more than {_LONGEST_SIDE:,}"
            " on a side; make it smaller first"
        )
    except Exception as error:  # on a damaged file Pillow's decoders raise nearly anything
        problem = (
            f"cannot be read ({explain_failure(error)}); check the path and its permissions"
            if getattr(error, "strerror", None)  # only the system's errors have it
            else f"is cut short or damaged ({error}); fetch or save it again"
        )
    raise UserError(f"{name or 'The empty path'} {problem}.")


def _open_file(name: str) -> Pillow.Image:
    """Decodes the first frame of a picture and turns it upright."""
    with Pillow.open(name) as picture:
        if max(picture.size) > _LONGEST_SIDE:
            raise Pillow.DecompressionBombError
        low_tiles = _list_low_tiles(picture)  # before loading, which forgets the tiles
        if picture.format == "TIFF":
            _check_tiff(picture, name)
        white_is_zero = picture.format == "TIFF" and picture.tag_v2.get(_PHOTOMETRIC) == 0
        picture.load()
        upright = ImageOps.exif_transpose(picture)
        upright.info["white_is_zero"] = white_is_zero
    if low_tiles and not {"icc_profile", "transparency"} & upright.info.keys():
        with Pillow.open(name) as picture:
            picture.tile = low_tiles
            picture.load()
            upright.info["low_bytes"] = ImageOps.exif_transpose(picture)
    return upright


def _check_tiff(picture: Pillow.Image, name: str) -> None:
    """Refuses kinds of numbers that Pillow takes for others."""
    kind = picture.tag_v2.get(_SAMPLE_FORMAT, (1,))[0], picture.tag_v2.get(_BITS, (1,))[0]
    if kind in _MISREAD:
        raise UserError(
            f"{name} holds {_MISREAD[kind]}; save it with 8 or 16 bits without sign, or as floating"
            " point."
        )


def _list_low_tiles(picture: ImageFile.ImageFile) -> list:
    """The tiles of a 16-bit colour file as they give its low bytes; none for other files."""
    tiles = []
    for tile in picture.tile:
        rawmode, *rest = [tile.args] if isinstance(tile.args, str) else tile.args or [None]
        if rawmode not in _LOW_BYTES:
            return []
        low = _LOW_BYTES[rawmode]
        tiles.append(tile._replace(args=(low, *rest) if rest else low))
    return tiles


def explain_failure(error: OSError) -> str:
    """The reason of a failure; the system's message for a file in a folder's place are obscure."""
    if isinstance(error, FileExistsError | NotADirectoryError):
        return "part of the path is a file, not a folder"
    return error.strerror or str(error)


def _read_deep_grey(picture: Pillow.Image, name: str) -> np.ndarray:
    """Scales 16-bit, integer and floating-point grey to [0, 1] without losing its depth."""
    values = np.asarray(picture, np.float64)
    if not np.isfinite(values).all():
        raise UserError(
            f"{name} has values that are not finite numbers; mend it where it was made."
        )
    if "icc_profile" in picture.info:
        warnings.warn(f"{name}: its colour profile is ignored (more than 8 bits).", stacklevel=3)
    white = 1 if picture.mode == "F" else 65535
    # The nominal range is widened, not clipped, for files that do not keep to it.
    low, high = min(values.min(), 0), max(values.max(), white)
    if low < 0 or high > white:
        warnings.warn(
            f"{name} has values outside 0 to {white}; {low:g} becomes black and {high:g} white.",
            stacklevel=3,
        )
    grey = ((values - low) / (high - low)).astype(np.float32)
    if picture.info.get("white_is_zero"):  # Pillow itself turns 8 bits and fewer
        grey = 1 - grey
    return np.repeat(grey[..., None], 3, axis=-1)


def _read_colours(picture: Pillow.Image, name: str) -> np.ndarray:
    """Brings a picture to sRGB and lays it over white."""
    if "low_bytes" in picture.info:
        high, low = np.asarray(picture, np.float32), np.asarray(picture.info["low_bytes"])
        return (256 * high + low) / np.float32(65535)
    if picture.mode in ("P", "PA"):
        picture = picture.convert("RGBA")
    image = to_array(_to_srgb(picture, name))
    if not picture.has_transparency_data:
        return image
    alpha = np.asarray(picture.convert("RGBA").getchannel("A"), np.float32)[..., None] / 255
    if alpha.min() == 1:
        return image
    warnings.warn(f"{name} is transparent in places and was laid over white.", stacklevel=3)
    return alpha * image + (1 - alpha)


def _to_srgb(picture: Pillow.Image, name: str) -> Pillow.Image:
    """Applies the embedded profile, if there is one and it makes sense for the picture."""
    srgb = ImageCms.createProfile("sRGB")
    if picture.mode == "LAB":
        lab = ImageCms.createProfile("LAB")
        return ImageCms.profileToProfile(picture, lab, srgb, outputMode="RGB")
    if "icc_profile" in picture.info:
        grey = ("GRAY", "RGB")
        kinds = {"CMYK": ("CMYK",), "1": grey, "L": grey, "LA": grey}
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(picture.info["icc_profile"]))
            kind = profile.profile.xcolor_space.strip()
            if kind not in kinds.get(picture.mode, ("RGB",)):
                raise OSError(f"it is for {kind}")
            flat = picture.convert("L" if kind == "GRAY" else kind)
            return ImageCms.profileToProfile(flat, profile, srgb, outputMode="RGB")
        except (OSError, ImageCms.PyCMSError) as error:
            warnings.warn(f"{name}: its colour profile is ignored ({error}).", stacklevel=4)
    return picture.convert("RGB")
