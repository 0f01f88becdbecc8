"""Types: what an image, a feature map and a key are.

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
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

Array = jax.Array
Image = jax.Array  # float32 [H, W, 3], RGB, nominally [0, 1]
Features = Mapping[str, jax.Array]  # {layer: [h, w, C]}, after the ReLU
Params = Mapping[str, Mapping[str, jax.Array]]  # {layer: {"kernel": ..., "bias": ...}}
Key = jax.Array  # a typed PRNG key, made by jax.random.key
Offset = float | tuple[float, float, float]  # one number, or one for each of R, G, B


class UserError(ValueError):
    """A mistake in what was asked for: one sentence that names the value and the remedy.

    The commands print it and exit with code 2; callers from Python can catch it as a ValueError.
    """


def first_line(error: Exception) -> str:
    """The first line of what somebody else's code raised, as a part of a sentence.

    Args:
      error: any.

    Returns:
      At most 200 characters, without a full stop; the error's type if it says nothing.
    """
    return str(error).split("\n")[0].rstrip(".")[:200] or type(error).__name__


def as_image(image: Any, name: str = "the image") -> Image:
    """Takes an array of any floating type as an image.

    Args:
      image: [H, W, 3], NumPy or JAX, RGB, nominally in [0, 1].
      name: for messages.

    Returns:
      The same as a float32 JAX array.

    Raises:
      UserError: if it is no array of floating-point numbers, not [H, W, 3], or (where the values
        are known, that is not under `jit`) reaches far beyond 1.
    """
    if not hasattr(image, "dtype"):
        image = np.asarray(image)
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise UserError(
            f"{name} has type {image.dtype}; give floating-point numbers in [0, 1], that is divide"
            " 0 to 255 by 255."
        )
    if image.ndim != 3 or image.shape[2] != 3:
        raise UserError(f"{name} has shape {tuple(image.shape)}; give (height, width, 3).")
    if not isinstance(image, Tracer) and image.size:
        highest = float(np.max(np.asarray(image, np.float32)))
        if highest > _BRIGHTEST:
            raise UserError(
                f"{name} has values up to {highest:g}; give numbers in [0, 1], that is divide 0 to"
                " 255 by 255."
            )
    return jnp.asarray(image, jnp.float32)


# A descent may leave [0, 1], but not so far; a picture in 0 to 255 that stays below is black.
_BRIGHTEST = 4.0
