"""Features themselves, position by position: what inversion and the content of a style compare."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import struct

from randviz.objectives.statistics.base import Statistic
from randviz.types import Array, UserError


@struct.dataclass
class Features(Statistic):
    """The features themselves, so that the places of things count."""

    keeps_positions = True
    order = 1

    def measure(self, features: Array, mask: Array | None = None) -> Array:
        """See `Statistic.measure`; [h, w, C], times the mask."""
        return features if mask is None else features * mask[..., None]

    def compare(self, value: Array, target: Array) -> Array:
        """See `Statistic.compare`; the squared distance is the content loss.

        References:
          He, Wang, Hopcroft (2016), eq. 1.

        Raises:
          UserError: if the images are not of one size.
        """
        _check_shapes(value, target)
        if self.distance == "squared":
            return content_loss(value, target)
        return super().compare(value, target)

    def blend(self, values: Sequence[Array], weights: Array | None) -> Array:
        """See `Statistic.blend`; of sources of one size.

        Raises:
          UserError: if their sizes differ.
        """
        for value in values[1:]:
            _check_shapes(values[0], value)
        return super().blend(values, weights)


def _check_shapes(value: Array, target: Array) -> None:
    if value.shape != target.shape:
        raise UserError(
            f"features are compared position by position, and one image's are {value.shape}, the"
            f" other's {target.shape}; take images of one size, or another statistic."
        )


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
