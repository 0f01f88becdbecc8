"""A network whose weights are still to be drawn."""

from flax import struct

from randviz.networks.extractor import Extractor
from randviz.networks.gaussian import split_key
from randviz.networks.network import PAPER_SCALE, Network
from randviz.networks.weights import random_weights
from randviz.types import Array, Key, Params


@struct.dataclass
class RandomNetwork:
    """What `random_weights` draws, as a function of the key alone.

    Attributes:
      scale: σ of the kernels.
      bias_scale: standard deviation of the biases.
      network, last_layer: the architecture and the deepest layer wanted (None: the last
        convolutional one); static.
    """

    scale: float | Array = PAPER_SCALE
    bias_scale: float | Array = 0.0
    network: Network = struct.field(pytree_node=False, kw_only=True)
    last_layer: str | None = struct.field(pytree_node=False, default=None)

    def draw(self, key: Key) -> Params:
        """Draws the weights alone.

        Args:
          key: consumed.
        """
        return random_weights(
            key,
            self.network,
            scale=self.scale,
            bias_scale=self.bias_scale,
            last_layer=self.last_layer,
        )

    def sample(self, key: Key) -> Extractor:
        """Draws the weights and binds them.

        Args:
          key: consumed.
        """
        # Split as it once was for a second draw, so that a seed gives the weights that it gave.
        return self.network.bind(self.draw(split_key(key)[0]))
