"""ω and μ: Euler's identities, reciprocal gradients, and what scaling the weights does to them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import randviz as rv
from randviz.networks.rescaling import rescale_weights
from randviz.types import UserError

LAYERS = ("conv1_1", "conv2_1")
STATISTICS = {"content": rv.Features(), "texture": rv.Gram()}


def term(tiny, params, layer, statistic):
    """image → the distance of a layer's statistic from zero, eq. 1 and 6 without ω and μ."""

    def loss(image):
        maps = rv.features(tiny, params, image, layer)[layer]
        if statistic == "content":
            return jnp.mean(maps**2) / 2
        rows = maps.reshape(-1, maps.shape[-1])
        return jnp.sum((rows.T @ rows / len(rows)) ** 2) / (4 * rows.shape[1] ** 2)

    return loss


@jax.jit
def weigh_both(extractor, image):
    return {
        name: rv.layer_weights(extractor, image, dict.fromkeys(LAYERS, statistic))
        for name, statistic in STATISTICS.items()
    }


@pytest.fixture(scope="module")
def gradients(tiny, params, image):
    """{(statistic, layer): (loss, gradient)} for a zero target."""

    @jax.jit
    def compute(params, image):
        return {
            f"{name} {layer}": jax.value_and_grad(term(tiny, params, layer, name))(image)
            for name in STATISTICS
            for layer in LAYERS
        }

    return {tuple(key.split()): value for key, value in compute(params, image).items()}


def test_euler_identities_for_a_zero_target(gradients, image):
    # A bias-free ReLU network with input offset 0 is positively homogeneous of degree one.
    for (name, _), (loss, gradient) in gradients.items():
        degree = STATISTICS[name].degree
        assert degree == {"content": 2, "texture": 4}[name]
        np.testing.assert_allclose(np.vdot(image, gradient), degree * loss, rtol=1e-4)


@pytest.mark.parametrize("reduction", ["mean_abs", "abs_mean"])
def test_layer_weights_are_reciprocal_gradient_sizes(tiny, params, image, gradients, reduction):
    size = {
        "mean_abs": lambda gradient: np.mean(np.abs(gradient)),
        "abs_mean": lambda gradient: np.abs(np.mean(gradient)),
    }[reduction]
    for name, statistic in STATISTICS.items():
        statistics = dict.fromkeys(LAYERS, statistic)
        found = jax.jit(
            lambda extractor, statistics=statistics: rv.layer_weights(
                extractor, image, statistics, gradient_reduction=reduction
            )
        )(tiny.bind(params))
        for layer in LAYERS:
            _, gradient = gradients[name, layer]
            np.testing.assert_allclose(found[layer], 1 / size(gradient), rtol=1e-4)


def test_layer_weights_undo_the_rescaling(tiny, params, image):
    rescaled, exponents = rescale_weights(tiny, params, "conv2_1")
    before, after = (weigh_both(tiny.bind(p), image) for p in (params, rescaled))
    for name, statistic in STATISTICS.items():
        for layer in LAYERS:
            factor = 2.0 ** (statistic.degree * int(exponents[layer]))
            np.testing.assert_allclose(before[name][layer], after[name][layer] * factor, rtol=1e-6)


def test_gradients_agree_with_finite_differences(tiny, image):
    network = dataclasses.replace(tiny, input_offset=60.0)
    params = rv.random_weights(jax.random.key(2), network, scale=0.2, last_layer="conv2_1")
    params, _ = rescale_weights(network, params, "conv2_1")

    @jax.jit
    def loss(x):
        maps = rv.features(network, params, x, LAYERS)
        texture = rv.texture_loss(maps["conv2_1"], jnp.zeros((12, 12)))
        content = rv.content_loss(maps["conv1_1"], jnp.zeros_like(maps["conv1_1"]))
        return texture + content + rv.total_variation(x)

    check_grads(loss, (image,), order=1, modes=["rev"], atol=2e-2, rtol=2e-2, eps=1e-3)


def test_layer_weights_work_under_vmap_and_jit(tiny, image):
    keys = jax.random.split(jax.random.key(0), 3)

    def weigh(key):
        extractor = rv.RandomNetwork(network=tiny, last_layer="conv2_1").sample(key)
        return weigh_both(extractor, image)["texture"]["conv2_1"]

    together = jax.jit(jax.vmap(weigh))(keys)
    alone = jax.jit(weigh)
    for i in range(3):
        np.testing.assert_allclose(together[i], alone(keys[i]), rtol=1e-4)
    assert len(set(np.asarray(together).tolist())) == 3


def test_unknown_gradient_reduction_is_refused(tiny, params, image):
    statistics = {"conv1_1": rv.Gram()}
    with pytest.raises(UserError, match="median.*mean_abs or abs_mean"):
        rv.layer_weights(tiny.bind(params), image, statistics, gradient_reduction="median")
