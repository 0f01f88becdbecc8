"""Winograd's convolution against the direct one, in float64, at sizes that leave every rest."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_conv import convolve_by_taps

from randviz.networks import winograd
from randviz.networks.conv import choose_method, convolve, platform_of
from randviz.networks.network import features
from randviz.networks.vgg import VGG19
from randviz.networks.weights import random_weights

rng = np.random.default_rng(3)


def draw(*shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)


def relative_error(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


# Over all rests of the tile of 4, a single position, and strips (32 columns of 64 channels).
@pytest.mark.parametrize(
    ("height", "width", "inputs", "outputs"),
    [(1, 1, 2, 3), (2, 7, 3, 5), (5, 4, 4, 4), (8, 11, 6, 2), (13, 10, 40, 40), (67, 129, 64, 64)],
)
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_error_is_below_1e_5(height, width, inputs, outputs, padding):
    if min(height, width) + 2 * padding < 3:
        return
    x, kernel = draw(height, width, inputs), draw(3, 3, inputs, outputs)
    found = winograd.correlate(x, winograd.transform_kernel(kernel), padding)
    exact = convolve_by_taps(
        np.asarray(x, np.float64), np.asarray(kernel, np.float64), padding=padding
    )
    assert found.shape == exact.shape
    assert relative_error(found, exact) < 1e-5
    # Also for what layers see after a ReLU, where values share a sign.
    x = jnp.abs(x)
    found = winograd.correlate(x, winograd.transform_kernel(kernel), padding)
    exact = convolve_by_taps(
        np.asarray(x, np.float64), np.asarray(kernel, np.float64), padding=padding
    )
    assert relative_error(found, exact) < 1e-5


# Two strips are written out, more are a loop.
@pytest.mark.parametrize("count", [2, 4])
def test_strips_change_nothing(monkeypatch, count):
    x, kernel = draw(45, 37, 8), draw(3, 3, 8, 8)
    transformed = winograd.transform_kernel(kernel)
    whole = winograd.correlate.__wrapped__(x, transformed, 1)
    monkeypatch.setattr(winograd, "_STRIP", 8 * 10 * (12 // count))  # 12 × 10 tiles
    in_strips = winograd.correlate.__wrapped__(x, transformed, 1)
    assert relative_error(in_strips, whole) < 1e-6


def test_parts_of_a_kernel_change_nothing():
    x, kernel = draw(10, 9, 8), draw(3, 3, 8, 12)
    whole = winograd.correlate(x, winograd.transform_kernel(kernel), 1)
    parts = winograd.transform_kernel(kernel, 3)
    assert [part.shape for part in parts] == [(36, 8, 4)] * 3
    assert relative_error(winograd.correlate(x, parts, 1), whole) < 1e-6


def test_wide_kernels_are_divided_where_tiles_are_few():
    assert winograd.count_parts((32, 32), 512) == 4
    assert winograd.count_parts((16, 16), 512) == winograd.count_parts((64, 64), 512) == 1
    assert winograd.count_parts((32, 32), 64) == 1
    x, kernel = draw(24, 24, 4), draw(3, 3, 4, 256)
    found = convolve(x, kernel, convolution="winograd")
    assert relative_error(found, convolve(x, kernel, convolution="direct")) < 1e-5


def test_inside_jit_loops_and_vmap():
    xs, kernel = draw(3, 9, 10, 4), draw(3, 3, 4, 4) / 6
    by_winograd = lambda x: convolve(x, kernel, convolution="winograd")
    direct = lambda x: convolve(x, kernel, convolution="direct")
    thrice = lambda f: jax.jit(lambda x: jax.lax.fori_loop(0, 3, lambda _, x: f(x), x))
    expected = np.stack([thrice(direct)(x) for x in xs])
    np.testing.assert_allclose(jax.vmap(thrice(by_winograd))(xs), expected, rtol=1e-4, atol=1e-5)
    kernels = draw(2, 3, 3, 4, 5)
    over_kernels = jax.vmap(lambda k: convolve(xs[0], k, convolution="winograd"))(kernels)
    for found, own in zip(over_kernels, kernels, strict=True):
        expected = convolve(xs[0], own, convolution="direct")
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_features_and_gradient_of_vgg19_agree_however_computed():
    networks = {
        word: VGG19.__class__(**{**VGG19.__dict__, "convolution": word, "input_offset": 0.0})
        for word in ("direct", "winograd", "auto")
    }
    params = random_weights(jax.random.key(0), VGG19, last_layer="conv3_1", scale=0.05)
    image = jax.random.uniform(jax.random.key(1), (26, 35, 3))

    def measure(word):
        loss = lambda x: jnp.sum(features(networks[word], params, x, "conv3_1")["conv3_1"] ** 2)
        return jax.value_and_grad(loss)(image)

    value, gradient = measure("direct")
    for word in ("winograd", "auto"):
        other_value, other_gradient = measure(word)
        assert float(other_value) == pytest.approx(float(value), rel=1e-5)
        assert relative_error(other_gradient, gradient) < 2e-5


def test_the_method_is_chosen_by_size_channels_word_and_platform():
    choose = functools.partial(choose_method, platform="cpu")
    large, wide, first = (64, 64, 128), (3, 3, 128, 128), (3, 3, 3, 64)
    assert choose(large, wide) == "winograd"
    assert choose((4, 4, 128), wide) == choose((2, 7, 128), wide) == "taps"
    assert choose((8, 8, 512), (3, 3, 512, 512)) == "taps"
    assert choose((16, 16, 512), (3, 3, 512, 512)) == "winograd"
    assert choose((4, 4, 16), (3, 3, 16, 16)) == choose((4, 4, 128), (1, 1, 128, 64)) == "direct"
    # The map, or that of the input gradient, is smaller than the kernel.
    assert choose((6, 6, 16), (7, 7, 16, 16)) == choose((8, 8, 16), (5, 5, 16, 16), stride=2)
    assert choose((6, 6, 16), (7, 7, 16, 16)) == "taps"
    assert choose((8, 8, 16), (7, 7, 16, 16)) == "direct"
    assert choose((6, 6, 16), (11, 11, 16, 16)) == "direct"
    assert choose((4, 4, 128), wide, convolution="winograd") == "winograd"
    assert choose(large, wide, convolution="direct") == "direct"
    assert choose((64, 64, 3), first) == "taps"
    assert choose(large, wide, stride=2, convolution="winograd") == "direct"
    assert choose(large, wide, groups=2, convolution="winograd") == "direct"
    assert choose(large, (5, 5, 128, 128), convolution="winograd") == "direct"
    for few in ((11, 11, 3, 128), (55, 55, 128, 3)):
        assert choose((64, 64, few[2]), few) == "fft"
        assert choose((64, 64, few[2]), few, stride=4, convolution="fft") == "direct"
        assert choose((64, 64, few[2]), few, platform="gpu") == "direct"
    for few in ((7, 7, 3, 128), (5, 5, 128, 3)):
        assert choose((64, 64, few[2]), few) == "blocks"
        assert choose((64, 64, few[2]), few, stride=2) == "direct"
        assert choose((64, 64, few[2]), few, platform="gpu") == "direct"
    assert choose(large, (11, 11, 128, 128)) == choose(large, (7, 7, 128, 128)) == "direct"
    assert choose((64, 64, 3), (7, 7, 3, 128), convolution="fft") == "fft"
    assert choose(large, wide, platform="gpu") == "direct"
    assert choose(large, wide, platform="gpu", convolution="winograd") == "winograd"


def test_the_platform_is_that_of_the_first_array_or_the_default_device():
    class Elsewhere:
        platform = "gpu"

    assert platform_of({"a": 3.0, "b": jnp.ones(2)}) == "cpu"
    assert platform_of(None) == jax.default_backend()
    with jax.default_device(jax.devices("cpu")[0]):
        assert platform_of(None) == "cpu"
    found = []
    jax.jit(lambda x: found.append(platform_of(x)))(jnp.ones(2))
    assert found == [jax.default_backend()]
