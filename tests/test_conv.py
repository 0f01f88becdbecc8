"""The convolution against a loop over taps, and its gradients against autodiff's own."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import randviz as rv
from randviz.networks.conv import PADDING_MODES, convolve, pool, prepare_kernel
from randviz.networks.layers import ResponseNorm

rng = np.random.default_rng(0)


def convolve_by_taps(x, kernel, padding_mode="zero", padding=None, stride=1, groups=1, numpy=np):
    """The sum of shifted maps times the kernel's taps, in NumPy or in jax.numpy."""
    size = kernel.shape[0]
    padding = size // 2 if padding is None else padding
    pads = ((padding, padding), (padding, padding), (0, 0))
    padded = numpy.pad(x, pads, mode=PADDING_MODES[padding_mode])
    rows, columns = (side - size + 1 for side in padded.shape[:2])
    parts = numpy.split(padded, groups, axis=2)
    kernels = numpy.split(kernel, groups, axis=3)
    found = [
        sum(
            part[i : i + rows : stride, j : j + columns : stride] @ own[i, j]
            for i in range(size)
            for j in range(size)
        )
        for part, own in zip(parts, kernels, strict=True)
    ]
    return numpy.concatenate(found, axis=2)


def draw(*shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("shape", [(12, 16, 3), (7, 5, 4), (2, 3, 1)])
def test_convolution_is_the_sum_of_its_taps(mode, shape):
    x, kernel = draw(*shape), draw(3, 3, shape[2], 5)
    found = convolve(x, kernel, padding_mode=mode)
    expected = convolve_by_taps(np.asarray(x, np.float64), np.asarray(kernel, np.float64), mode)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_one_pixel_with_zero_padding_sees_the_middle_tap():
    x, kernel = draw(1, 1, 3), draw(3, 3, 3, 4)
    np.testing.assert_allclose(convolve(x, kernel)[0, 0], x[0, 0] @ kernel[1, 1], rtol=1e-5)


# Krizhevsky's layers among them: a stride that leaves a rest, groups, no padding, a wide one.
SHAPES = [
    {},
    {"convolution": "direct"},
    {"convolution": "winograd"},
    {"convolution": "winograd", "padding_mode": "reflect"},
    {"convolution": "winograd", "padding": 0},
    {"convolution": "winograd", "padding": 2},
    {"convolution": "fft", "size": 5, "padding_mode": "reflect"},
    {"convolution": "fft", "size": 2, "padding": 3},
    {"padding_mode": "reflect"},
    {"padding_mode": "periodic"},
    {"size": 5, "padding": 0, "stride": 4},
    {"size": 5, "padding": 2, "groups": 2},
    {"size": 3, "padding": 1, "stride": 2, "groups": 2, "padding_mode": "reflect"},
    {"size": 2, "padding": 0, "stride": 3},
    # Maps smaller than the kernel, or than that of the input gradient: all taps in one product.
    {"shape": (3, 2)},
    {"size": 5, "shape": (4, 3)},
    {"size": 7, "shape": (6, 7), "padding_mode": "reflect"},
    {"size": 3, "shape": (4, 5), "stride": 2},
    {"size": 7, "shape": (8, 9), "stride": 2},
    {"size": 5, "shape": (7, 8), "padding": 1, "stride": 3},
]


@pytest.mark.parametrize("options", SHAPES)
def test_value_and_both_gradients_are_those_of_the_sum_of_taps(options):
    options = dict(options)
    size, groups = options.pop("size", 3), options.get("groups", 1)
    x, kernel = draw(*options.pop("shape", (13, 16)), 6), draw(size, size, 6 // groups, 8)
    found, pull_back = jax.vjp(lambda x, k: convolve(x, k, **options), x, kernel)
    options.pop("convolution", None)
    by_taps = lambda x, k: convolve_by_taps(x, k, numpy=jnp, **options)
    expected, plain_pull_back = jax.vjp(by_taps, x, kernel)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    cotangent = draw(*expected.shape)
    for ours, plain in zip(pull_back(cotangent), plain_pull_back(cotangent), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-4, atol=1e-4)


def test_a_gradient_of_a_gradient_reaches_the_kernel():
    x, kernel = draw(6, 5, 2), draw(3, 3, 2, 4)

    def size_of_gradient(kernel, convolution):
        return jnp.sum(jax.grad(lambda x: jnp.sum(convolution(x, kernel) ** 3))(x) ** 2)

    by_taps = lambda x, kernel: convolve_by_taps(x, kernel, numpy=jnp)
    found = jax.grad(size_of_gradient)(kernel, convolve)
    expected = jax.grad(size_of_gradient)(kernel, by_taps)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * float(expected.max()))


@pytest.mark.parametrize("method", ["direct", "winograd", "fft"])
def test_a_prepared_kernel_changes_nothing(method):
    x, kernel = draw(6, 5, 2), draw(3, 3, 2, 4)
    prepared = prepare_kernel(kernel, method=method, shape=(6, 5))
    known = lambda x: jnp.sum(convolve(x, kernel, prepared=prepared, convolution=method) ** 2)
    plain = lambda x: jnp.sum(convolve(x, kernel, convolution=method) ** 2)
    # One spectrum serves the adjoint kernel as well, but for rounding.
    tolerance = 1e-6 * float(jnp.abs(jax.grad(plain)(x)).max()) if method == "fft" else 0
    np.testing.assert_allclose(jax.grad(known)(x), jax.grad(plain)(x), rtol=0, atol=tolerance)
    # One that was prepared for the other method is not used for this one.
    unlike = "winograd" if method == "direct" else "direct"
    other = prepare_kernel(kernel, method=unlike, shape=(6, 5))
    wrong = lambda x: jnp.sum(convolve(x, kernel, prepared=other, convolution=method) ** 2)
    np.testing.assert_array_equal(jax.grad(wrong)(x), jax.grad(plain)(x))


def test_input_gradient_compiles_to_ordinary_forward_convolutions():
    # Autodiff's own rule reverses the kernel and swaps its channel axes in the convolution itself,
    # which XLA:CPU runs slowly inside a loop. The kernel gradient must have been dropped.
    x, kernel = draw(12, 16, 6), draw(3, 3, 6, 5)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(convolve(x, kernel) ** 2)))
    text = gradient.lower(x).compile().as_text()
    convolutions = re.findall(r"dim_labels=(\S+?)[,\s]", text)
    assert convolutions and set(convolutions) == {"b01f_01io->b01f"}
    assert "reversal" not in text


