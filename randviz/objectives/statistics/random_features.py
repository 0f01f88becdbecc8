"""Means of random nonlinear features: distributions compared without sorting.

Each channel a of a layer (a random direction itself, if the layer's filters are random) gives F
random features φ(a), whose means over positions are compared. Means are additive over positions,
and at infinitely many features their distance is a maximum mean discrepancy between distributions.

References:
  Rahimi and Recht (2007), "Random features for large-scale kernel machines".
  Amir and Weiss (2021), "Understanding and simplifying perceptual distances".
"""

import dataclasses
import functools
import math
from typing import Self

import jax
import jax.numpy as jnp
from flax import struct

from randviz.objectives.statistics.base import (
    Statistic,
    mean_over_positions,
    require_key,
    require_sample,
)
from randviz.types import Array, Key

# Added under a square root, whose slope at zero is infinite.
_TINY = 1e-12


@struct.dataclass
class CosineMeans(Statistic):
    """Means of cosine and sine of ω a: the characteristic function at random frequencies.

    Attributes:
      num_features: F, frequencies for each channel.
      lowest, highest: frequencies ω are log-uniform between these, in radians per unit of a.
      frequencies: [C, F], from `sample`.
    """

    is_additive = True

    num_features: int = struct.field(pytree_node=False, default=4)
    lowest: float = struct.field(pytree_node=False, default=2.0)
    highest: float = struct.field(pytree_node=False, default=150.0)
    frequencies: Array | None = None

    @property
    def is_random(self) -> bool:
        """See `Statistic.is_random`."""
        return True

    def sample(self, key: Key | None, num_channels: int, samples: Array | None = None) -> Self:
        """See `Statistic.sample`; frequencies are stratified: one in each F-th of their range."""
        shape = (num_channels, self.num_features)
        levels = _stratify(require_key(key, self), shape)
        return dataclasses.replace(
            self, frequencies=_log_uniform(levels, self.lowest, self.highest)
        )

    def measure(self, features: Array, mask: Array | None = None) -> Array:
        """See `Statistic.measure`; [2, C, F]."""
        turns = require_sample(self.frequencies, self) / (2 * math.pi)
        # Of sums with weights, products of matrices, XLA on a CPU takes half as long as of means,
        # for each of which it computes both waves again.
        mask = jnp.ones(features.shape[:2], features.dtype) if mask is None else mask
        # One frequency at a time: [h, w, C, F] at once would be F times the layer.
        means = [
            [mean_over_positions(wave, mask) for wave in _waves(features * turns[:, i])]
            for i in range(self.num_features)
        ]
        return jnp.stack([jnp.stack(part, -1) for part in zip(*means, strict=True)])

    def compare(self, value: Array, target: Array) -> Array:
        """See `Statistic.compare`; each channel's distance is the root of Σ |difference|² / ω."""
        frequencies = require_sample(self.frequencies, self)
        energy = jnp.sum(jnp.square(value - target), 0) / frequencies
        return _average(energy, self.distance)


@struct.dataclass
class ThresholdMeans(Statistic):
    """Means of a function of (a - t) / h: the distribution function of a channel, smoothed.

    Attributes:
      shape: "clipped", the linear function clipped to [-1, 1], or "relu".
      num_features: F, thresholds for each channel.
      narrowest, widest: widths h are log-uniform between these, in units of a.
      thresholds: [C, F], t, each the response at a random position of a source; from `sample`.
      widths: [C, F], h, from `sample`.
    """

    is_additive = True

    shape: str = struct.field(pytree_node=False, default="clipped")
    num_features: int = struct.field(pytree_node=False, default=4)
    narrowest: float = struct.field(pytree_node=False, default=1 / 75)
    widest: float = struct.field(pytree_node=False, default=1 / 2)
    thresholds: Array | None = None
    widths: Array | None = None

    @property
    def is_random(self) -> bool:
        """See `Statistic.is_random`."""
        return True

    def count_samples(self, num_channels: int) -> int:
        """See `Statistic.count_samples`; one for each threshold."""
        return num_channels * self.num_features

    def sample(self, key: Key | None, num_channels: int, samples: Array | None = None) -> Self:
        """See `Statistic.sample`; thresholds follow the sources' own distribution."""
        shape = (num_channels, self.num_features)
        levels = _stratify(require_key(key, self), shape)
        widths = _log_uniform(levels, self.narrowest, self.widest)
        samples = require_sample(samples, self).reshape(*shape, num_channels)
        thresholds = jnp.diagonal(samples, axis1=0, axis2=2).T
        return dataclasses.replace(self, thresholds=thresholds, widths=widths)

    def measure(self, features: Array, mask: Array | None = None) -> Array:
        """See `Statistic.measure`; [C, F]."""
        apply = _SHAPES[self.shape]
        # Dividing each number would take a quarter of the time.
        slopes = 1 / require_sample(self.widths, self)
        shifts = require_sample(self.thresholds, self) * slopes
        means = [
            mean_over_positions(apply(features * slopes[:, i] - shifts[:, i]), mask)
            for i in range(self.num_features)
        ]
        return jnp.stack(means, -1)

    def compare(self, value: Array, target: Array) -> Array:
        """See `Statistic.compare`; each channel's distance is the root of Σ h difference²."""
        widths = require_sample(self.widths, self)
        return _average(jnp.square(value - target) * widths, self.distance)


_SHAPES = {"clipped": lambda x: jnp.clip(x, -1, 1), "relu": jax.nn.relu}


def _average(energy: Array, distance: str) -> Array:
    """The mean over channels of the sum over features, [C, F], or of its root."""
    sums = jnp.sum(energy, -1)
    return jnp.mean(sums if distance == "squared" else jnp.sqrt(sums + _TINY))


def _waves(turns: Array) -> tuple[Array, Array]:
    """Cosine and sine of 2π turns, by Taylor series of the half angle, to 1e-6.

    XLA's own are hardly vectorised on a CPU: with their gradient they take 2.7 times as long.
    """
    half = math.pi * (turns - jnp.round(turns))
    square = jnp.square(half)
    cosine, sine = (
        functools.reduce(lambda total, factor: total * square + factor, factors)
        for factors in (_COSINE, _SINE)
    )
    sine *= half
    return 1 - 2 * jnp.square(sine), 2 * sine * cosine


# From the highest power down; the next would be below 1e-7 at a right angle.
_COSINE, _SINE = (
    [(-1) ** power / math.factorial(2 * power + odd) for power in reversed(range(7))]
    for odd in (0, 1)
)


def _stratify(key: Key, shape: tuple[int, ...]) -> Array:
    """[C, F] numbers in [0, 1), in each row one in each F-th of it."""
    jitter = jax.random.uniform(key, shape, jnp.float32)
    return (jnp.arange(shape[1], dtype=jnp.float32) + jitter) / shape[1]


def _log_uniform(levels: Array, low: float, high: float) -> Array:
    return low * jnp.exp(levels * math.log(high / low))
