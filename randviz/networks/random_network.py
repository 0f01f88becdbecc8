"""A network whose weights are still to be drawn."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct

from randviz.networks.extractor import Extractor, cut
from randviz.networks.gaussian import same_draws, split_key
from randviz.networks.network import PAPER_SCALE, Network
from randviz.networks.weights import random_weights
from randviz.types import Array, Features, Image, Key


@struct.dataclass
class RandomNetwork:
    """What `random_weights` draws, as a function of the key alone.

    Attributes:
      scale: σ of the kernels.
      bias_scale: standard deviation of the biases.
      max_shift: S: each draw looks at the image without its first 0 to S - 1 rows and columns,
        drawn too, and without as many of the last, so that layers with a stride see other
        positions each time; static.
      network, last_layer: the architecture and the deepest layer wanted (None: the last
        convolutional one); static.
    """

    scale: float | Array = PAPER_SCALE
    bias_scale: float | Array = 0.0
    network: Network = struct.field(pytree_node=False, kw_only=True)
    last_layer: str | None = struct.field(pytree_node=False, default=None)
    max_shift: int = struct.field(pytree_node=False, default=1)

    def sample(self, key: Key) -> Extractor:
        """Draws the weights and binds them.

        Args:
          key: consumed.
        """
        weights_key, shift_key = split_key(key)
        params = random_weights(
            weights_key,
            self.network,
            scale=self.scale,
            bias_scale=self.bias_scale,
            last_layer=self.last_layer,
        )
        extractor = self.network.bind(params)
        if self.max_shift == 1:
            return extractor
        with same_draws():
            shift = jax.random.randint(shift_key, (2,), 0, self.max_shift, jnp.int32)
        return Shifted(extractor, shift, self.max_shift)


@struct.dataclass
class Shifted(Extractor):
    """An extractor that looks at all of the image but a margin.

    Attributes:
      extractor: what is evaluated.
      shift: [2], int32, rows and columns left out before; margin - 1 - shift are left out after.
      margin: static.
    """

    extractor: Extractor
    shift: Array
    margin: int = struct.field(pytree_node=False)

    @property
    def name(self) -> str:
        return self.extractor.name

    @property
    def layer_names(self) -> tuple[str, ...]:
        return self.extractor.layer_names

    def canonical_name(self, layer: str) -> str:
        return self.extractor.canonical_name(layer)

    def compute(self, image: Image, layers: tuple[str, ...]) -> Features:
        rest = [side - self.margin + 1 for side in image.shape[:2]]
        return self.extractor.compute(cut(image, self.shift, rest), layers)

    def prepare(self, layers: tuple[str, ...], shape: tuple[int, ...], **options) -> "Shifted":
        return dataclasses.replace(self, extractor=self.extractor.prepare(layers, shape, **options))

    def for_one_evaluation(self) -> "Shifted":
        return dataclasses.replace(self, extractor=self.extractor.for_one_evaluation())
