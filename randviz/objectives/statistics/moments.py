"""Moments of a layer's features over positions, other than the Gram matrix."""

import jax.numpy as jnp
from flax import struct

from randviz.objectives.statistics.base import Statistic, mean_over_positions
from randviz.objectives.statistics.gram import mean_gram
from randviz.types import Array


@struct.dataclass
class Means(Statistic):
    """The mean of each channel."""

    is_additive = True
    order = 1

    def measure(self, features: Array, mask: Array | None = None) -> Array:
        """See `Statistic.measure`; [C]."""
        return mean_over_positions(features, mask)


@struct.dataclass
class MeanAndCovariance(Statistic):
    """The mean of each channel and the covariance of each pair."""

    def measure(self, features: Array, mask: Array | None = None) -> dict[str, Array]:
        """See `Statistic.measure`; {"mean": [C], "covariance": [C, C]}."""
        mean = mean_over_positions(features, mask)
        return {"mean": mean, "covariance": mean_gram(features - mean, mask)}

    def compare(self, value: dict[str, Array], target: dict[str, Array]) -> Array:
        """See `Statistic.compare`; both moments count alike, however many numbers they have."""
        both = [Statistic.compare(self, value[name], target[name]) for name in value]
        return jnp.mean(jnp.stack(both))