def test_a_descent_flips_no_kernel(tiny, params, image, other_image):
    objective = rv.Inversion(layer="conv2_1").of(tiny.bind(params), image)
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


@pytest.mark.parametrize("pooling", ["avg", "max"])
@pytest.mark.parametrize(("size", "stride"), [(2, 2), (3, 2), (3, 3), (2, 1)])
def test_pooling_and_its_gradient_are_those_of_reduce_window(pooling, size, stride):
    x = draw(11, 16, 3)

    def by_window(x):
        window, strides = (size, size, 1), (stride, stride, 1)
        if pooling == "max":
            return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, "VALID")
        return lax.reduce_window(x, 0.0, lax.add, window, strides, "VALID") / size**2

    expected, plain_pull_back = jax.vjp(by_window, x)
    found, pull_back = jax.vjp(lambda x: pool(x, pooling=pooling, size=size, stride=stride), x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    cotangent = draw(*expected.shape)
    np.testing.assert_allclose(pull_back(cotangent)[0], plain_pull_back(cotangent)[0], atol=1e-5)


def test_response_normalisation_by_hand():
    x = draw(2, 3, 7)
    found = ResponseNorm("norm", bias=2.0, slope=0.1, power=0.75).apply(x, None)
    for channel in range(7):
        near = np.asarray(x)[..., max(channel - 2, 0) : channel + 3]
        expected = x[..., channel] / (2 + 0.1 * np.sum(near**2, axis=-1)) ** 0.75
        np.testing.assert_allclose(found[..., channel], expected, rtol=1e-5)
