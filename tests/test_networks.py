"""Networks as values: names, sizes, features against NumPy, weights from keys, the gauge."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_conv import convolve_by_taps

from randviz import networks
from randviz.gauge import normalize_gauge
from randviz.networks import VGG19, Conv, Dense, Pool, features
from randviz.types import UserError
from randviz.weights import random_weights, weight_shapes


def forward_by_numpy(network, params, image, offset=0.0):
    x = 255 * np.asarray(image, np.float64) - offset
    maps = {}
    for layer in network.layers:
        if isinstance(layer, Conv):
            weights = params[layer.name]
            x = convolve_by_taps(x, np.asarray(weights["kernel"], np.float64), network.padding)
            x = np.maximum(x + np.asarray(weights["bias"]), 0)
        elif isinstance(layer, Pool):
            h, w = x.shape[0] // 2, x.shape[1] // 2
            corners = [x[i : 2 * h : 2, j : 2 * w : 2] for i in (0, 1) for j in (0, 1)]
            x = np.mean(corners, 0) if network.pooling == "avg" else np.max(corners, 0)
        else:
            weights = params[layer.name]
            x = x.reshape(1, 1, -1) @ np.asarray(weights["kernel"], np.float64)
            x = x + np.asarray(weights["bias"])
            x = np.maximum(x, 0) if layer.rectified else x
        maps[layer.name] = x
    return maps


def test_vgg19_has_its_layers_and_parameters():
    assert VGG19.layer_names[:4] == ("conv1_1", "conv1_2", "pool1", "conv2_1")
    assert sum(isinstance(layer, Conv) for layer in VGG19.layers) == 16
    assert sum(isinstance(layer, Pool) for layer in VGG19.layers) == 5
    shapes = weight_shapes(VGG19, "fc8")
    count = lambda layer: sum(np.prod(shape) for shape in shapes[layer].values())
    assert sum(count(layer) for layer in shapes if layer.startswith("conv")) == 20_024_384
    assert shapes["fc6"]["kernel"] == (32768, 4096)  # 8 × 8 × 512 at 256 pixels
    assert shapes["fc8"] == {"kernel": (4096, 1000), "bias": (1000,)}


@pytest.mark.parametrize("pooling", ["avg", "max"])
@pytest.mark.parametrize("padding", ["zero", "reflect", "periodic"])
def test_features_are_those_of_a_numpy_network(tiny, pooling, padding):
    network = dataclasses.replace(
        tiny, pooling=pooling, padding=padding, input_offset=(90, 100, 110)
    )
    params = random_weights(jax.random.key(7), network, scale=0.1, bias_scale=0.3, last_layer="fc8")
    image = jax.random.uniform(jax.random.key(3), (12, 12, 3))
    found = features(network, params, image, network.layer_names)
    expected = forward_by_numpy(network, params, image, np.array([90, 100, 110]))
    assert tuple(found) == network.layer_names
    for layer in network.layer_names:
        np.testing.assert_allclose(found[layer], expected[layer], rtol=1e-4, atol=1e-3)


def test_scores_are_not_rectified(tiny, params):
    image = jax.random.uniform(jax.random.key(3), (12, 12, 3))
    maps = features(tiny, params, image, ("fc6", "fc8"))
    assert float(maps["fc6"].min()) >= 0 > float(maps["fc8"].min())
    assert maps["fc6"].shape == (1, 1, 10)


def test_features_go_only_as_deep_as_asked(tiny, params, image):
    shallow = {"conv1_1": params["conv1_1"]}
    maps = features(tiny, shallow, image, "relu1_1")
    assert {name: x.shape for name, x in maps.items()} == {"conv1_1": (12, 16, 8)}
    with pytest.raises(UserError, match="conv1_2"):
        features(tiny, shallow, image, "pool1")


def test_a_deeper_cut_keeps_the_weights_above_it(tiny):
    key = jax.random.key(11)
    shallow = random_weights(key, tiny, last_layer="conv1_2")
    deep = random_weights(key, tiny, last_layer="fc8")
    assert list(shallow) == ["conv1_1", "conv1_2"]
    for layer in shallow:
        np.testing.assert_array_equal(shallow[layer]["kernel"], deep[layer]["kernel"])
    assert not np.array_equal(
        deep["conv1_2"]["kernel"].ravel()[:9], deep["fc6"]["kernel"].ravel()[:9]
    )


def test_weights_have_the_scale_asked_for_and_no_bias():
    params = random_weights(jax.random.key(0), VGG19, last_layer="conv2_1")
    kernel = params["conv2_1"]["kernel"]
    assert float(kernel.std()) == pytest.approx(0.015, rel=0.01)
    assert abs(float(kernel.mean())) < 4 * 0.015 / kernel.size**0.5
    assert not params["conv2_1"]["bias"].any()
    biased = random_weights(
        jax.random.key(0), VGG19, scale=0.03, bias_scale=0.5, last_layer="conv2_1"
    )
    np.testing.assert_array_equal(biased["conv2_1"]["kernel"], 2 * kernel)
    assert float(biased["conv2_1"]["bias"].std()) == pytest.approx(0.5, rel=0.2)


def test_a_random_convolution_has_the_energy_of_its_patches(image):
    # E (w·p)² = σ² ‖p‖² for each patch p, and the ReLU keeps half of it.
    wide = networks.Network("wide", (Conv("conv1_1", 4000),), input_offset=0.0)
    weights = random_weights(jax.random.key(0), wide, scale=0.02, last_layer="conv1_1")
    found = features(wide, weights, image, "conv1_1")["conv1_1"]
    ones = np.ones((3, 3, 3, 1))
    patches = convolve_by_taps((255 * np.asarray(image)) ** 2, ones, "zero")[..., 0]
    energy = np.mean(np.square(np.asarray(found, np.float64)), axis=-1)
    # 4000 independent channels: the relative error of a mean of squares is about 3.5 %.
    np.testing.assert_allclose(energy, 0.02**2 * patches / 2, rtol=0.18)
    assert energy.mean() == pytest.approx(0.02**2 * patches.mean() / 2, rel=0.05)


def test_gauge_changes_features_by_exact_powers_of_two(tiny):
    params = random_weights(jax.random.key(7), tiny, bias_scale=0.2, last_layer="fc8")
    image = jax.random.uniform(jax.random.key(3), (12, 12, 3))
    before = features(tiny, params, image, tiny.layer_names)
    normalized, exponents = normalize_gauge(tiny, params, "fc8")
    after = features(tiny, normalized, image, tiny.layer_names)
    for layer in tiny.layer_names:
        np.testing.assert_array_equal(after[layer], before[layer] * 2.0 ** int(exponents[layer]))


def test_gauge_brings_vgg19_near_one_at_any_scale():
    image = jax.random.uniform(jax.random.key(3), (32, 32, 3))
    network = VGG19.with_offset(0.0)
    for scale in (1e-4, 0.015, 3.0):
        params = random_weights(jax.random.key(0), network, scale=scale, last_layer="conv4_1")
        normalized, _ = normalize_gauge(network, params, "conv4_1")
        maps = features(network, normalized, image, ("conv1_1", "conv2_1", "conv4_1"))
        for x in maps.values():
            assert 0.1 < float(jnp.sqrt(jnp.mean(x**2))) < 4


def test_gauge_leaves_out_what_is_deeper_and_survives_zero_weights(tiny, params):
    silent = {**params, "conv1_1": jax.tree.map(jnp.zeros_like, params["conv1_1"])}
    normalized, _ = normalize_gauge(tiny, silent, "conv1_2")
    assert list(normalized) == ["conv1_1", "conv1_2"]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(normalized))


def test_values_are_static_and_equal_by_content(tiny):
    assert hash(dataclasses.replace(tiny)) == hash(tiny)
    assert dataclasses.replace(tiny) == tiny
    assert VGG19.with_offset(3.0).input_offset == 3.0
    assert VGG19.with_offset(3.0).with_offset(4.0).input_offset == 3.0


@pytest.mark.parametrize(
    ("shape", "layer", "words"),
    [
        ((12, 16, 3), "conv9_9", "conv9_9.*conv1_1"),
        ((12, 16, 3), "relu5", "relu5"),
        ((12, 3, 3), "pool2", "3×12.*pool2.*4 a side"),
        ((12, 16), "conv1_1", r"\(height, width, 3\)"),
        ((12, 16, 4), "conv1_1", r"\(height, width, 3\)"),
        ((12, 16, 3), "fc6", "16×12.*fc6.*12×12"),
    ],
)
def test_what_the_network_cannot_take_is_said(tiny, params, shape, layer, words):
    with pytest.raises(UserError, match=words):
        features(tiny, params, jnp.zeros(shape), layer)


@pytest.mark.parametrize(
    ("padding", "layer", "size"),
    [("zero", "conv2_1", 2), ("reflect", "conv2_1", 4), ("reflect", "pool2", 4)],
)
def test_smallest_image_is_really_enough(tiny, params, padding, layer, size):
    network = dataclasses.replace(tiny, padding=padding)
    maps = features(network, params, jnp.ones((size, size + 1, 3)), layer)
    assert min(maps[layer].shape) > 0
    with pytest.raises(UserError, match="too small"):
        network.check_image((size - 1, size, 3), layer)


@pytest.mark.parametrize("names", [(), ("conv1_1", "relu1_1")])
def test_layers_are_named_once_and_at_least_one(tiny, names):
    with pytest.raises(UserError, match="layer"):
        tiny.canonical_names(names)


def test_unknown_pooling_and_padding_are_refused():
    with pytest.raises(UserError, match="median"):
        dataclasses.replace(VGG19, pooling="median")
    with pytest.raises(UserError, match="mirror"):
        dataclasses.replace(VGG19, padding="mirror")


def test_dense_is_the_only_layer_that_fixes_the_size(tiny):
    assert [layer.name for layer in tiny.layers if isinstance(layer, Dense)] == ["fc6", "fc8"]
    tiny.check_image((12, 99, 3), "pool2")
