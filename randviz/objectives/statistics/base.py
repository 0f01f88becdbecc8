"""Statistics: what of a layer's features is compared, and how two values are compared."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
from flax import struct

from randviz.types import Array, Key, UserError

DISTANCES = ("squared", "absolute")


@struct.dataclass
class Statistic:
    """What of a layer's features is compared.

    A subclass has `measure`. Statistics are pytrees; random parts (directions, thresholds) are
    arrays, which `sample` draws before the statistic is used.

    Attributes:
      distance: "squared" or "absolute".
      kind: the class's name, set by itself; it tells the pytrees of two statistics apart.

    Raises:
      UserError: for another distance.
    """

    distance: str = struct.field(pytree_node=False, default="squared")
    # jaxlib 0.10.2 takes the structures of two data classes for equal if their static fields are,
    # and now and then `jit` ran the program of one statistic for another. So each has its name.
    kind: str = struct.field(pytree_node=False, default="", kw_only=True, repr=False)

    # Whether positions are compared one by one, so that a mask applies to the target as well.
    keeps_positions = False
    # Whether `measure` is a mean over positions, so that parts of an image add up to the whole.
    is_additive = False
    # The degree of homogeneity of `measure` in the features; None if it has none.
    order: ClassVar[int | None] = None

    def __post_init__(self):
        object.__setattr__(self, "kind", type(self).__qualname__)
        if self.distance not in DISTANCES:
            raise UserError(f"distance {self.distance!r} is unknown; use {' or '.join(DISTANCES)}.")

    @property
    def degree(self) -> int | None:
        """The degree of homogeneity of the distance in the features; None if it has none."""
        return self.order and self.order * (2 if self.distance == "squared" else 1)

    @property
    def is_random(self) -> bool:
        """Whether `sample` draws anything."""
        return False

    def count_samples(self, num_channels: int) -> int:
        """How many positions `sample` looks at.

        Args:
          num_channels: C of the layer.
        """
        return 0

    def sample(self, key: Key | None, num_channels: int, samples: Array | None = None) -> Self:
        """Draws the random parts.

        Args:
          key: consumed; None where there is no randomness.
          num_channels: C of the layer.
          samples: [N, C], features at N random positions of what a target will be made of, N from
            `count_samples`; None where that is 0.

        Returns:
          The statistic with its random parts; this one if it has none.

        Raises:
          UserError: if a key is needed and there is none.
        """
        return self

    def measure(self, features: Array, mask: Array | None = None) -> Any:
        """Computes the statistic.

        Args:
          features: [h, w, C], one layer's.
          mask: [h, w], at least 0, how much each position counts; None counts all alike.

        Returns:
          A pytree of arrays.
        """
        raise NotImplementedError

    def compare(self, value: Any, target: Any) -> Array:
        """Measures how far two values of the statistic are from each other.

        Args:
          value, target: from `measure`.

        Returns:
          Scalar, at least 0; the mean of squared or absolute differences over all numbers.
        """
        differences = jax.tree.leaves(jax.tree.map(jnp.subtract, value, target))
        count = sum(leaf.size for leaf in differences)
        # x sign(x), because the derivative of JAX's |x| at zero is 1, and at zero lies the target.
        size = jnp.square if self.distance == "squared" else lambda x: x * jnp.sign(x)
        return jnp.asarray(sum(jnp.sum(size(leaf)) for leaf in differences) / count)

    def blend(self, values: Sequence[Any], weights: Array | None) -> Any:
        """Blends values of several sources, see `blend_linearly`."""
        return blend_linearly(values, weights)


def blend_linearly(values: Sequence[Any], weights: Array | None) -> Any:
    """Averages pytrees of arrays.

    Args:
      values: S of them, of one structure and shape.
      weights: [S], summing to 1; None for a single one.

    Returns:
      One such pytree.

    Raises:
      UserError: for several without weights.
    """
    if len(values) == 1:
        return values[0]
    if weights is None:
        raise UserError(f"there are {len(values)} sources to blend; give a weight for each.")
    return jax.tree.map(lambda *leaves: jnp.tensordot(weights, jnp.stack(leaves), 1), *values)


def require_key(key: Key | None, statistic: Statistic) -> Key:
    """The key that a random statistic is drawn from.

    Raises:
      UserError: if there is none.
    """
    if key is None:
        raise UserError(
            f"the statistic {type(statistic).__name__} is random and needs a key; give key=."
        )
    return key


def require_sample(sample: Array | None, statistic: Statistic) -> Array:
    """An array that `Statistic.sample` draws, or is given.

    Raises:
      UserError: if there is none.
    """
    if sample is None:
        raise UserError(
            f"the statistic {type(statistic).__name__} has no random parts yet; call sample first."
        )
    return sample


def mean_over_positions(values: Array, mask: Array | None) -> Array:
    """Averages over positions.

    Args:
      values: [h, w, ...].
      mask: [h, w], at least 0 and not all 0, or None.

    Returns:
      [...].
    """
    if mask is None:
        return jnp.mean(values, (0, 1))
    # Row by row: of a million additions to one sum each is rounded, of equal values all alike.
    rows = jnp.einsum("hw,hw...->h...", mask, values)
    return jnp.sum(rows, 0) / jnp.sum(mask)
