"""Sliced Wasserstein distance: distributions of features along random directions."""

import dataclasses
from collections.abc import Sequence
from typing import Self

import jax
import jax.numpy as jnp
from flax import struct

from randviz.objectives.statistics.base import Statistic, require_key, require_sample
from randviz.types import Array, Key


@struct.dataclass
class SlicedWasserstein(Statistic):
    """The sorted projections of all positions' features on random directions.

    The absolute distance of two such values is the mean over directions of the Wasserstein-1
    distance of the projections' distributions, the squared one that of Wasserstein-2 squared.

    Attributes:
      num_directions: K; 0 for the channels themselves, of a layer that is random anyway.
      directions: [C, K], of norm 1, from `sample`.

    References:
      Heitz et al. (2021), "A sliced Wasserstein loss for neural texture synthesis".
    """

    order = 1

    distance: str = struct.field(pytree_node=False, default="absolute")
    num_directions: int = struct.field(pytree_node=False, default=0)
    directions: Array | None = None

    @property
    def is_random(self) -> bool:
        return bool(self.num_directions)

    def sample(self, key: Key | None, num_channels: int, samples: Array | None = None) -> Self:
        """See `Statistic.sample`; draws directions, uniform on the sphere."""
        if not self.is_random:
            return self
        shape = (num_channels, self.num_directions)
        directions = jax.random.normal(require_key(key, self), shape, jnp.float32)
        return dataclasses.replace(
            self, directions=directions / jnp.linalg.norm(directions, axis=0)
        )

    def measure(self, features: Array, mask: Array | None = None) -> Array:
        """See `Statistic.measure`; [M, K], each column's quantiles in ascending order.

        With a mask the M quantiles are those of the weighted distribution.
        """
        columns = features.reshape(-1, features.shape[-1])
        if self.num_directions:
            columns = columns @ require_sample(self.directions, self)
        if mask is None:
            return jnp.sort(columns, axis=0)
        return jax.vmap(_weighted_quantiles, (1, None), 1)(columns, mask.reshape(-1))

    def compare(self, value: Array, target: Array) -> Array:
        """See `Statistic.compare`; sizes may differ: the target is resampled to the value's."""
        return Statistic.compare(self, value, _resample(target, len(value)))

    def blend(self, values: Sequence[Array], weights: Array | None) -> Array:
        """See `Statistic.blend`; quantiles are blended, those of the Wasserstein barycentre."""
        longest = max(len(value) for value in values)
        return Statistic.blend(self, [_resample(value, longest) for value in values], weights)


def _resample(quantiles: Array, count: int) -> Array:
    """Other quantiles of the same distributions, [M, K] → [count, K]."""
    if len(quantiles) == count:
        return quantiles
    known, wanted = (_levels(number) for number in (len(quantiles), count))
    return jax.vmap(lambda column: jnp.interp(wanted, known, column), 1, 1)(quantiles)


def _levels(count: int) -> Array:
    """The middles of so many equal parts of [0, 1]."""
    return (jnp.arange(count, dtype=jnp.float32) + 0.5) / count


def _weighted_quantiles(values: Array, weights: Array) -> Array:
    """[M] quantiles at equal levels of M values that count differently."""
    order = jnp.argsort(values)
    values, weights = values[order], weights[order]
    ends = jnp.cumsum(weights)
    # A value stands for the middle of its own share; one that counts nothing has no share.
    levels = (ends - weights / 2) / ends[-1]
    return jnp.interp(_levels(len(values)), levels, values)
