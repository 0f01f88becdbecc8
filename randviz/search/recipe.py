"""A network as a line of text: what it is drawn from, which draws were chosen, and a check.

    randviz-1 vgg19 seed=0 draws=3,0,1 last_layer=conv2_1 scale=0.015 bias_scale=0 pooling=avg
    padding=zero input_offset=auto generator=threefry2x32 gaussian=1 check=0f3a...

on one line. The weights are not stored: they are drawn again, bit for bit the same on every device,
and the check covers them and every field.
"""

import dataclasses
import hashlib
from typing import Any

import jax
import numpy as np

from randviz.networks.catalog import NETWORKS
from randviz.networks.gaussian import GENERATOR
from randviz.networks.network import IMAGENET_MEAN, Network
from randviz.networks.weights import random_weights, weight_shapes
from randviz.types import Key, Offset, Params, UserError

FORMAT = "randviz-1"
GAUSSIAN = 1  # version of `gaussian.sample_gaussians`
_LONGEST = 1000  # characters
_OFFSETS = {"auto": None, "mean": IMAGENET_MEAN}  # the others are numbers


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A network that can be drawn again.

    Attributes:
      network: name of the architecture.
      seed: of the network's key.
      draws: which draw of each layer with weights, in forward order down to `last_layer`.
      last_layer: the deepest layer it serves.
      scale: σ of the kernels.
      bias_scale: standard deviation of the biases.
      pooling: as in `networks.Network`.
      padding: its `padding_mode`, under the name that it has in the line.
      input_offset: likewise: a number, the ImageNet mean, or None.
      check: sixteen hexadecimal digits over the weights and all of the above.
    """

    network: str
    seed: int
    draws: tuple[int, ...]
    last_layer: str
    scale: float
    bias_scale: float
    pooling: str
    padding: str
    input_offset: Offset | None
    check: str = ""

    def as_network(self) -> Network:
        """The architecture with the recipe's conventions."""
        network = dataclasses.replace(
            NETWORKS[self.network], pooling=self.pooling, padding_mode=self.padding
        )
        # Without an offset in the recipe a network keeps its own.
        return (
            network
            if self.input_offset is None
            else dataclasses.replace(network, input_offset=self.input_offset)
        )

    def sample(self, key: Key) -> Params:
        """Draws the weights.

        Args:
          key: the network's key, made from `seed`.

        Returns:
          {layer: {"kernel": ..., "bias": ...}} down to `last_layer`.

        Raises:
          UserError: if the weights do not agree with the check.
        """
        params = self._sample(key)
        if _digest(self, params) != self.check:
            raise UserError(
                f"the recipe's check {self.check} does not agree with the weights drawn; a field of"
                " it was changed, or this machine draws other numbers than the one it was made on."
            )
        return params

    def signed(self, key: Key) -> "Recipe":
        """This recipe with the check of the weights that it draws."""
        return dataclasses.replace(self, check=_digest(self, self._sample(key)))

    def _sample(self, key: Key) -> Params:
        return random_weights(
            key,
            self.as_network(),
            scale=self.scale,
            bias_scale=self.bias_scale,
            last_layer=self.last_layer,
            draws=self.draws,
        )


def format_recipe(recipe: Recipe) -> str:
    """Writes a recipe as one line, under 1000 characters.

    Args:
      recipe: any.

    Returns:
      The line, without its end.
    """
    return f"{_format_fields(recipe)} check={recipe.check}"


def _format_fields(recipe: Recipe) -> str:
    names: dict[Any, str] = {offset: name for name, offset in _OFFSETS.items()}
    offset = names.get(recipe.input_offset)
    if offset is None:
        number: Any = recipe.input_offset  # the tuple and None have names
        offset = repr(float(number))
    return (
        f"{FORMAT} {recipe.network} seed={recipe.seed} draws={','.join(map(str, recipe.draws))}"
        f" last_layer={recipe.last_layer} scale={recipe.scale!r} bias_scale={recipe.bias_scale!r}"
        f" pooling={recipe.pooling} padding={recipe.padding} input_offset={offset}"
        f" generator={GENERATOR} gaussian={GAUSSIAN}"
    )


