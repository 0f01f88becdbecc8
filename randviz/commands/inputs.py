"""What every command reads from outside: its network, its keys, its pictures."""

import dataclasses
import hashlib
import importlib.resources
import math
import pathlib
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from randviz import networks
from randviz.conv import PADDINGS, POOLINGS
from randviz.images import load_image, resize_image
from randviz.networks import Network
from randviz.recipe import GENERATOR, Recipe, parse_recipe
from randviz.settings import setting
from randviz.types import Image, Key, Params, UserError
from randviz.weights import random_weights

LARGEST_SIDE = 2**14  # pixels
SHIPPED_RECIPES = ("ranvgg", "ranvgg_chelsea")
_SMALLEST_PICTURE = 8  # pixels a side; less is no picture, and enlarging it makes none


@dataclasses.dataclass(frozen=True)
class NetworkSettings:
    """Settings that say which network it is."""

    network: str = setting(
        "vgg19",
        f"An architecture ({', '.join(networks.NETWORKS)}) with random weights; or a network chosen"
        f" before: {', '.join(SHIPPED_RECIPES)}, a file with a recipe, or the recipe itself.",
    )
    seed: int = setting(
        0,
        "Of the random weights and the starting noise.",
        lower_bound=0,
        upper_bound=2**32 - 1,
    )
    scale: float = setting(
        networks.PAPER_SCALE,
        "σ, the standard deviation of the random weights. Without biases it is a choice of units:"
        " the picture is the same.",
        lower_bound=1e-5,
        upper_bound=1e3,
    )
    bias_scale: float = setting(
        0.0, "Standard deviation of the random biases; the paper has none.", lower_bound=0
    )
    pooling: str = setting("avg", "How 2×2 blocks are pooled.", choices=POOLINGS)
    padding: str = setting(
        "zero", "What lies beyond the border of a convolution.", choices=tuple(PADDINGS)
    )
    input_offset: str = setting(
        "auto",
        "Subtracted from pixel values in 0 to 255 before the first layer: a number, mean for the"
        " ImageNet mean, or auto for what the task works best with.",
    )


class Picture(NamedTuple):
    """An input picture and how it will be written down.

    Attributes:
      image: [H, W, 3].
      facts: source, size in pixels, and a hash of the pixels.
    """

    image: Image
    facts: dict[str, Any]


def make_keys(seed: int) -> tuple[Key, Key]:
    """The keys of a command: of the weights and of the noise."""
    # Named, because bits of another generator would be another network under the same seed.
    return tuple(jax.random.split(jax.random.key(seed, impl=GENERATOR)))


def choose_network(settings: NetworkSettings) -> tuple[Network, Callable[[str], Params]]:
    """The network that the settings name, and how its weights are had.

    Returns:
      The architecture, and a function: the deepest layer wanted → weights.

    Raises:
      UserError: for an unknown network, a bad recipe, a flag that the recipe decides, or an input
        offset that is neither a word nor a number. The function raises it for a layer beyond the
        recipe's last, and for weights that do not agree with its check.
    """
    if settings.network not in networks.NETWORKS:
        recipe = load_recipe(settings.network)
        _refuse_decided(settings)
        return recipe.as_network(), lambda last_layer: _draw_from(recipe, last_layer)
    network = dataclasses.replace(
        networks.NETWORKS[settings.network],
        pooling=settings.pooling,
        padding=settings.padding,
        input_offset=read_offset(settings.input_offset),
    )
    weights_key, _ = make_keys(settings.seed)

    def draw(last_layer: str) -> Params:
        return random_weights(
            weights_key,
            network,
            scale=settings.scale,
            bias_scale=settings.bias_scale,
            last_layer=last_layer,
        )

    return network, draw


def read_offset(words: str) -> float | tuple[float, float, float] | None:
    """Reads an input offset: auto is None.

    Raises:
      UserError: if it is neither auto, mean nor a finite number.
    """
    known = {"auto": None, "mean": networks.IMAGENET_MEAN}
    try:
        offset = known[words] if words in known else float(words)
    except ValueError:
        offset = math.nan
    if isinstance(offset, float) and not math.isfinite(offset):
        raise UserError(f"--input_offset={words} is neither auto, mean nor a number.")
    return offset


def load_recipe(source: str) -> Recipe:
    """Reads a recipe: one that comes with the program, a file, or the line itself.

    Raises:
      UserError: if there is none or it is bad.
    """
    if source in SHIPPED_RECIPES:
        text = importlib.resources.files("randviz").joinpath(f"recipes/{source}.txt").read_text()
    elif source.startswith("randviz-"):
        text = source
    else:
        try:
            text = pathlib.Path(source).read_text()
        except (OSError, ValueError):
            known = ", ".join((*networks.NETWORKS, *SHIPPED_RECIPES))
            raise UserError(
                f"--network={source} is neither a network ({known}) nor a file with a recipe."
            ) from None
    try:
        return parse_recipe(text)
    except UserError as error:
        raise UserError(f"--network={source[:60]}: {error}") from error


def _refuse_decided(settings: NetworkSettings) -> None:
    decided = ("scale", "bias_scale", "pooling", "padding", "input_offset")
    for field in dataclasses.fields(NetworkSettings):
        if field.name in decided and getattr(settings, field.name) != field.default:
            raise UserError(f"the recipe decides --{field.name}; leave that flag out.")


def _draw_from(recipe: Recipe, last_layer: str) -> Params:
    network = recipe.as_network()
    names = network.layer_names
    if names.index(network.canonical_name(last_layer)) > names.index(recipe.last_layer):
        raise UserError(
            f"the recipe ends at {recipe.last_layer}, before layer {last_layer!r}; name a shallower"
            " layer, or select a deeper network."
        )
    return recipe.draw(make_keys(recipe.seed)[0])


def load_picture(flag: str, source: str, image_size: int) -> Picture:
    """Loads a picture that a flag names.

    Raises:
      UserError: if the flag is empty, or the picture cannot be read or is too small.
    """
    if not source:
        raise UserError(f"no picture is given; name a file or a sample with --{flag}=.")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        image = load_image(source)
    said = [str(warning.message) for warning in caught]
    for words in said:
        warnings.warn(words, stacklevel=2)
    height, width = image.shape[:2]
    if min(height, width) < _SMALLEST_PICTURE:
        raise UserError(
            f"the picture {source} is {width}×{height} pixels; it needs at least"
            f" {_SMALLEST_PICTURE} a side."
        )
    image = resize_image(image, image_size)
    facts = {
        "source": source,
        "size": f"{image.shape[1]}x{image.shape[0]}",
        "sha256": hashlib.sha256(np.ascontiguousarray(image)).hexdigest()[:16],
        "warnings": said,
    }
    return Picture(jnp.asarray(image), facts)
