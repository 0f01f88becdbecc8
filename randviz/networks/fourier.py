"""Convolution of large kernels by the discrete Fourier transform.

The transforms of a zero-padded map and kernel are multiplied, summed over the input channels and
transformed back. The work hardly depends on the kernel's size. The kernel's transform takes far
more memory than the kernel, some [C_in, C_out, h, w / 2] complex numbers, so all of this is for few
channels on one side, such as the three of an image; those on the other are worked on in parts.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from scipy.fft import next_fast_len

from randviz.types import Array

# Measured (BUILD_NOTES.md): from this kernel size on it is faster than the direct convolution.
SMALLEST_SIZE = 11
# So many channels are transformed at once: what is between two steps stays small.
_PART = 16
# Beyond so many bytes the kernel's transform is not kept but computed at each evaluation.
_MOST_BYTES = 2**28


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["values"],
    meta_fields=["sides", "adjoint"],
)
@dataclasses.dataclass(frozen=True)
class Spectrum:
    """The transform of a kernel.

    Attributes:
      values: [C_in, C_out, H, W // 2 + 1], complex, where (H, W) are `sides`.
      sides: to which height and width the kernel was padded.
      adjoint: whether it stands for the adjoint kernel, whose transform is the conjugate, shifted.
    """

    values: Array
    sides: tuple[int, ...]
    adjoint: bool = False

    def for_adjoint(self) -> "Spectrum":
        """The same numbers, for the adjoint kernel."""
        return dataclasses.replace(self, adjoint=not self.adjoint)


def find_sides(shape: tuple[int, ...], kernel_size: int, padding: int) -> tuple[int, ...]:
    """Says how large the transforms must be, so that nothing wraps around into the result.

    Args:
      shape: (h, w) of the feature map.
      kernel_size: height and width of the kernel.
      padding: how many zeros are put beyond each edge; negative ones remove positions.

    Returns:
      (H, W), of small factors.
    """
    # The zeros beyond one edge, continued periodically, are those beyond the other too.
    smallest = (
        max(side + padding, side + 2 * padding - kernel_size + 1, kernel_size) for side in shape
    )
    next_size: Any = next_fast_len  # its annotation says that it returns nothing
    return tuple(next_size(side, True) for side in smallest)


def transform_kernel(kernel: Array, sides: tuple[int, ...]) -> Spectrum | None:
    """Makes a kernel ready for `correlate`.

    Args:
      kernel: [s, s, C_in, C_out].
      sides: from `find_sides`.

    Returns:
      Its transform; None where that would take too much memory.
    """
    entries = math.prod(kernel.shape[2:]) * sides[0] * (sides[1] // 2 + 1)
    if 2 * kernel.dtype.itemsize * entries > _MOST_BYTES:
        return None
    return Spectrum(_transform(kernel, sides), sides)


def _transform(kernel, sides):
    return jnp.fft.rfft2(kernel.transpose(2, 3, 0, 1), sides)


# Under jit so that layers of one shape are traced once, not each in each program.
@functools.partial(jax.jit, static_argnames=("padding",))
def correlate(x: Array, kernel: Array, spectrum: Spectrum | None, padding: int) -> Array:
    """Correlates a feature map, padded with zeros, with a kernel.

    Args:
      x: [h, w, C_in].
      kernel: [s, s, C_in, C_out].
      spectrum: from `transform_kernel` of this kernel, or of its adjoint and then `for_adjoint`;
        without it, or where it is too small for x, it is computed part by part.
      padding: how many zeros are put beyond each edge; negative ones remove positions.

    Returns:
      [h + 2 padding - s + 1, the same of w, C_out].
    """
    size, _, inputs, outputs = kernel.shape
    sides = find_sides(x.shape[:2], size, padding)
    if spectrum is not None and all(map(int.__le__, sides, spectrum.sides)):
        sides = spectrum.sides
    else:
        spectrum = None
    adjoint = spectrum is not None and spectrum.adjoint
    # The adjoint kernel's result lies s - 1 further on: the map is placed the earlier, and read so.
    before, first = (0, size - 1 - padding) if adjoint else (padding, 0)
    pads = [(before, own - side - before, 0) for own, side in zip(sides, x.shape, strict=False)]
    rows, columns = (slice(first, first + side + 2 * padding - size + 1) for side in x.shape[:2])
    x = x.transpose(2, 0, 1)
    axis, count = (0, inputs) if inputs > outputs else (1, outputs)
    part = math.gcd(count, _PART)
    slice_part = lambda array, index, axis: lax.dynamic_slice_in_dim(
        array, part * index, part, axis
    )

    # The barriers keep XLA from computing a transform again for each of its readers.
    def transform_map(x):
        padded = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *pads])
        return lax.optimization_barrier(jnp.fft.rfft2(padded))[:, None]

    def transform_part(index):
        if spectrum is None:
            return _transform(slice_part(kernel, index, 2 + axis), sides).conj()
        if adjoint:
            return slice_part(spectrum.values, index, 1 - axis).swapaxes(0, 1)
        return slice_part(spectrum.values, index, axis).conj()

    def transform_back(y):
        return jnp.fft.irfft2(lax.optimization_barrier(y), sides)[:, rows, columns]

    if axis == 1:
        transformed = transform_map(x)
        compute = lambda index: transform_back((transformed * transform_part(index)).sum(0))
        found = lax.map(compute, jnp.arange(count // part))
        found = found.reshape(outputs, *found.shape[2:])
    else:
        compute = lambda index: transform_map(slice_part(x, index, 0)) * transform_part(index)
        add = lambda index, total: total + compute(index).sum(0)
        zeros = jnp.zeros_like(compute(0)[0])
        found = transform_back(lax.fori_loop(0, count // part, add, zeros))
    return found.transpose(1, 2, 0)
