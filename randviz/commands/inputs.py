"""What every command reads from outside: its keys and its pictures."""

import dataclasses
import hashlib
import pathlib
import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from randviz.host.images import crop_square, load_image, resize_image
from randviz.host.settings import CommandSettings, setting
from randviz.networks.gaussian import GENERATOR, split_key
from randviz.networks.network import Network
from randviz.objectives.layer_weights import GRADIENT_REDUCTIONS
from randviz.types import Image, Key, UserError

LARGEST_SIDE = 2**14  # pixels
_SMALLEST_PICTURE = 8  # pixels a side; less is no picture, and enlarging it makes none


@dataclasses.dataclass(frozen=True)
class SeedSettings(CommandSettings):
    """Settings of commands in which something is random."""

    seed: int = setting(
        0,
        "Another number draws anew what is random. That is weights, filters, starting noise.",
        lower_bound=0,
        upper_bound=2**32 - 1,
    )


@dataclasses.dataclass(frozen=True)
class PictureSettings(CommandSettings):
    """Settings of commands that read pictures."""

    image_size: int = setting(
        256,
        "Longest side of the pictures, in pixels. They are resized to it.",
        lower_bound=1,
        upper_bound=LARGEST_SIDE,
    )
    square: bool = setting(
        False,
        "Takes the largest square in the middle of each picture; fully connected layers need one.",
        rare=True,
    )


@dataclasses.dataclass(frozen=True)
class ReductionSettings:
    """How the layer weights ω and μ are found."""

    gradient_reduction: str = setting(
        "mean_abs",
        "How the absolute mean gradient in the layer weights is computed: mean |g| or |mean g|.",
        choices=GRADIENT_REDUCTIONS,
        rare=True,
    )


@dataclasses.dataclass(frozen=True)
class StepSettings(CommandSettings):
    """Settings of commands that descend."""

    num_steps: int = setting(
        500, "Steps of each descent; the paper takes 2000.", lower_bound=1, upper_bound=10**6
    )


class Picture(NamedTuple):
    """An input picture and how it will be written down.

    Attributes:
      image: [H, W, 3].
      metadata: source, size in pixels, and a hash of the pixels.
      file_size: (H, W) of the file, before it was resized.
    """

    image: Image
    metadata: dict[str, Any]
    file_size: tuple[int, ...]


def make_keys(seed: int) -> tuple[Key, Key]:
    """The keys of a command: of the weights and of the noise."""
    # Named, because bits of another generator would be another network under the same seed.
    return tuple(split_key(jax.random.key(seed, impl=GENERATOR)))


def make_statistics_key(seed: int) -> Key:
    """The key of a command's random statistics, and of all that is drawn anew at each step."""
    return jax.random.fold_in(jax.random.key(seed, impl=GENERATOR), 2)


def check_picture(picture: Picture, network: Network, last_layer: str) -> None:
    """Says whether a network answers to a picture in a layer.

    Raises:
      UserError: if the picture does not reach the layer, or is nothing but the input offset.
    """
    check_reach(picture, network, last_layer)
    if not jnp.any(255 * picture.image - jnp.asarray(network.input_offset)):
        raise UserError(
            f"the picture {picture.metadata['source']} is nothing but the input offset, to which no"
            " network answers; take another picture or --input_offset."
        )


def load_picture(
    flag: str, source: str, image_size: int | None, *, square: bool = False
) -> Picture:
    """Loads a picture that a flag names.

    Args:
      flag: for messages.
      source: a path, or the name of a sample.
      image_size: longest side of the result, in pixels; None keeps the picture's own size.
      square: whether the largest square in its middle is taken.

    Returns:
      The picture.

    Raises:
      UserError: if the flag is empty, or the picture cannot be read or is too small.
    """
    if not source:
        raise UserError(f"no picture is given; name a file or a sample with --{flag}=.")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        image = load_image(source)
    said = [str(warning.message) for warning in caught]
    for message in said:
        warnings.warn(message, stacklevel=2)
    height, width = image.shape[:2]
    if min(height, width) < _SMALLEST_PICTURE:
        raise UserError(
            f"the picture {source} is {width}×{height} pixels; it needs at least"
            f" {_SMALLEST_PICTURE} a side."
        )
    image = crop_square(image) if square else image
    image = image if image_size is None else resize_image(image, image_size)
    metadata = {
        "source": source,
        "size": f"{image.shape[1]}x{image.shape[0]}",
        "sha256": hashlib.sha256(np.ascontiguousarray(image)).hexdigest()[:16],
        "warnings": said,
    }
    return Picture(jnp.asarray(image), metadata, (height, width))


def check_reach(picture: Picture, network: Network, layer: str) -> None:
    """Checks that a picture reaches a layer.

    Args:
      picture: as it was loaded.
      network: the architecture.
      layer: the deepest layer wanted.

    Raises:
      UserError: naming the picture and the size of its file, if it does not; for an unknown layer.
    """
    network.canonical_names((layer,))
    try:
        network.check_image(picture.image.shape, layer)
    except UserError as error:
        height, width = picture.file_size
        source = picture.metadata["source"]
        raise UserError(f"{source} ({width}×{height} pixels): as it is resized, {error}") from error


def check_output(output: pathlib.Path, pictures: Iterable[Picture]) -> None:
    """Checks that a result does not take the place of a picture that it is made from.

    Args:
      output: where the result goes.
      pictures: what it is made from.

    Raises:
      UserError: if it does.
    """
    for picture in pictures:
        source = pathlib.Path(picture.metadata["source"])
        if output.exists() and source.exists() and output.samefile(source):
            raise UserError(
                f"{output} is a picture that is read here; choose another place for the result."
            )
