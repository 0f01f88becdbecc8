"""Architectures that are Flax modules: what draws their weights, and what they become with some.

`Network` is an architecture of this package. A module of somebody else's draws its own weights from
a key, by its own initialisers, and with them it is an extractor, see `networks.adapters`.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx, struct

from randviz.networks.adapters import (
    FunctionExtractor,
    LinenFunction,
    NnxFunction,
)
from randviz.networks.extractor import LayerNames
from randviz.types import Array, Image, Key, Offset, UserError, first_line

# Of the image on which names of layers are found, and weights are drawn.
_IMAGE_SIZE = 64


@dataclasses.dataclass(frozen=True)
class ModuleNetwork(LayerNames):
    """A module without weights.

    Attributes:
      name: for messages and records.
      function: (weights, image [H, W, 3] in [0, 1]) → {layer: [h, w, C]}.
      draw: key → weights, by the module's own initialisers.
    """

    name: str
    function: Callable[[Any, Image], Mapping[str, Array]]
    draw: Callable[[Key], Any]

    # It is fed the picture itself, and subtracts from it what it likes.
    input_offset: Offset = 0.0
    rescalable = False

    @functools.cached_property
    def _shapes(self) -> FunctionExtractor:
        """The extractor with shapes for weights, which is enough to ask it for layers."""
        try:
            weights = jax.eval_shape(self.draw, _abstract_key())
        except Exception as error:  # whatever somebody else's module raises
            raise UserError(
                f"{self.name} cannot draw its weights ({first_line(error)}); it must take an"
                f" image of shape [1, {_IMAGE_SIZE}, {_IMAGE_SIZE}, 3] and no other argument."
            ) from error
        return self.bind(weights)

    @property
    def layer_names(self) -> tuple[str, ...]:
        return self._shapes.layer_names

    @property
    def scale_layers(self) -> tuple[str, ...]:
        """The first layer at each resolution; see `Network.scale_layers`."""
        shape = (_IMAGE_SIZE, _IMAGE_SIZE, 3)
        found: dict[int, str] = {}
        for layer in self.layer_names[1:]:
            found.setdefault(self.feature_shape(shape, layer)[0], layer)
        return tuple(found.values())

    def feature_shape(self, shape: tuple[int, ...], layer: str) -> tuple[int, int, int]:
        """See `Network.feature_shape`."""
        return self._shapes.feature_shape(shape, layer)

    def feature_shapes(
        self, shape: tuple[int, ...], layers: Sequence[str]
    ) -> dict[str, tuple[int, int, int]]:
        """See `Network.feature_shapes`."""
        return {layer: self.feature_shape(shape, layer) for layer in layers}

    def check_image(self, shape: tuple[int, ...], layer: str) -> None:
        """See `LayerNames.check_image`."""
        self._shapes.check_image(shape, layer)

    def with_offset(self, input_offset: Offset) -> "ModuleNetwork":
        """This network: its input is its own affair."""
        return self

    def bind(self, weights: Any) -> FunctionExtractor:
        """This architecture with weights: an extractor.

        Args:
          weights: as `draw` makes them.
        """
        return FunctionExtractor(weights, self.function, self.name, _IMAGE_SIZE)


@struct.dataclass
class RandomModule:
    """A module whose weights are still to be drawn, as `RandomNetwork` is a network.

    Attributes:
      network: the module; static.
    """

    network: ModuleNetwork = struct.field(pytree_node=False)

    def sample(self, key: Key) -> FunctionExtractor:
        """Draws the weights and binds them.

        Args:
          key: consumed.
        """
        return self.network.bind(self.network.draw(key))


def as_architecture(module: Any) -> ModuleNetwork:
    """Makes an architecture of a Flax module.

    Args:
      module: a Linen module, or its class if it needs no arguments; or the class of an NNX module
        that needs none but `rngs`. It takes [1, H, W, 3] in [0, 1] and no other argument.

    Raises:
      UserError: if it is none of them.
    """
    if isinstance(module, type) and issubclass(module, nnx.Module):
        return _of_nnx(module)
    if isinstance(module, type) and issubclass(module, nn.Module):
        try:
            module = module()
        except TypeError as error:
            raise UserError(
                f"{module.__name__} needs arguments ({error}); name a value of it, with them."
            ) from error
    if isinstance(module, nn.Module):
        function = LinenFunction(module, (), None)
        return ModuleNetwork(type(module).__name__, function, functools.partial(_init, module))
    if isinstance(module, nnx.Module):
        raise UserError(
            f"a value of the NNX module {type(module).__name__} has weights already; name its"
            " class."
        )
    raise UserError(f"a {type(module).__name__} is no Flax module; name one, or its class.")


def _abstract_key() -> Any:
    """A key's shape, with which anything can be traced and nothing drawn."""
    return jax.eval_shape(jax.random.key, 0)


def _init(module: nn.Module, key: Key) -> Any:
    return module.init(key, jnp.zeros((1, _IMAGE_SIZE, _IMAGE_SIZE, 3)))


def _of_nnx(kind: Any) -> ModuleNetwork:
    def make(key: Key) -> nnx.Module:
        module: Any = kind(rngs=nnx.Rngs(key))
        module.eval()
        return module

    try:
        definition, _ = nnx.split(nnx.eval_shape(make, _abstract_key()))
    except Exception as error:  # whatever somebody else's module raises
        raise UserError(
            f"{kind.__name__} cannot be made of rngs alone ({first_line(error)}); give its other"
            " arguments defaults."
        ) from error
    draw = lambda key: nnx.split(make(key))[1]
    return ModuleNetwork(kind.__name__, NnxFunction(definition, (), None), draw)
