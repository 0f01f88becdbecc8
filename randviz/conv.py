"""What the networks are made of: convolution, pooling, local response normalisation.

The convolution carries its own differentiation rule. Inside `while_loop`, `scan` or `fori_loop`,
XLA:CPU runs the input gradient that autodiff derives (a convolution with dilated or reversed
operands) two to four times slower than outside a loop, and a descent is a loop. The same gradient
written as an ordinary forward convolution, with the kernel flipped in space and transposed in
channels, is equally fast in both places. Flipping VGG-19's kernels costs as much as half an
evaluation at 64 pixels, so a descent, whose kernels are fixed, does it once and passes them along.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from randviz.types import Array

PADDINGS = {"zero": "constant", "reflect": "reflect", "periodic": "wrap"}
POOLINGS = ("avg", "max")

_NHWC = ("NHWC", "HWIO", "NHWC")


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


def convolve(
    x: Array,
    kernel: Array,
    *,
    border: int | None = None,
    stride: int = 1,
    groups: int = 1,
    padding: str = "zero",
    adjoint: Array | None = None,
) -> Array:
    """Convolves a feature map with square kernels.

    Args:
      x: [h, w, C_in].
      kernel: [s, s, C_in / groups, C_out]; correlated as it stands, as deep learning does.
      border: how far the padding reaches beyond each edge; by default s // 2, with which an odd s
        and stride 1 keep height and width.
      stride: positions from one output to the next.
      groups: in how many parts, blind to each other, the channels are divided.
      padding: what lies beyond the edge: "zero", "reflect" or "periodic".
      adjoint: `adjoint_kernel(kernel, groups=groups)`, if it is known already.

    Returns:
      [(h + 2 border - s) // stride + 1, the same of w, C_out].

    References:
      He, Wang, Hopcroft (2016), section 2: VGG-19's 3×3 convolutions, zero-padded.
      Differs: the paddings other than zero, which leave no mark of the border in the features.
    """
    border = kernel.shape[0] // 2 if border is None else border
    adjoint = adjoint_kernel(kernel, groups=groups) if adjoint is None else adjoint
    if padding != "zero" and border:
        # Differs from the paper: it has zeros only.
        x = jnp.pad(x, ((border, border), (border, border), (0, 0)), mode=PADDINGS[padding])
        border = 0
    return _correlate(x, kernel, adjoint, border, stride, groups)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _correlate(x, kernel, adjoint, border, stride, groups):
    """Correlates x, padded with `border` zeros on each side, with the kernel."""
    del adjoint  # for the gradient
    return _apply(x, kernel, ((border, border),) * 2, stride=stride, groups=groups)


def _apply(x, kernel, pads, *, stride=1, spread=1, groups=1):
    return lax.conv_general_dilated(
        x[None],
        kernel,
        (stride, stride),
        pads,
        lhs_dilation=(spread, spread),
        dimension_numbers=_NHWC,
        feature_group_count=groups,
    )[0]


def _correlate_forward(x, kernel, adjoint, border, stride, groups):
    return _correlate(x, kernel, adjoint, border, stride, groups), (x, kernel, adjoint)


def _correlate_backward(border, stride, groups, residuals, cotangent):
    x, kernel, adjoint = residuals
    before = kernel.shape[0] - 1 - border
    if stride == 1:
        x_gradient = _correlate(cotangent, adjoint, kernel, before, 1, groups)
    else:
        # What was skipped between outputs is zeros now; the last window may have left a rest.
        ends = [
            side - (count - 1) * stride - 1 + border
            for side, count in zip(x.shape[:2], cotangent.shape[:2], strict=True)
        ]
        pads = [(before, after) for after in ends]
        x_gradient = _apply(cotangent, adjoint, pads, spread=stride, groups=groups)
    # In a descent on an image nobody asks for the kernel's gradient and XLA removes it.
    forward = lambda kernel: _apply(
        x, kernel, ((border, border),) * 2, stride=stride, groups=groups
    )
    (kernel_gradient,) = jax.linear_transpose(forward, kernel)(cotangent)
    return x_gradient, kernel_gradient, jnp.zeros_like(adjoint)


_correlate.defvjp(_correlate_forward, _correlate_backward)


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
    return sum(views) / size**2 if pooling == "avg" else functools.reduce(jnp.maximum, views)


def normalize_response(x: Array, *, size: int, bias: float, slope: float, power: float) -> Array:
    """Divides each feature by a power of the energy of its neighbours among the channels.

    Args:
      x: [h, w, C].
      size: how many channels are looked at, odd: the feature's own in the middle.
      bias, slope, power: k, α and β in x / (k + α Σ x²)^β.

    Returns:
      [h, w, C].

    References:
      Krizhevsky, Sutskever, Hinton (2012), section 3.3.
    """
    reach, channels = size // 2, x.shape[-1]
    squares = jnp.pad(jnp.square(x), ((0, 0), (0, 0), (reach, reach)))
    energy = sum(squares[..., i : i + channels] for i in range(size))
    return x / (bias + slope * energy) ** power
