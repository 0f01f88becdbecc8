"""The 3×3 convolution and the 2×2 pooling that every network here is made of.

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


def adjoint_kernel(kernel: Array) -> Array:
    """Flips a kernel in space and transposes its channels: the kernel of the input gradient.

    Args:
      kernel: [s, s, C_in, C_out].

    Returns:
      [s, s, C_out, C_in].
    """
    return jnp.flip(kernel, (0, 1)).swapaxes(2, 3)


def convolve(
    x: Array, kernel: Array, *, padding: str = "zero", adjoint: Array | None = None
) -> Array:
    """Convolves a feature map with square kernels of odd size, keeping its height and width.

    Args:
      x: [h, w, C_in].
      kernel: [s, s, C_in, C_out], s odd; correlated as it stands, as deep learning does.
      padding: what lies beyond the border: "zero", "reflect" or "periodic".
      adjoint: `adjoint_kernel(kernel)`, if it is known already.

    Returns:
      [h, w, C_out].

    References:
      He, Wang, Hopcroft (2016), section 2: VGG-19's 3×3 convolutions, zero-padded.
      Differs: the paddings other than zero, which leave no mark of the border in the features.
    """
    border = kernel.shape[0] // 2
    adjoint = adjoint_kernel(kernel) if adjoint is None else adjoint
    if padding == "zero":
        return _correlate(x, kernel, adjoint, border)
    # Differs from the paper: it has zeros only.
    pads = ((border, border), (border, border), (0, 0))
    return _correlate(jnp.pad(x, pads, mode=PADDINGS[padding]), kernel, adjoint, 0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _correlate(x: Array, kernel: Array, adjoint: Array, border: int) -> Array:
    """Correlates x, padded with `border` zeros on each side, with the kernel."""
    del adjoint  # for the gradient
    pads = ((border, border), (border, border))
    return lax.conv_general_dilated(x[None], kernel, (1, 1), pads, dimension_numbers=_NHWC)[0]


def _correlate_forward(x, kernel, adjoint, border):
    return _correlate(x, kernel, adjoint, border), (x, kernel, adjoint)


def _correlate_backward(border, residuals, cotangent):
    x, kernel, adjoint = residuals
    x_gradient = _correlate(cotangent, adjoint, kernel, kernel.shape[0] - 1 - border)
    # The kernel gradient correlates x with the cotangent, channels standing in for the batch. In a
    # descent on an image nobody asks for it and XLA removes it.
    kernel_gradient = lax.conv_general_dilated(
        x[None],
        cotangent[None],
        (1, 1),
        ((border, border), (border, border)),
        dimension_numbers=("CHWN", "IHWO", "HWNC"),
    )
    return x_gradient, kernel_gradient, jnp.zeros_like(adjoint)


_correlate.defvjp(_correlate_forward, _correlate_backward)


def pool(x: Array, *, pooling: str = "avg") -> Array:
    """Halves a feature map: the mean or the maximum of each 2×2 block.

    Args:
      x: [h, w, C]; an odd last row or column is dropped.
      pooling: "avg" or "max".

    Returns:
      [h // 2, w // 2, C].

    References:
      He, Wang, Hopcroft (2016), section 2, after Gatys et al.: average pooling in place of maximum.
    """
    height, width, channels = x.shape
    half_height, half_width = height // 2, width // 2
    # Blocks as axes rather than reduce_window: its gradient is a plain broadcast, which XLA fuses.
    blocks = x[: 2 * half_height, : 2 * half_width].reshape(half_height, 2, half_width, 2, channels)
    return blocks.mean((1, 3)) if pooling == "avg" else blocks.max((1, 3))