def _digest(recipe: Recipe, params: Params) -> str:
    digest = hashlib.sha256(_format_fields(recipe).encode())
    for layer in weight_shapes(recipe.as_network(), recipe.last_layer):
        for name in ("kernel", "bias"):
            weights = np.asarray(jax.device_get(params[layer][name]), "<f4")
            digest.update(np.ascontiguousarray(weights).tobytes())
    return digest.hexdigest()[:16]


def parse_recipe(text: str) -> Recipe:
    """Reads a recipe's line, strictly: what is not as `format_recipe` writes it is refused.

    Args:
      text: the line; space around it is ignored.

    Returns:
      The recipe; whether its check agrees, `Recipe.sample` says.

    Raises:
      UserError: naming the field that is wrong, or the format if it is another one's.
    """
    text = text.strip()
    parts = text.split(" ")
    if not parts[0].startswith("randviz-"):
        raise UserError(f"{text[:30]!r} is not a recipe; one begins with {FORMAT}.")
    if parts[0] != FORMAT:
        raise UserError(
            f"the recipe's format is {parts[0][:30]!r} and this program reads {FORMAT}; a newer"
            " version of it may read both."
        )
    if len(text) > _LONGEST or len(parts) < 2:
        raise UserError(f"the recipe has {len(text)} characters and is cut short or too long.")
    if parts[1] not in NETWORKS:
        raise UserError(f"the recipe's network {parts[1]!r} is unknown.")
    recipe = _read_fields(parts[1], parts[2:])
    if format_recipe(recipe) != text:
        raise UserError(f"the recipe is not written as {format_recipe(recipe)!r} is.")
    return recipe


_READERS = {
    "seed": lambda part: _read_uint32(part),
    "draws": lambda part: tuple(map(_read_uint32, part.split(","))),
    "last_layer": str,
    "scale": lambda part: _read_number(part, lowest=1e-38),
    "bias_scale": lambda part: _read_number(part, lowest=0),
    "pooling": str,
    "padding": str,
    "input_offset": lambda part: (
        _OFFSETS[part] if part in _OFFSETS else _read_number(part, lowest=-1e38)
    ),
    "generator": lambda part: part if part == GENERATOR else _refuse(),
    "gaussian": lambda part: int(part) if int(part) == GAUSSIAN else _refuse(),
    "check": lambda part: part if len(part) == 16 and int(part, 16) >= 0 else _refuse(),
}


def _read_fields(network: str, parts: list[str]) -> Recipe:
    fields = {}
    for position, (name, read) in enumerate(_READERS.items()):
        part = parts[position] if position < len(parts) else "nothing"
        found, separator, value = part.partition("=")
        if found != name or not separator:
            raise UserError(f"the recipe has {part!r} where {name}= belongs.")
        try:
            fields[name] = read(value)
        except ValueError:
            raise UserError(f"the recipe's {name} cannot be {value!r}.") from None
    if len(parts) > len(_READERS):
        raise UserError(f"the recipe goes on with {parts[len(_READERS)]!r} after its end.")
    del fields["generator"], fields["gaussian"]
    recipe = Recipe(network=network, **fields)
    shapes = weight_shapes(recipe.as_network(), recipe.last_layer)
    if len(shapes) != len(recipe.draws):
        raise UserError(
            f"the recipe has {len(recipe.draws)} draws and {len(shapes)} layers with weights down"
            f" to {recipe.last_layer}."
        )
    return recipe


def _read_uint32(part: str) -> int:
    return int(part) if 0 <= int(part) < 2**32 else _refuse()


def _read_number(part: str, lowest: float) -> float:
    number = float(part)
    if not lowest <= number < 1e38:
        raise ValueError(part)
    return number


def _refuse():
    raise ValueError
