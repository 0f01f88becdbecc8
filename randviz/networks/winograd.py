"""3×3 convolution with a quarter of the multiplications: Winograd's F(4×4, 3×3).

The map is cut into tiles of 6×6 that overlap by two. In each, rows and then columns are replaced by
combinations of theirs; so is the kernel; a product for each of the 36 places, summed over channels
(one batched matrix product), and combinations of its columns and rows give 4×4 results.

The combinations are evaluations of polynomials at five points and at infinity. With the usual
points 0, ±1, ±2 the error of a layer in float32 is about 3e-6 of its result, with 0, ±3/4, ±3/2
half of that, a few times that of the sum of taps; all their numbers are exact in float32.

References:
  Lavin and Gray (2016), "Fast algorithms for convolutional neural networks".
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from randviz.types import Array

_POINTS = np.array([0, 3 / 4, -3 / 4, 3 / 2, -3 / 2])
_OUTPUTS, _TILE = 4, 6
# Tiles times channels that are worked on at once, so that what is between two steps stays in the
# cache. Wider maps want large matrix products more than they want the cache.
_STRIP, _NARROW = 2**15, 128
# Between so many tiles, the products of wide kernels are sooner done so many channels at a time.
_FEW_TILES, _PART = (33, 150), 128


def _evaluate(count: int) -> np.ndarray:
    """[6, count]: what each point makes of a polynomial's coefficients, infinity the last."""
    at_infinity = np.eye(1, count, count - 1)
    return np.concatenate([np.vander(_POINTS, count, increasing=True), at_infinity])


def _interpolate() -> np.ndarray:
    """[6, 6]: the coefficients of Π (x - p) over the other points, of all points the last."""
    others = [np.delete(_POINTS, place) for place in range(len(_POINTS))]
    rows = [np.append(np.poly(points)[::-1], 0) for points in others]
    return np.array([*rows, np.poly(_POINTS)[::-1]])


_FACTORS = [np.prod(point - np.delete(_POINTS, i)) for i, point in enumerate(_POINTS)]
_OF_KERNEL = _evaluate(3) / np.array([*_FACTORS, 1])[:, None]
_OF_INPUT = _interpolate()
_OF_OUTPUT = _evaluate(_OUTPUTS).T


def count_parts(shape: tuple[int, ...], outputs: int) -> int:
    """Says into how many parts of equal size a kernel is best divided by its outputs.

    Args:
      shape: (h, w) of the feature map.
      outputs: C_out.

    Returns:
      1 for most; it is a matter of speed only.
    """
    tiles = math.prod(-(-side // _OUTPUTS) for side in shape)
    # Measured (BUILD_NOTES.md): how well Eigen divides such products between threads.
    divided = _FEW_TILES[0] <= tiles <= _FEW_TILES[1] and outputs % _PART == 0
    return outputs // _PART if divided else 1


def transform_kernel(kernel: Array, parts: int = 1) -> tuple[Array, ...]:
    """Makes a kernel ready for `correlate`: four times its size.

    Args:
      kernel: [3, 3, C_in, C_out].
      parts: into how many it is divided, a divisor of C_out; from `count_parts`.

    Returns:
      Its parts, [36, C_in, C_out / parts] each.
    """
    matrix = jnp.asarray(np.kron(_OF_KERNEL, _OF_KERNEL), kernel.dtype)  # rows and columns at once
    transformed = []
    for part in jnp.split(kernel, parts, axis=3):
        places = jnp.dot(matrix, part.reshape(9, -1), precision="highest")
        transformed.append(places.reshape(_TILE**2, *part.shape[2:]))
    return tuple(transformed)


# Under jit so that layers of one shape are traced once, not each in each program.
@functools.partial(jax.jit, static_argnums=(2,))
def correlate(x: Array, transformed: Sequence[Array], padding: int) -> Array:
    """Correlates a feature map, padded with zeros, with a 3×3 kernel.

    Args:
      x: [h, w, C_in].
      transformed: from `transform_kernel`.
      padding: how many zeros are put beyond each edge.

    Returns:
      [h + 2 padding - 2, the same of w, C_out].
    """
    height, width = (side + 2 * padding - 2 for side in x.shape[:2])
    rows, columns = -(-height // _OUTPUTS), -(-width // _OUTPUTS)
    widest = max(x.shape[2], sum(part.shape[2] for part in transformed))
    strip = max(_STRIP // widest // columns, 1) if widest <= _NARROW else rows
    count = -(-rows // strip)
    strip = -(-rows // count)
    pads = [
        (padding, _OUTPUTS * tiles + 2 - side - padding)
        for side, tiles in zip(x.shape[:2], (count * strip, columns), strict=True)
    ]
    x = jnp.pad(x, (*pads, (0, 0)))

    # One strip after the other: side by side they would push each other from the cache. More than
    # two are a loop: written out, a large picture has hundreds, which take minutes to compile.
    def correlate_strip(index: int | Array) -> Array:
        part = lax.dynamic_slice_in_dim(x, _OUTPUTS * strip * index, _OUTPUTS * strip + 2)
        return _correlate_tiles(part, transformed, strip, columns)

    if count <= 2:
        found = jnp.concatenate([correlate_strip(index) for index in range(count)])
    else:
        found = lax.map(correlate_strip, jnp.arange(count, dtype=jnp.int32))
        found = found.reshape(-1, *found.shape[2:])
    return found[:height, :width]


def _correlate_tiles(x: Array, transformed: Sequence[Array], rows: int, columns: int) -> Array:
    """Correlates a map that is cut into tiles without a rest."""
    # Without the barriers XLA fuses two steps into one, and computes the first again for each
    # element of the second that asks for it.
    steps = [x[i : i + _OUTPUTS * (rows - 1) + 1 : _OUTPUTS] for i in range(_TILE)]
    x = lax.optimization_barrier(jnp.stack(_combine(_OF_INPUT, steps)))
    steps = [x[:, :, j : j + _OUTPUTS * (columns - 1) + 1 : _OUTPUTS] for j in range(_TILE)]
    x = jnp.stack(_combine(_OF_INPUT, steps), axis=1).reshape(_TILE**2, rows * columns, -1)
    x = lax.optimization_barrier(x)
    found = []
    for part in transformed:
        products = lax.optimization_barrier(jnp.einsum("kti,kio->kto", x, part))
        products = products.reshape(_TILE, _TILE, rows, columns, -1)
        y = jnp.stack(_combine(_OF_OUTPUT, [products[:, j] for j in range(_TILE)]), axis=3)
        # The shape that is read next must be the one behind the barrier, or XLA computes both.
        y = lax.optimization_barrier(y.reshape(_TILE, rows, _OUTPUTS * columns, -1))
        y = jnp.stack(_combine(_OF_OUTPUT, [y[i] for i in range(_TILE)]), axis=1)
        found.append(y.reshape(_OUTPUTS * rows, _OUTPUTS * columns, -1))
    if len(found) == 1:
        return found[0]
    return jnp.concatenate(lax.optimization_barrier(found), axis=2)


def _combine(matrix: np.ndarray, arrays: list[Array]) -> list[Array]:
    """The matrix times a vector of arrays, its zeros left out."""
    return [
        jnp.asarray(
            sum(float(factor) * array for factor, array in zip(row, arrays, strict=True) if factor)
        )
        for row in matrix
    ]
