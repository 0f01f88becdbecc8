"""Networks as values: names, sizes, features against NumPy, weights from keys."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_conv import convolve_by_taps

from randviz.networks.alexnet import ALEXNET, CAFFENET
from randviz.networks.layers import Conv, Dense, Pool, ResponseNorm
from randviz.networks.network import Network, features
from randviz.networks.vgg import VGG19
from randviz.networks.weights import random_weights, weight_shapes
from randviz.types import UserError


def forward_by_numpy(network, params, image, offset=0.0, scale=1.0):
    x = (255 * np.asarray(image, np.float64) - offset) * scale
    x = x[..., ::-1] if network.channel_order == "BGR" else x
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    maps = {"image": np.asarray(image)}
    for layer in network.layers:
        if isinstance(layer, Conv):
            where = {"border": layer.padding, "stride": layer.stride, "groups": layer.groups}
            x = convolve_by_taps(x, params[layer.name]["kernel"], network.padding_mode, **where)
            x = np.maximum(x + params[layer.name]["bias"], 0)
        elif isinstance(layer, Pool):
            side = layer.window_size
            windows = np.lib.stride_tricks.sliding_window_view(x, (side, side), axis=(0, 1))
            windows = windows[:: layer.stride, :: layer.stride]
            x = windows.mean((3, 4)) if network.pooling == "avg" else windows.max((3, 4))
        elif isinstance(layer, ResponseNorm):
            reach = layer.window_size // 2
            squares = np.pad(x**2, ((0, 0), (0, 0), (reach, reach)))
            energy = np.lib.stride_tricks.sliding_window_view(
                squares, layer.window_size, axis=2
            ).sum(-1)
            x = x / (layer.bias + layer.slope * energy) ** layer.power
        else:
            x = x.reshape(1, 1, -1) @ params[layer.name]["kernel"] + params[layer.name]["bias"]
            x = np.maximum(x, 0) if layer.activated else x
        maps[layer.name] = x
    return maps


# Each of AlexNet's kinds of layer, in small.
TINY_ALEXNET = Network(
    "tiny_alexnet",
    (
        Conv("conv1", 8, kernel_size=5, padding=0, stride=2),
        ResponseNorm("norm1", slope=2e-3),
        Pool("pool1", window_size=3),
        Conv("conv2", 12, kernel_size=5, padding=2, groups=2),
        Pool("pool2", window_size=3),
        Dense("fc6", 10, activated=False),
    ),
    fc_image_size=33,
    pooling="max",
    initialization="normal",
)


def test_alexnet_has_its_layers_and_parameters():
    shapes = weight_shapes(ALEXNET, "fc8")
    assert sum(np.prod(shape) for layer in shapes.values() for shape in layer.values()) == 60965224
    assert shapes["conv2"]["kernel"] == (5, 5, 48, 256)
    assert shapes["fc6"]["kernel"] == (9216, 4096)  # 6 × 6 × 256 at 227 pixels
    assert ALEXNET.smallest_side("fc6", positions=6) == 227
    assert {*ALEXNET.layers} == {*CAFFENET.layers}
    assert ALEXNET.layer_names[2:4] == CAFFENET.layer_names[3:1:-1] == ("norm1", "pool1")


def test_alexnets_features_are_those_of_a_numpy_network():
    network = dataclasses.replace(
        TINY_ALEXNET, input_offset=(90, 100, 110), input_scale=(0.5, 1.0, 2.0), channel_order="BGR"
    )
    params = random_weights(jax.random.key(7), network, scale=0.1, bias_scale=0.3, last_layer="fc6")
    image = jax.random.uniform(jax.random.key(3), (33, 33, 3))
    found = features(network, params, image, network.layer_names)
    scale = np.array([0.5, 1.0, 2.0])
    expected = forward_by_numpy(network, params, image, np.array([90, 100, 110]), scale)
    for layer in network.layer_names:
        np.testing.assert_allclose(found[layer], expected[layer], rtol=1e-4, atol=1e-3)
    # The normalisation makes a difference here, or it would not have been tested.
    assert np.max(np.abs(found["norm1"] - found["conv1"])) > 0.1 * np.max(found["conv1"])


def test_vgg19_has_its_layers_and_parameters():
    assert VGG19.layer_names[:5] == ("image", "conv1_1", "conv1_2", "pool1", "conv2_1")
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
        tiny, pooling=pooling, padding_mode=padding, input_offset=(90, 100, 110)
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
    wide = Network("wide", (Conv("conv1_1", 4000),), input_offset=0.0)
    weights = random_weights(jax.random.key(0), wide, scale=0.02, last_layer="conv1_1")
    found = features(wide, weights, image, "conv1_1")["conv1_1"]
    ones = np.ones((3, 3, 3, 1))
    patches = convolve_by_taps((255 * np.asarray(image)) ** 2, ones, "zero")[..., 0]
    energy = np.mean(np.square(np.asarray(found, np.float64)), axis=-1)
    # 4000 independent channels: the relative error of a mean of squares is about 3.5 %.
    np.testing.assert_allclose(energy, 0.02**2 * patches / 2, rtol=0.18)
    assert energy.mean() == pytest.approx(0.02**2 * patches.mean() / 2, rel=0.05)


def test_values_are_static_and_equal_by_content(tiny):
    assert hash(dataclasses.replace(tiny)) == hash(tiny)
    assert dataclasses.replace(tiny) == tiny
    assert VGG19.with_offset(3.0).input_offset == 3.0
    assert VGG19.with_offset(3.0).with_offset(4.0).input_offset == 3.0


@pytest.mark.parametrize(
    ("shape", "layer", "words"),
    [
        ((12, 16, 3), "conv9_9", "conv9_9.*image, conv1_1"),
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
    network = dataclasses.replace(tiny, padding_mode=padding)
    maps = features(network, params, jnp.ones((size, size + 1, 3)), layer)
    assert min(maps[layer].shape) > 0
    with pytest.raises(UserError, match="too small"):
        network.check_image((size - 1, size, 3), layer)


@pytest.mark.parametrize("names", [(), ("conv1_1", "relu1_1")])
def test_layers_are_named_once_and_at_least_one(tiny, names):
    with pytest.raises(UserError, match="layer"):
        tiny.canonical_names(names)


def test_unknown_words_are_refused():
    with pytest.raises(UserError, match="median"):
        dataclasses.replace(VGG19, pooling="median")
    with pytest.raises(UserError, match="mirror"):
        dataclasses.replace(VGG19, padding_mode="mirror")
    with pytest.raises(UserError, match="GBR"):
        dataclasses.replace(VGG19, channel_order="GBR")


def test_dense_is_the_only_layer_that_fixes_the_size(tiny):
    assert [layer.name for layer in tiny.layers if isinstance(layer, Dense)] == ["fc6", "fc8"]
    tiny.check_image((12, 99, 3), "pool2")
