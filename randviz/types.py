"""The words of randviz: what an image, a feature map and a key are.

Shape letters used in every docstring:

======  =====================================================================
H W     height and width of an image, in pixels
h w     height and width of a feature map, in positions
C       channels
T       steps of a descent
K       candidate networks, N networks, L layers
======  =====================================================================

An image is float32 [H, W, 3], RGB, nominally in [0, 1], with no batch axis: a batch is a
`jax.vmap`. It is never clipped inside a descent, only when it is saved.
"""

from collections.abc import Mapping

import jax

Array = jax.Array
Image = jax.Array  # float32 [H, W, 3], RGB, nominally [0, 1]
Features = Mapping[str, jax.Array]  # {layer: [h, w, C]}, after the ReLU
Params = Mapping[str, Mapping[str, jax.Array]]  # {layer: {"kernel": ..., "bias": ...}}
Key = jax.Array  # a typed PRNG key, made by jax.random.key


class UserError(ValueError):
    """A mistake in what was asked for: one sentence that names the value and the remedy.

    The commands print it and exit with code 2; callers from Python can catch it as a ValueError.
    """
