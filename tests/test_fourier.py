"""Convolution by Fourier transforms against the sum of taps in float64, prepared and not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_conv import convolve_by_taps

from randviz.networks import fourier
from randviz.networks.conv import convolve, prepare_kernel
from randviz.networks.filter_bank import filter_bank
from randviz.networks.vgg import VGG19

rng = np.random.default_rng(7)


def draw(*shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)


def relative_error(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


# A kernel larger than the map; channels divided into parts, and not; no padding, and much.
@pytest.mark.parametrize(
    ("size", "padding", "inputs", "outputs", "padding_mode", "prepared_for"),
    [
        (23, 11, 3, 32, "zero", None),
        (23, 11, 3, 32, "zero", (13, 16)),
        (11, 5, 32, 3, "zero", (13, 16)),
        (11, 5, 32, 3, "zero", (9, 40)),
        (11, 5, 3, 5, "zero", (20, 24)),
        (11, 5, 3, 5, "periodic", (13, 16)),
        (8, 0, 5, 2, "zero", (13, 16)),
        (4, 5, 3, 2, "zero", None),
    ],
)
def test_error_of_value_and_input_gradient_is_below_1e_6(
    size, padding, inputs, outputs, padding_mode, prepared_for
):
    x, kernel = draw(13, 16, inputs), draw(size, size, inputs, outputs)
    prepared = prepared_for and prepare_kernel(
        kernel, method="fft", shape=prepared_for, padding_mode=padding_mode
    )
    own = lambda x: convolve(
        x,
        kernel,
        padding=padding,
        padding_mode=padding_mode,
        convolution="fft",
        prepared=prepared,
    )
    found, pull_back = jax.vjp(own, x)
    taps = np.asarray(kernel, np.float64)
    by_taps = lambda x: convolve_by_taps(np.asarray(x, np.float64), taps, padding_mode, padding)
    assert relative_error(found, by_taps(x)) < 1e-6
    # The gradient by its definition: <A x, y> = <x, A* y>, for two x's.
    cotangent = draw(*found.shape)
    (gradient,) = pull_back(cotangent)
    for tangent in (draw(*x.shape), x):
        expected = np.vdot(by_taps(tangent), np.asarray(cotangent, np.float64))
        error = abs(np.vdot(tangent, np.asarray(gradient, np.float64)) - expected)
        norms = np.linalg.norm(tangent) * np.linalg.norm(gradient)
        assert error < 1e-6 * norms


def test_a_spectrum_that_would_be_too_large_is_not_kept(monkeypatch):
    kernel = draw(5, 5, 3, 4)
    sides = fourier.find_sides((16, 15), 5, 2)
    assert sides == (18, 18)
    assert fourier.transform_kernel(kernel, sides).values.shape == (3, 4, 18, 10)
    monkeypatch.setattr(fourier, "_MOST_BYTES", 3 * 4 * 18 * 10 * 8 - 1)
    assert fourier.transform_kernel(kernel, sides) is None
    prepared = prepare_kernel(kernel, method="fft", shape=(16, 15))
    x = draw(16, 15, 3)
    found = convolve(x, kernel, convolution="fft", prepared=prepared)
    assert relative_error(found, convolve(x, kernel, convolution="direct")) < 1e-6


def test_large_kernels_are_not_computed_directly_even_once():
    assert filter_bank((3, 11)).for_one_evaluation().convolution == "auto"
    assert filter_bank((3, 7)).for_one_evaluation().convolution == "direct"
    assert VGG19.for_one_evaluation().convolution == "direct"
