"""Rescalings: what they change by known factors, and that they change nothing else."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_networks import TINY_ALEXNET, TINY_BRANCHES

from randviz.networks.activations import (
    average_activations,
    normalize_activations,
    rescale_filters,
)
from randviz.networks.layers import Conv
from randviz.networks.network import Network, features
from randviz.networks.rescaling import rescale_weights
from randviz.networks.vgg import VGG19
from randviz.networks.weights import random_weights
from randviz.types import UserError


@pytest.fixture(scope="module")
def biased(tiny):
    return random_weights(jax.random.key(7), tiny, scale=0.1, bias_scale=9.0, last_layer="fc8")


@pytest.fixture(scope="module")
def square():
    return jax.random.uniform(jax.random.key(3), (12, 12, 3))


def test_rescaling_changes_features_by_exact_powers_of_two(tiny):
    params = random_weights(jax.random.key(7), tiny, bias_scale=0.2, last_layer="fc8")
    image = jax.random.uniform(jax.random.key(3), (12, 12, 3))
    before = features(tiny, params, image, tiny.layer_names)
    normalized, exponents = rescale_weights(tiny, params, "fc8")
    after = features(tiny, normalized, image, tiny.layer_names)
    for layer in tiny.layer_names:
        np.testing.assert_array_equal(after[layer], before[layer] * 2.0 ** int(exponents[layer]))


def test_rescaling_brings_vgg19_near_one_at_any_scale():
    image = jax.random.uniform(jax.random.key(3), (32, 32, 3))
    network = VGG19.with_offset(0.0)
    for scale in (1e-4, 0.015, 3.0):
        params = random_weights(jax.random.key(0), network, scale=scale, last_layer="conv4_1")
        normalized, _ = rescale_weights(network, params, "conv4_1")
        maps = features(network, normalized, image, ("conv1_1", "conv2_1", "conv4_1"))
        for x in maps.values():
            assert 0.1 < float(jnp.sqrt(jnp.mean(x**2))) < 4


def test_rescaling_leaves_out_what_is_deeper_and_survives_zero_weights(tiny, params):
    silent = {**params, "conv1_1": jax.tree.map(jnp.zeros_like, params["conv1_1"])}
    normalized, _ = rescale_weights(tiny, silent, "conv1_2")
    assert list(normalized) == ["conv1_1", "conv1_2"]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(normalized))


def test_rescaling_leaves_alone_what_response_normalisation_would_notice():
    network = TINY_ALEXNET.with_offset(0.0)
    params = random_weights(jax.random.key(7), network, scale=0.5, bias_scale=0.2, last_layer="fc6")
    image = jax.random.uniform(jax.random.key(3), (33, 33, 3))
    normalized, exponents = rescale_weights(network, params, "fc6")
    np.testing.assert_array_equal(normalized["conv1"]["kernel"], params["conv1"]["kernel"])
    assert int(exponents["norm1"]) == 0 != int(exponents["conv2"])
    before = features(network, params, image, network.layer_names)
    after = features(network, normalized, image, network.layer_names)
    for layer in network.layer_names:
        np.testing.assert_array_equal(after[layer], before[layer] * 2.0 ** int(exponents[layer]))


@pytest.mark.parametrize("activation", ["elu", "gelu"])
def test_weights_before_what_is_not_homogeneous_stay(tiny, params, activation):
    found, exponents = rescale_weights(
        dataclasses.replace(tiny, activation=activation), params, "conv2_1"
    )
    for layer in found:
        np.testing.assert_array_equal(found[layer]["kernel"], params[layer]["kernel"])
    assert set(exponents) == {*tiny.layer_names[: tiny.layer_names.index("conv2_1") + 1]}
    assert not any(map(int, exponents.values()))


def test_weights_after_skip_connections_are_rescaled():
    network = dataclasses.replace(TINY_BRANCHES, activation="leaky_relu")
    params = random_weights(jax.random.key(7), TINY_BRANCHES, scale=1e-4, bias_scale=0.2)
    image = jax.random.uniform(jax.random.key(3), (12, 16, 3))
    found, exponents = rescale_weights(network, params, "block3")
    np.testing.assert_array_equal(found["block2_conv1"]["kernel"], params["block2_conv1"]["kernel"])
    assert int(exponents["block2"]) == 0 != int(exponents["block3"])
    before = features(network, params, image, network.layer_names)
    after = features(network, found, image, network.layer_names)
    for layer in network.layer_names:
        np.testing.assert_array_equal(after[layer], before[layer] * 2.0 ** int(exponents[layer]))
    bound = network.bind(params)
    assert bound.scale_exponents(bound.prepare(("block3",), (12, 16))) == {
        layer: int(exponents[layer]) for layer in network.layer_names
    }


@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_rescaling_by_powers_of_two_changes_known_factors_only(tiny, biased, square, pooling):
    network = dataclasses.replace(tiny, pooling=pooling)
    random = np.random.default_rng(0)
    scales = {
        layer: jnp.asarray(2.0 ** random.integers(-6, 7, biased[layer]["bias"].shape))
        for layer in ("conv1_1", "conv2_1")
    }
    rescaled = rescale_filters(network, biased, scales)
    before = features(network, biased, square, network.layer_names)
    after = features(network, rescaled, square, network.layer_names)
    divided = {**scales, "pool2": scales["conv2_1"]}
    for layer in network.layer_names:
        expected = before[layer] / divided.get(layer, 1.0)
        np.testing.assert_array_equal(after[layer], expected, err_msg=layer)


@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_normalised_filters_have_a_mean_activation_of_one(tiny, biased, pooling):
    network = dataclasses.replace(tiny, pooling=pooling)
    shapes = [(12, 16, 3), (9, 8, 3), (8, 20, 3)]
    images = [
        jax.random.uniform(jax.random.key(number), shape) for number, shape in enumerate(shapes)
    ]
    normalized = normalize_activations(network, biased, images)
    for layer in ("conv1_1", "conv1_2", "conv2_1"):
        maps = [features(network, normalized, image, layer)[layer] for image in images]
        positions = np.concatenate([np.reshape(x, (-1, x.shape[-1])) for x in maps])
        means = positions.mean(0)
        silent = positions.max(0) == 0
        assert silent.mean() < 0.3
        # A filter that answers at few positions is a small difference of large numbers.
        np.testing.assert_allclose(means[~silent], 1, rtol=1e-4)


def test_a_filter_that_hardly_ever_answers_stays_small():
    network = Network("sparse", (Conv("conv1", 2),), input_offset=0.0)
    image = jnp.zeros((40, 40, 3)).at[:, :, 1].set(0.5).at[7, 9, 0].set(1 / 255)
    kernel = jnp.zeros((3, 3, 3, 2)).at[1, 1, 0, 0].set(1e-6).at[1, 1, 1, 1].set(1.0)
    params = {"conv1": {"kernel": kernel, "bias": jnp.zeros(2)}}
    normalized = normalize_activations(network, params, [image], last_layer="conv1")
    found = features(network, normalized, image, "conv1")["conv1"].mean((0, 1))
    np.testing.assert_allclose(found, [1e-6 / 1600, 1], rtol=1e-5)


def test_a_filter_whose_mean_is_negative_keeps_its_sign():
    network = Network("leaky", (Conv("conv1", 2),), input_offset=0.0, activation="leaky_relu")
    image = jax.random.uniform(jax.random.key(0), (8, 8, 3)) - 0.1
    kernel = jnp.zeros((3, 3, 3, 2)).at[1, 1, 0, 0].set(-0.1).at[1, 1, 1, 1].set(0.3)
    params = {"conv1": {"kernel": kernel, "bias": jnp.zeros(2)}}
    plain = features(network, params, image, "conv1")["conv1"]
    assert plain.mean((0, 1))[0] < 0 and (plain[..., 0] > 0).mean() > 0.05
    normalized = normalize_activations(network, params, [image], last_layer="conv1")
    found = features(network, normalized, image, "conv1")["conv1"]
    np.testing.assert_allclose(found[..., 0], plain[..., 0], rtol=1e-6)
    np.testing.assert_allclose(found[..., 1].mean(), 1, rtol=1e-5)


def test_normalising_changes_no_score_and_forgets_earlier_scales(tiny, biased, square):
    normalized = normalize_activations(tiny, biased, [square])
    scores = lambda params: features(tiny, params, square, "fc8")["fc8"]
    np.testing.assert_allclose(scores(normalized), scores(biased), rtol=1e-4)
    scales = {"conv1_2": jnp.linspace(0.1, 9, 8), "conv2_1": jnp.linspace(5, 0.2, 12)}
    other = normalize_activations(tiny, rescale_filters(tiny, biased, scales), [square])
    found = features(tiny, other, square, tiny.layer_names)
    expected = features(tiny, normalized, square, tiny.layer_names)
    for layer in tiny.layer_names:
        np.testing.assert_allclose(found[layer], expected[layer], rtol=1e-3, atol=1e-4)


def test_grouped_filters_undo_their_own_groups_scales():
    network = Network("groups", TINY_ALEXNET.layers[3:5], input_offset=0.0)
    network = dataclasses.replace(
        network, layers=(Conv("conv1", 6), dataclasses.replace(network.layers[0]))
    )
    params = random_weights(jax.random.key(5), network, scale=0.1, last_layer="conv2")
    image = jax.random.uniform(jax.random.key(3), (12, 16, 3))
    rescaled = rescale_filters(network, params, {"conv1": jnp.array([1.0, 2, 4, 8, 16, 32])})
    before, after = (features(network, p, image, "conv2")["conv2"] for p in (params, rescaled))
    np.testing.assert_array_equal(before, after)


def test_what_cannot_be_rescaled_is_said(tiny, biased):
    with pytest.raises(UserError, match="no image"):
        average_activations(tiny, biased, [])
    params = random_weights(jax.random.key(7), TINY_ALEXNET, last_layer="conv2")
    with pytest.raises(UserError, match="tiny_alexnet.*response"):
        rescale_filters(TINY_ALEXNET, params, {})
