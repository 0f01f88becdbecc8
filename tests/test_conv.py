"""The convolution against a loop over taps, and its gradients against autodiff's own."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import randviz as rv
from randviz.conv import PADDINGS, adjoint_kernel, convolve, pool

rng = np.random.default_rng(0)


def convolve_by_taps(x, kernel, padding):
    border = kernel.shape[0] // 2
    pads = ((border, border), (border, border), (0, 0))
    padded = np.pad(np.asarray(x, np.float64), pads, mode=PADDINGS[padding])
    height, width, _ = x.shape
    taps = [
        padded[i : i + height, j : j + width] @ kernel[i, j]
        for i in range(kernel.shape[0])
        for j in range(kernel.shape[1])
    ]
    return sum(taps)


def draw(*shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("shape", [(12, 16, 3), (7, 5, 4), (2, 3, 1)])
def test_convolution_is_the_sum_of_its_taps(padding, shape):
    x, kernel = draw(*shape), draw(3, 3, shape[2], 5)
    found = convolve(x, kernel, padding=padding)
    expected = convolve_by_taps(x, np.asarray(kernel, np.float64), padding)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_one_pixel_with_zero_padding_sees_the_middle_tap():
    x, kernel = draw(1, 1, 3), draw(3, 3, 3, 4)
    np.testing.assert_allclose(convolve(x, kernel)[0, 0], x[0, 0] @ kernel[1, 1], rtol=1e-5)


@pytest.mark.parametrize("padding", PADDINGS)
def test_both_gradients_are_those_of_the_sum_of_taps(padding):
    x, kernel, cotangent = draw(12, 16, 3), draw(3, 3, 3, 5), draw(12, 16, 5)
    _, pull_back = jax.vjp(lambda x, k: convolve(x, k, padding=padding), x, kernel)

    def by_taps(x, kernel):
        padded = jnp.pad(x, ((1, 1), (1, 1), (0, 0)), mode=PADDINGS[padding])
        return sum(
            padded[i : i + 12, j : j + 16] @ kernel[i, j] for i in range(3) for j in range(3)
        )

    _, plain_pull_back = jax.vjp(by_taps, x, kernel)
    for found, expected in zip(pull_back(cotangent), plain_pull_back(cotangent), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_gradient_of_a_gradient_reaches_the_kernel():
    x, kernel = draw(6, 5, 2), draw(3, 3, 2, 4)

    def size_of_gradient(kernel, convolution):
        return jnp.sum(jax.grad(lambda x: jnp.sum(convolution(x, kernel) ** 3))(x) ** 2)

    def by_taps(x, kernel):
        padded = jnp.pad(x, ((1, 1), (1, 1), (0, 0)))
        return sum(padded[i : i + 6, j : j + 5] @ kernel[i, j] for i in range(3) for j in range(3))

    found = jax.grad(size_of_gradient)(kernel, convolve)
    expected = jax.grad(size_of_gradient)(kernel, by_taps)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * float(expected.max()))


def test_a_known_adjoint_changes_nothing():
    x, kernel = draw(6, 5, 2), draw(3, 3, 2, 4)
    known = lambda x: jnp.sum(convolve(x, kernel, adjoint=adjoint_kernel(kernel)) ** 2)
    plain = lambda x: jnp.sum(convolve(x, kernel) ** 2)
    np.testing.assert_array_equal(jax.grad(known)(x), jax.grad(plain)(x))


def test_input_gradient_compiles_to_ordinary_forward_convolutions():
    # Autodiff's own rule reverses the kernel and swaps its channel axes in the convolution itself,
    # which XLA:CPU runs slowly inside a loop. The kernel gradient must have been dropped.
    x, kernel = draw(12, 16, 3), draw(3, 3, 3, 5)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(convolve(x, kernel) ** 2)))
    text = gradient.lower(x).compile().as_text()
    convolutions = re.findall(r"dim_labels=(\S+?)[,\s]", text)
    assert convolutions and set(convolutions) == {"b01f_01io->b01f"}
    assert "reversal" not in text


def test_a_descent_flips_no_kernel(tiny, params, image, other_image):
    objective = rv.Inversion.of(tiny, params, image, layer="conv2_1")
    gradient = jax.jit(lambda objective, x: jax.grad(objective)(x))
    text = gradient.lower(objective, other_image).compile().as_text()
    assert "convolution" in text and " reverse(" not in text


def test_vmap_over_images_and_over_kernels_equals_a_loop():
    xs, kernels = draw(3, 8, 6, 2), draw(4, 3, 3, 2, 5)
    over_images = jax.vmap(lambda x: convolve(x, kernels[0]))(xs)
    over_kernels = jax.vmap(lambda k: convolve(xs[0], k))(kernels)
    for i in range(3):
        np.testing.assert_allclose(
            over_images[i], convolve(xs[i], kernels[0]), rtol=1e-5, atol=1e-5
        )
    for k in range(4):
        np.testing.assert_allclose(
            over_kernels[k], convolve(xs[0], kernels[k]), rtol=1e-5, atol=1e-5
        )


def test_pooling_by_hand_drops_the_odd_row_and_column():
    x = jnp.arange(15, dtype=jnp.float32).reshape(3, 5, 1)
    np.testing.assert_array_equal(pool(x, pooling="avg")[..., 0], [[3, 5]])
    np.testing.assert_array_equal(pool(x, pooling="max")[..., 0], [[6, 8]])
