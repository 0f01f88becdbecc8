"""Terms that look at the image alone."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import struct

from randviz.types import Array, Image


@struct.dataclass
class Regularizer:
    """A function of the image as a term of an objective.

    Attributes:
      function: `total_variation` or `alpha_norm`; static.
      power: its β or α; static.
    """

    function: Callable[..., Array] = struct.field(pytree_node=False)
    power: float = struct.field(pytree_node=False)

    def __call__(self, image: Image) -> Array:
        return self.function(image, power=self.power)


def total_variation(image: Image, *, power: float = 2.0) -> Array:
    """Sums a power of the differences of adjacent pixels.

    Args:
      image: [H, W, 3], in [0, 1].
      power: β, at least 1. Static: a number, not an array.

    Returns:
      Scalar R(x) = Σ (down² + right²)^(β/2), in units of [0, 1] to the power β; it grows with the
      number of pixels, as ω-weighted losses do. Where there is no difference, neither is there a
      gradient.

    References:
      He, Wang, Hopcroft (2016), eq. 9 and the sentence below it, with β = 2.
      Mahendran and Vedaldi (2015), section 2.2, other β.
    """
    down, right = jnp.square(image[1:] - image[:-1]), jnp.square(image[:, 1:] - image[:, :-1])
    if power == 2:
        return jnp.sum(down) + jnp.sum(right)
    none = ((0, 0),)
    energy = jnp.pad(down, ((0, 1), *none, *none)) + jnp.pad(right, (*none, (0, 1), *none))
    # The root's slope at zero is infinite, and times zero no number; so no root of zero is taken.
    some = energy > 0
    return jnp.sum(jnp.where(some, jnp.where(some, energy, 1.0) ** (power / 2), 0.0))


def alpha_norm(image: Image, *, power: int = 6) -> Array:
    """Sums a power of the distances of all pixel values from mid-grey.

    Args:
      image: [H, W, 3], in [0, 1].
      power: α, a whole number. Static: a number, not an array.

    Returns:
      Scalar Σ |x - 1/2|^α, in units of [0, 1] to the power α; it grows with the number of pixels.

    References:
      Mahendran and Vedaldi (2015), section 2.2.
      Differs: they measure from the mean of many pictures.
    """
    return jnp.sum(jnp.abs(image - 0.5) ** power)
