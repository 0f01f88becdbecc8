"""Gaussian numbers that are the same, bit for bit, on every device: what weights are made of.

The bits of a Threefry key are integers and portable; the usual transform to Gaussians is not,
because a polynomial may be rounded differently wherever a compiler fuses a product with a sum.
Here each number is the sum of two entries of a fixed table, and one IEEE addition of two given
floats has only one answer.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import ndtri

from randviz.types import Array, Image, Key, UserError

GENERATOR = "threefry2x32"  # JAX's default one, but named, so that a setting cannot change it
# Other samplers draw within `with same_draws():`, JAX's default since 0.5; the other setting would
# draw other numbers from the same key.
same_draws = functools.partial(jax.threefry_partitionable, True)
_BLOCK = 1024  # numbers a key: part of the algorithm, another value draws other numbers


@functools.cache
def _quantiles() -> np.ndarray:
    """The 2^16 quantiles of N(0, 1/2) in the middle of equal probabilities, as float32."""
    middles = (np.arange(2**16) + 0.5) / 2**16
    return (ndtri(middles) / np.sqrt(2)).astype(np.float32)


def as_key(key: Key) -> Key:
    """Checks a key, and makes a typed one of an old-style one.

    Args:
      key: one Threefry key, from `jax.random.key` or `jax.random.PRNGKey`.

    Returns:
      The typed key with the same bits.

    Raises:
      UserError: if it is not a key, not a single one, or one of another generator.
    """
    dtype, shape = getattr(key, "dtype", None), getattr(key, "shape", ())
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        if shape == () and str(jax.random.key_impl(key)) == GENERATOR:
            return key
    elif dtype == jnp.uint32 and shape == (2,):
        return jax.random.wrap_key_data(jnp.asarray(key), impl=GENERATOR)
    described = type(key).__name__ if dtype is None else f"{dtype}{list(shape)}"
    raise UserError(
        f"{described} is not a single {GENERATOR} key; make one with"
        f' jax.random.key(seed, impl="{GENERATOR}").'
    )


def split_key(key: Key, num: int = 2) -> Key:
    """Splits a key as `jax.random.split` does by default, under any `jax_threefry_partitionable`.

    Args:
      key: a Threefry key, consumed.
      num: how many keys are wanted.

    Returns:
      [num] keys.
    """
    with same_draws():
        return jax.random.split(key, num)


def sample_gaussians(keys: Key, shapes: Sequence[tuple[int, ...]]) -> list[Array]:
    """Draws several arrays from N(0, 1), each from a key of its own.

    All 32 bits of a number count: the upper and the lower 16 each choose one quantile of N(0, 1/2);
    the sum of the two has variance 1 and reaches 6.1 standard deviations. Numbers are drawn in
    blocks, block i of an array from its key folded with i, so that all arrays together are a
    single program, which compiles ten times sooner than one for each shape.

    Args:
      keys: [N], Threefry keys.
      shapes: of the N arrays wanted.

    Returns:
      float32 arrays of those shapes; each depends on its own key and number of elements alone.
    """
    sizes = [math.prod(shape) for shape in shapes]
    blocks = [-(-size // _BLOCK) for size in sizes]
    which_key = np.repeat(np.arange(len(blocks)), blocks)
    which_block = np.concatenate([np.arange(count) for count in blocks])
    block_keys = jax.vmap(jax.random.fold_in)(keys[which_key], which_block)
    with same_draws():
        bits = jax.vmap(lambda key: jax.random.bits(key, (_BLOCK,), jnp.uint32))(block_keys)
    table = jnp.asarray(_quantiles())
    numbers = (table[bits >> 16] + table[bits & 0xFFFF]).reshape(-1)
    starts = np.cumsum([0, *blocks]) * _BLOCK
    return [
        numbers[start : start + size].reshape(shape)
        for start, size, shape in zip(starts, sizes, shapes, strict=False)
    ]


def sample_gaussian(key: Key, shape: tuple[int, ...]) -> Array:
    """Draws one array from N(0, 1), as `sample_gaussians` does."""
    return sample_gaussians(as_key(key)[None], [shape])[0]


def sample_noise_image(
    key: Key, shape: tuple[int, ...], *, std: float | Array, mean: float | Array = 0.5
) -> Image:
    """Draws the white noise that a descent starts from.

    Args:
      key: consumed; as in `as_key`.
      shape: (H, W).
      std: standard deviation of every pixel value, image in [0, 1]; 10 / 255 is ten grey levels.
      mean: of every pixel value, one number or one for each of R, G, B.

    Returns:
      [H, W, 3], not clipped.

    Raises:
      UserError: as `as_key`.

    References:
      He, Wang, Hopcroft (2016), section 2: "We initialize the pre_image with white noise".
    """
    numbers = sample_gaussian(key, (*shape, 3))
    return jnp.asarray(mean, jnp.float32) + jnp.asarray(std, jnp.float32) * numbers
