"""Features themselves, position by position: what inversion and the content of a style compare."""

import jax.numpy as jnp
from flax import struct

from randviz.objectives.statistics.base import Statistic
from randviz.types import Array


@struct.dataclass
class Features(Statistic):
    """The features themselves, so that the places of things count."""

    @property
    def degree(self) -> int:
        """See `Statistic.degree`."""
        return 2 if self.distance == "squared" else 1

    def measure(self, features: Array, mask: Array | None = None) -> Array:
        """See `Statistic.measure`; [h, w, C], times the mask."""
        return features if mask is None else features * mask[..., None]

    def compare(self, value: Array, target: Array) -> Array:
        """See `Statistic.compare`; the squared distance is the content loss.

        References:
          He, Wang, Hopcroft (2016), eq. 1.
        """
        if self.distance == "squared":
            return content_loss(value, target)
        return super().compare(value, target)


def content_loss(features: Array, target: Array) -> Array:
    """Half the mean squared difference of two feature maps, before ω.

    Args:
      features: [h, w, C], F(x).
      target: [h, w, C], F(x0).

    Returns:
      Scalar, ‖F(x) - F(x0)‖² / (2NM), N = C channels, M = h·w positions.

    References:
      He, Wang, Hopcroft (2016), eq. 1.
    """
    return jnp.mean(jnp.square(features - target)) / 2
