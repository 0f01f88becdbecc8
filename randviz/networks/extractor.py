"""Extractors: everything that maps an image to features by layer name.

An extractor is a pytree that is called with an image and names of layers. Its arrays (weights) are
leaves, the rest is static and hashable by value, so extractors pass through `jit`, `vmap` and
`grad`. Conventions of the input (offset, scale, order of colours) belong to the extractor: it
always takes RGB in [0, 1]. `networks.network` makes one of an architecture of this package and its
weights, `networks.adapters` of anything else.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
from jax import lax

from randviz.types import Array, Features, Image, Key, Offset, UserError

IMAGE_LAYER = "image"  # the input itself, a layer of every network


class LayerNames:
    """Names of layers, checked and put in order.

    Attributes:
      name: of their network, for messages.
      layer_names: all layers, in forward order.
    """

    name: str
    layer_names: tuple[str, ...]

    def canonical_name(self, layer: str) -> str:
        """The name that a layer is listed under.

        Raises:
          UserError: if there is no such layer.
        """
        if layer not in self.layer_names:
            raise UserError(
                f"layer {layer!r} is not in {self.name}; it has {', '.join(self.layer_names)}."
            )
        return layer

    def canonical_names(self, layers: str | Sequence[str]) -> tuple[str, ...]:
        """As `canonical_name`, for one layer or several, put in forward order.

        Raises:
          UserError: if there are none, one is unknown, or one is named twice.
        """
        names = [self.canonical_name(layer) for layer in as_names(layers)]
        if not names:
            raise UserError(f"no layer is named; {self.name} has {', '.join(self.layer_names)}.")
        if len(set(names)) < len(names):
            raise UserError(
                f"layers {','.join(as_names(layers))} name a layer twice; name each once."
            )
        return tuple(sorted(names, key=self.layer_names.index))

    def check_image(self, shape: tuple[int, ...], layer: str) -> None:
        """Checks that an image of this shape reaches the layer.

        Args:
          shape: (H, W, 3).
          layer: the deepest layer wanted.

        Raises:
          UserError: if the shape is not (H, W, 3), or the image is too small for the layer.
        """
        if len(shape) != 3 or shape[2] != 3:
            raise UserError(f"an image has shape (height, width, 3), not {tuple(shape)}.")


class Extractor(LayerNames):
    """What every task asks of a network.

    A subclass has `name`, `layer_names` and `compute`; the other methods have defaults that fit a
    function about which nothing more is known.

    Attributes:
      name: for messages and records.
      layer_names: all layers, in forward order.
    """

    def compute(self, image: Image, layers: tuple[str, ...]) -> Mapping[str, Array]:
        """Computes features, of these layers at least.

        Args:
          image: [H, W, 3], RGB in [0, 1].
          layers: canonical names, in forward order.

        Returns:
          {layer: [h, w, C]}.
        """
        raise NotImplementedError

    def __call__(self, image: Image, layers: str | Sequence[str]) -> Features:
        """Computes the features of an image at the layers named.

        Args:
          image: [H, W, 3], RGB in [0, 1].
          layers: one name or several.

        Returns:
          {layer: [h, w, C]} under the canonical names.

        Raises:
          UserError: for an unknown layer or an image that does not reach it.
        """
        names = self.canonical_names(layers)
        for layer in names:
            self.check_image(image.shape, layer)
        found = self.compute(image, names)
        return {layer: found[layer] for layer in names}

    def measure(self, image: Image, wanted: Sequence[tuple[str, Any, Array | None]]) -> list[Any]:
        """Computes statistics of an image's features.

        Args:
          image: [H, W, 3], RGB in [0, 1].
          wanted: (layer, statistic, mask) each; a mask is [h, w] of the layer, or None.

        Returns:
          `Statistic.measure` of each.

        Raises:
          UserError: as for the features.
        """
        layers = tuple({layer for layer, _, _ in wanted})
        features = self(image, layers) if layers else {}
        return [statistic.measure(features[layer], mask) for layer, statistic, mask in wanted]

    def sample_features(self, key: Key, image: Image, layer: str, count: int) -> Array:
        """Computes a layer's features at random positions.

        Args:
          key: of the positions; consumed.
          image: [H, W, 3], RGB in [0, 1].
          layer: a canonical name.
          count: N.

        Returns:
          [N, C].
        """
        features = self.compute(image, (layer,))[layer]
        columns = features.reshape(-1, features.shape[-1])
        return columns[jax.random.randint(key, (count,), 0, len(columns), jnp.int32)]

    def feature_shape(self, shape: tuple[int, ...], layer: str) -> tuple[int, int, int]:
        """The shape of a layer's features, found without computing them.

        Args:
          shape: (H, W, 3) of the image.
          layer: a canonical name.

        Returns:
          (h, w, C).
        """
        image = jax.ShapeDtypeStruct(tuple(shape), "float32")
        return jax.eval_shape(lambda x: self.compute(x, (layer,))[layer], image).shape

    def reduce_mask(self, mask: Array, layer: str) -> Array:
        """Brings a mask of an image to the positions of a layer, here by stretching it over them.

        Args:
          mask: [H, W], at least 0.
          layer: a canonical name.

        Returns:
          [h, w], at least 0, each the average of what lies below it.
        """
        height, width, _ = self.feature_shape((*mask.shape, 3), layer)
        return jnp.maximum(jax.image.resize(mask, (height, width), "linear", antialias=True), 0.0)

    def with_offset(self, input_offset: Offset) -> Self:
        """This extractor with an input offset, if the choice was left to the task."""
        return self

    def prepare(
        self, layers: tuple[str, ...], shape: tuple[int, ...], *, rescale: bool = True
    ) -> Self:
        """Makes ready for many evaluations; the function computed is the same up to known factors.

        Args:
          layers: canonical names of the layers that will be asked for.
          shape: (H, W) of the images that will be evaluated most; others are evaluated too.
          rescale: whether features may be multiplied by powers of two, a number for each layer.

        Returns:
          An extractor of at least these layers.
        """
        return self

    def for_one_evaluation(self) -> Self:
        """This extractor, computed in the way that compiles soonest, for a single evaluation."""
        return self

    def scale_exponents(self, prepared: Any) -> dict[str, int]:
        """By which powers of two `prepare` multiplied the features.

        Args:
          prepared: what `prepare` made of this extractor.

        Returns:
          {layer: k}: features of the layer grew by 2^k. A layer that is not named did not change.
        """
        return {}


def cut(image: Array, place: Array, shape: Sequence[int]) -> Array:
    """Cuts a part out of an image, or of a feature map, where an array says.

    Args:
      image: [H, W, C].
      place: [2], int32, its first row and column.
      shape: (h, w) of the part.

    Returns:
      [h, w, C].
    """
    # The same type as the place's, also under `jax_enable_x64`.
    return lax.dynamic_slice(image, (*place, jnp.int32(0)), (*shape, image.shape[2]))


def as_names(layers: str | Sequence[str]) -> tuple[str, ...]:
    """Takes one name of a layer, or several, as a tuple."""
    return (layers,) if isinstance(layers, str) else tuple(layers)
