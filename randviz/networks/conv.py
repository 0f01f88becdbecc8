"""What the networks are made of: convolution and pooling.

The convolution defines its own transpose (`bilinear`). Inside `while_loop`, `scan` or `fori_loop`,
XLA:CPU runs the input gradient that autodiff derives (a convolution with dilated or reversed
operands) two to four times slower than outside a loop, and a descent is a loop. The same gradient
written as an ordinary forward convolution, with the kernel flipped in space and transposed in
channels, is equally fast in both places. And where it pays, both are computed by Winograd's
method or by Fourier transforms. A descent, whose kernels are fixed, flips and transforms them once
and passes them along.
"""

import functools
import itertools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer

from randviz.networks import fourier, winograd
from randviz.networks.bilinear import define_bilinear
from randviz.types import Array

CONVOLUTIONS = ("auto", "direct", "winograd", "fft")
PADDING_MODES = {"zero": "constant", "reflect": "reflect", "periodic": "wrap"}

_NHWC = ("NHWC", "HWIO", "NHWC")
_FEW = 4  # channels
_LARGEST_TAPS = 7  # pixels; the taps of a larger kernel take too much memory


def adjoint_kernel(kernel: Array, *, groups: int = 1) -> Array:
    """Flips a kernel in space and transposes its channels: the kernel of the input gradient.

    Args:
      kernel: [s, s, C_in / groups, C_out].
      groups: in how many parts the channels are divided.

    Returns:
      [s, s, C_out / groups, C_in].
    """
    size, _, inputs, outputs = kernel.shape
    parts = kernel.reshape(size, size, inputs, groups, outputs // groups)
    swapped = jnp.flip(parts, (0, 1)).transpose(0, 1, 4, 3, 2)
    return swapped.reshape(size, size, outputs // groups, groups * inputs)


def platform_of(tree: Any) -> str:
    """Says where the arrays of a pytree are, and so where they will be computed on.

    Args:
      tree: any; its first array that is not traced counts.

    Returns:
      A name such as "cpu" or "gpu"; that of JAX's default device where there is no such array.
    """
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, jax.Array) and not isinstance(leaf, Tracer):
            return next(iter(leaf.devices())).platform
    config: Any = jax.config  # has its options as attributes since run time only
    default = config.jax_default_device
    if default is None:
        return jax.default_backend()
    return default if isinstance(default, str) else default.platform


def choose_method(
    x_shape: tuple[int, ...],
    kernel_shape: tuple[int, ...],
    *,
    stride: int = 1,
    groups: int = 1,
    convolution: str = "auto",
    platform: str,
) -> str:
    """Says how a convolution is best computed.

    Args:
      x_shape: (h, w, C_in) of the feature map.
      kernel_shape: (s, s, C_in / groups, C_out).
      stride, groups: as in `convolve`.
      convolution: "direct"; "winograd" or "fft", wherever it is possible; "auto", the fastest.
      platform: where it is computed, such as "cpu" or "gpu"; from `platform_of`.

    Returns:
      "direct"; "winograd"; "fft"; "taps", one matrix product for all taps, on small maps or where
      there are few channels on one side; or, for larger kernels there, "blocks", several
      neighbouring outputs as channels of one.
    """
    size, _, inputs, outputs = kernel_shape
    height, width, few = *x_shape[:2], min(inputs, outputs)
    if convolution == "direct" or groups != 1:
        return "direct"
    if convolution == "auto" and platform == "cpu" and few > _FEW and 1 < size <= _LARGEST_TAPS:
        if _is_swapped((height, width), size, stride):
            return "taps"
    if stride != 1:
        return "direct"
    if convolution == "fft":
        return "fft"
    if convolution == "winograd":
        return "winograd" if size == 3 else "direct"
    # GPUs have fast algorithms of their own.
    if platform != "cpu":
        return "direct"
    if size != 3:
        if few > _FEW:
            return "direct"
        return "fft" if size >= fourier.SMALLEST_SIZE else "blocks"
    # XLA:CPU computes the gradient of VGG-19's first layer, 64 channels to 3, some four times
    # slower than the few numbers ask for.
    if few <= _FEW:
        return "taps"
    if few < 32:
        return "direct"
    # Measured (BUILD_NOTES.md): on smaller maps reading the transformed kernel, four times as
    # large, costs more than is saved, and one product is a little faster than XLA's convolution.
    return "winograd" if height * width >= max(64, few // 2) else "taps"


def _is_swapped(shape: tuple[int, int], size: int, stride: int) -> bool:
    """Says whether XLA takes the map for the kernel, in a convolution or its input gradient.

    Its algebraic simplifier exchanges the two where the kernel has more positions than the map. On
    CPUs such a convolution, whose window is reversed, is up to forty times slower.
    """
    outputs = [-(-side // stride) for side in shape]
    return math.prod(outputs) < size**2


def prepare_kernel(
    kernel: Array,
    *,
    method: str,
    shape: tuple[int, ...],
    groups: int = 1,
    padding_mode: str = "zero",
) -> dict[str, Any]:
    """Computes what a convolution and its input gradient need of a kernel, once for many.

    Args:
      kernel: [s, s, C_in / groups, C_out].
      method: from `choose_method`.
      shape: (h, w) of the feature map; one of another size is convolved too, if more slowly.
      groups, padding_mode: as in `convolve`.

    Returns:
      For `convolve`'s argument `prepared`: {"adjoint": ...}; or the transforms of both,
      {"winograd": ..., "winograd_adjoint": ...}; or the one that serves both, {"fft": ...}.
    """
    if method == "fft":
        size = kernel.shape[0]
        if padding_mode != "zero":
            shape = tuple(side + 2 * (size // 2) for side in shape)
        sides = fourier.find_sides(shape, size, size // 2 if padding_mode == "zero" else 0)
        return {"fft": fourier.transform_kernel(kernel, sides)}
    adjoint = adjoint_kernel(kernel, groups=groups)
    if method != "winograd":
        return {"adjoint": adjoint}
    return {
        name: winograd.transform_kernel(each, winograd.count_parts(shape, each.shape[3]))
        for name, each in (("winograd", kernel), ("winograd_adjoint", adjoint))
    }


def convolve(
    x: Array,
    kernel: Array,
    *,
    padding: int | None = None,
    stride: int = 1,
    groups: int = 1,
    padding_mode: str = "zero",
    convolution: str = "auto",
    prepared: Mapping[str, Any] | None = None,
    platform: str | None = None,
) -> Array:
    """Convolves a feature map with square kernels.

    Args:
      x: [h, w, C_in].
      kernel: [s, s, C_in / groups, C_out]; correlated as it stands, as deep learning does.
      padding: positions added beyond each edge; by default s // 2, with which an odd s and stride
        1 keep height and width.
      stride: positions from one output to the next.
      groups: in how many parts, blind to each other, the channels are divided.
      padding_mode: what lies beyond the edge: "zero", "reflect" or "periodic".
      convolution: how it is computed, see `choose_method`; results differ by rounding only.
      prepared: `prepare_kernel` of the kernel, if it is known already. One that was prepared for
        another method is not used.
      platform: where it is computed, see `choose_method`; by default on JAX's default device.

    Returns:
      [(h + 2 padding - s) // stride + 1, the same of w, C_out].

    References:
      He, Wang, Hopcroft (2016), section 2: VGG-19's 3×3 convolutions, zero-padded.
      Differs: the padding modes other than zero, which leave no trace of the edge in the features.
    """
    padding = kernel.shape[0] // 2 if padding is None else padding
    method = choose_method(
        x.shape,
        kernel.shape,
        stride=stride,
        groups=groups,
        convolution=convolution,
        platform=platform_of(None) if platform is None else platform,
    )
    form = method if method in ("winograd", "fft") else "adjoint"
    if prepared is None or form not in prepared:
        # A transform that serves but once is better computed part by part.
        prepared = (
            {"fft": None}
            if method == "fft"
            else prepare_kernel(kernel, method=method, shape=x.shape[:2], groups=groups)
        )
    if method == "fft":
        spectrum = prepared["fft"]
        forms = (spectrum, spectrum and spectrum.for_adjoint())
    elif method == "winograd":
        forms = (prepared["winograd"], prepared["winograd_adjoint"])
    else:
        forms = (kernel, prepared["adjoint"])
    if padding_mode != "zero" and padding:
        # Differs from the paper: it has zeros only.
        x = pad_sides(x, padding, PADDING_MODES[padding_mode])
        padding = 0
    return _correlate(
        x,
        kernel,
        forms,
        pads=((padding, padding),) * 2,
        stride=stride,
        spread=1,
        groups=groups,
        method=method,
    )


def pad_sides(x: Array, amount: int, mode: str, **options: Any) -> Array:
    """Pads height and width alike.

    Args:
      x: [h, w, ...].
      amount: positions added beyond each edge.
      mode, options: as in `jnp.pad`.

    Returns:
      [h + 2 amount, w + 2 amount, ...].
    """
    return jnp.pad(x, [(amount, amount)] * 2 + [(0, 0)] * (x.ndim - 2), mode, **options)


def _compute(x, kernel, prepared, *, pads, stride, spread, groups, method) -> Array:
    own, _ = prepared
    if method == "winograd":
        return winograd.correlate(x, own, pads[0][0])
    if method == "fft":
        return fourier.correlate(x, kernel, own, pads[0][0])
    if method == "taps":
        return _sum_taps(x, own, pads, stride, spread)
    if method == "blocks":
        return _apply_to_blocks(x, own, pads[0][0])
    return _apply(x, own, pads=pads, stride=stride, spread=spread, groups=groups)


def _apply(x, kernel, *, pads, stride, spread, groups, method="direct"):
    """Correlates by one operation of XLA, whichever the method."""
    return lax.conv_general_dilated(
        x[None],
        kernel,
        (stride, stride),
        pads,
        lhs_dilation=(spread, spread),
        dimension_numbers=_NHWC,
        feature_group_count=groups,
    )[0]


def _sum_taps(x, kernel, pads, stride, spread):
    """One matrix product for all taps of a kernel, before or after they are shifted."""
    size, _, inputs, outputs = kernel.shape
    x = lax.pad(x, jnp.zeros((), x.dtype), [*((*pad, spread - 1) for pad in pads), (0, 0, 0)])
    height, width = (side - size + 1 for side in x.shape[:2])

    def shift(array):
        for i, j in itertools.product(range(size), repeat=2):
            yield (i, j), array[i : i + height : stride, j : j + width : stride]

    if outputs > _FEW:
        # Behind a barrier, or XLA gathers the parts anew for each output.
        parts = lax.optimization_barrier(jnp.concatenate([part for _, part in shift(x)], axis=2))
        return parts @ kernel.reshape(-1, outputs)
    products = x @ kernel.transpose(2, 0, 1, 3).reshape(inputs, -1)
    products = lax.optimization_barrier(products.reshape(*x.shape[:2], size, size, outputs))
    return jnp.asarray(sum(part[:, :, i, j] for (i, j), part in shift(products)))


def _apply_to_blocks(x, kernel, padding):
    """Computes a block of neighbouring positions as the channels of one strided convolution.

    The kernel, shifted within a larger window, stands there once for each position of the block.
    XLA:CPU multiplies matrices with three columns, or gathers windows for a few products each, at a
    fraction of its speed; a third more products are sooner done. Blocks are high rather than wide,
    and the last column of them is not needed, because otherwise, and at some sizes only, XLA:CPU
    computes such a convolution on a single thread (BUILD_NOTES.md).
    """
    size, _, inputs, outputs = kernel.shape
    rows, columns = (4, 1) if inputs < outputs else (4, 2)
    shifted = [
        jnp.pad(kernel, ((i, rows - 1 - i), (j, columns - 1 - j), (0, 0), (0, 0)))
        for i in range(rows)
        for j in range(columns)
    ]
    wide = jnp.stack(shifted, 3).reshape(
        size + rows - 1, size + columns - 1, inputs, rows * columns * outputs
    )
    height, width = (side + 2 * padding - size + 1 for side in x.shape[:2])
    pads = (
        (padding, padding + -height % rows),
        (padding, padding + -width % columns + columns),
    )
    found = lax.conv_general_dilated(x[None], wide, (rows, columns), pads, dimension_numbers=_NHWC)[
        0
    ]
    blocks = found.reshape(*found.shape[:2], rows, columns, outputs).swapaxes(1, 2)
    whole = blocks.reshape(found.shape[0] * rows, found.shape[1] * columns, outputs)
    return whole[:height, :width]


def _transpose(cotangent, kernel, prepared, *, shape, pads, stride, spread, groups, method):
    own, adjoint = prepared
    size = kernel.shape[0]
    # What was skipped between outputs is zeros now; the last window may have left a rest.
    pads = tuple(
        (size - 1 - before, (side - 1) * spread - (count - 1) * stride + before)
        for (before, _), side, count in zip(pads, shape, cotangent.shape, strict=False)
    )
    return _correlate(
        cotangent,
        # Only for this gradient's own gradient: otherwise nobody reads it and XLA removes it.
        adjoint_kernel(kernel, groups=groups),
        (adjoint, own),
        pads=pads,
        stride=spread,
        spread=stride,
        groups=groups,
        method=method,
    )


# Of x and kernel; prepared are the two forms, of the kernel and its adjoint, that `_compute` reads.
_correlate = define_bilinear("correlate", compute=_compute, reference=_apply, transpose=_transpose)


def pool(x: Array, *, pooling: str = "avg", size: int = 2, stride: int = 2) -> Array:
    """Pools a feature map: the mean or the maximum of each window.

    Args:
      x: [h, w, C]; rows and columns that do not fill a window are dropped.
      pooling: "avg" or "max".
      size: height and width of a window.
      stride: positions from one window to the next.

    Returns:
      [(h - size) // stride + 1, the same of w, C]; with the defaults [h // 2, w // 2, C].

    References:
      He, Wang, Hopcroft (2016), section 2, after Gatys et al.: average pooling in place of maximum.
      Krizhevsky, Sutskever, Hinton (2012), section 3.4: windows that overlap.
    """
    rows, columns = ((side - size) // stride + 1 for side in x.shape[:2])
    if size == stride:
        # Blocks as axes rather than reduce_window: its gradient is a broadcast, which XLA fuses.
        blocks = x[: rows * size, : columns * size].reshape(rows, size, columns, size, x.shape[2])
        return blocks.mean((1, 3)) if pooling == "avg" else blocks.max((1, 3))
    # Windows that overlap are so many strided views of the map.
    views = [
        x[i : i + (rows - 1) * stride + 1 : stride, j : j + (columns - 1) * stride + 1 : stride]
        for i in range(size)
        for j in range(size)
    ]
    if pooling == "avg":
        return jnp.asarray(sum(views)) / size**2
    return functools.reduce(jnp.maximum, views)
