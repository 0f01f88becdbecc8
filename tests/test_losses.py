"""The losses against the paper's formulas by hand, Euler's identities, and the layer weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from randviz.networks.network import features
from randviz.networks.rescaling import rescale_weights
from randviz.networks.weights import random_weights
from randviz.objectives import losses
from randviz.types import UserError

rng = np.random.default_rng(4)
LAYERS = ("conv1_1", "conv2_1")


def draw(*shape):
    return jnp.asarray(rng.uniform(0.1, 1, size=shape), jnp.float32)


def test_content_loss_is_eq_1_without_omega():
    found, target = draw(2, 3, 4), draw(2, 3, 4)
    difference = np.asarray(found, np.float64) - np.asarray(target, np.float64)
    expected = np.sum(difference**2) / (2 * 4 * 6)  # N = 4 channels, M = 6 positions
    np.testing.assert_allclose(losses.content_loss(found, target), expected, rtol=1e-5)


def test_content_gradient_is_eq_3_without_omega():
    found, target = draw(2, 3, 4), draw(2, 3, 4)
    gradient = jax.grad(losses.content_loss)(found, target)
    np.testing.assert_allclose(gradient, (found - target) / 24, rtol=1e-5)


def test_gram_matrix_is_a_double_loop_and_forgets_positions():
    maps = draw(2, 3, 4)
    rows = np.asarray(maps).reshape(6, 4)
    expected = [
        [sum(rows[k, i] * rows[k, j] for k in range(6)) for j in range(4)] for i in range(4)
    ]
    gram = losses.gram_matrix(maps)
    np.testing.assert_allclose(gram, expected, rtol=1e-5)
    np.testing.assert_allclose(losses.mean_gram(maps), np.array(expected) / 6, rtol=1e-5)
    shuffled = jnp.asarray(rng.permutation(rows)).reshape(3, 2, 4)
    np.testing.assert_allclose(losses.gram_matrix(shuffled), gram, rtol=1e-5)
    assert np.linalg.eigvalsh(gram).min() > -1e-5


def test_texture_loss_is_eq_6_without_mu_and_its_gradient_eq_7():
    found, target = draw(2, 3, 4), draw(2, 3, 4)

    def gram(maps):
        rows = np.asarray(maps, np.float64).reshape(6, 4)
        return rows.T @ rows

    difference = gram(found) - gram(target)
    expected = np.sum(difference**2) / (4 * 4**2 * 6**2)
    target_gram = losses.mean_gram(target)
    np.testing.assert_allclose(losses.texture_loss(found, target_gram), expected, rtol=1e-4)
    gradient = jax.grad(losses.texture_loss)(found, target_gram)
    by_hand = np.asarray(found, np.float64).reshape(6, 4) @ difference / (4**2 * 6**2)
    np.testing.assert_allclose(gradient.reshape(6, 4), by_hand, rtol=1e-4, atol=1e-7)


def test_texture_loss_compares_sizes_by_their_means():
    small = draw(2, 3, 4)
    tiled = jnp.tile(small, (2, 5, 1))
    assert float(losses.texture_loss(tiled, losses.mean_gram(small))) < 1e-12


def test_total_variation_by_hand():
    image = jnp.zeros((2, 3, 3)).at[0, 0, 1].set(2.0).at[1, 2, 0].set(0.5)
    # The first pixel has a neighbour below and one to the right; so has the last, above and left.
    assert float(losses.total_variation(image)) == pytest.approx(2 * 4.0 + 2 * 0.25)
    assert float(losses.total_variation(jnp.full((4, 5, 3), 0.7))) == 0


@pytest.mark.parametrize("layer", LAYERS)
def test_euler_identities_for_a_zero_target(tiny, params, image, layer):
    # A bias-free ReLU network with input offset 0 is positively homogeneous of degree one.
    def content(x):
        maps = features(tiny, params, x, layer)[layer]
        return losses.content_loss(maps, jnp.zeros_like(maps))

    def texture(x):
        maps = features(tiny, params, x, layer)[layer]
        return losses.texture_loss(maps, jnp.zeros((maps.shape[-1],) * 2))

    for loss, degree in ((content, 2), (texture, 4)):
        value, gradient = jax.value_and_grad(loss)(image)
        np.testing.assert_allclose(jnp.vdot(image, gradient), degree * value, rtol=1e-4)


def test_layer_weights_are_reciprocal_gradient_sizes(tiny, params, image):
    for gradient_reduction, size in (
        ("mean_abs", lambda g: np.mean(np.abs(g))),
        ("abs_mean", lambda g: np.abs(np.mean(g))),
    ):
        omega = losses.content_layer_weights(
            tiny, params, image, LAYERS, gradient_reduction=gradient_reduction
        )
        mu = losses.texture_layer_weights(
            tiny, params, image, LAYERS, gradient_reduction=gradient_reduction
        )
        for layer in LAYERS:

            def content(x, layer=layer):
                maps = features(tiny, params, x, layer)[layer]
                return losses.content_loss(maps, 0 * maps)

            def texture(x, layer=layer):
                gram = losses.mean_gram(features(tiny, params, x, layer)[layer])
                return jnp.sum(gram**2) / (4 * len(gram) ** 2)

            np.testing.assert_allclose(
                omega[layer], 1 / size(np.asarray(jax.grad(content)(image))), rtol=1e-4
            )
            np.testing.assert_allclose(
                mu[layer], 1 / size(np.asarray(jax.grad(texture)(image))), rtol=1e-4
            )


def test_scale_is_a_gauge(tiny, params, image, other_image):
    # Doubling every weight leaves ω L and μ E and their gradients as they are, bit for bit.
    doubled = jax.tree.map(lambda leaf: 2 * leaf, params)

    def weighted(params, weigh, loss, target_of):
        weights = weigh(tiny, params, image, LAYERS)

        def total(x):
            maps = features(tiny, params, x, LAYERS)
            targets = features(tiny, params, image, LAYERS)
            return sum(
                weights[layer] * loss(maps[layer], target_of(targets[layer])) for layer in LAYERS
            )

        return jax.jit(jax.value_and_grad(total))(other_image)

    for weigh, loss, target_of in (
        (losses.content_layer_weights, losses.content_loss, lambda maps: maps),
        (losses.texture_layer_weights, losses.texture_loss, losses.mean_gram),
    ):
        once, twice = (weighted(p, weigh, loss, target_of) for p in (params, doubled))
        np.testing.assert_array_equal(once[0], twice[0])
        np.testing.assert_array_equal(once[1], twice[1])


def test_layer_weights_undo_the_gauge(tiny, params, image):
    normalized, exponents = rescale_weights(tiny, params, "conv2_1")
    for weigh, degree in (
        (losses.content_layer_weights, 2),
        (losses.texture_layer_weights, 4),
    ):
        before = weigh(tiny, params, image, LAYERS)
        after = weigh(tiny, normalized, image, LAYERS)
        for layer in LAYERS:
            factor = 2.0 ** (degree * int(exponents[layer]))
            np.testing.assert_allclose(before[layer], after[layer] * factor, rtol=1e-6)


def test_gradients_agree_with_finite_differences(tiny, image):
    network = dataclasses.replace(tiny, input_offset=60.0)
    params = random_weights(jax.random.key(2), network, scale=0.2, last_layer="conv2_1")
    params, _ = rescale_weights(network, params, "conv2_1")

    def loss(x):
        maps = features(network, params, x, LAYERS)
        texture = losses.texture_loss(maps["conv2_1"], jnp.zeros((12, 12)))
        content = losses.content_loss(maps["conv1_1"], jnp.zeros_like(maps["conv1_1"]))
        return texture + content + losses.total_variation(x)

    check_grads(loss, (image,), order=1, modes=["rev"], atol=2e-2, rtol=2e-2, eps=1e-3)


def test_layer_weights_work_under_vmap_and_jit(tiny, image):
    keys = jax.random.split(jax.random.key(0), 3)

    def weigh(key):
        params = random_weights(key, tiny, last_layer="conv2_1")
        return losses.texture_layer_weights(tiny, params, image, LAYERS)["conv2_1"]

    together = jax.jit(jax.vmap(weigh))(keys)
    for i in range(3):
        np.testing.assert_allclose(together[i], weigh(keys[i]), rtol=1e-4)
    assert len(set(np.asarray(together).tolist())) == 3


def test_unknown_reading_is_refused(tiny, params, image):
    with pytest.raises(UserError, match="median"):
        losses.content_layer_weights(tiny, params, image, LAYERS, gradient_reduction="median")


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_total_variation_of_any_power_is_a_double_loop(power):
    image = draw(3, 4, 3)
    x = np.asarray(image, np.float64)
    expected = 0.0
    for i, j, c in np.ndindex(x.shape):
        down = x[i + 1, j, c] - x[i, j, c] if i < 2 else 0
        right = x[i, j + 1, c] - x[i, j, c] if j < 3 else 0
        expected += (down**2 + right**2) ** (power / 2)
    found = losses.total_variation(image, power=power)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    check_grads(lambda x: losses.total_variation(x, power=power), (image,), 1, ("rev",), rtol=1e-2)
    flat = jax.grad(losses.total_variation)(jnp.ones_like(image), power=power)
    np.testing.assert_array_equal(flat, 0)


def test_alpha_norm_counts_from_mid_grey():
    image = jnp.array([[[0.5, 1.0, 0.0]]])
    assert float(losses.alpha_norm(image)) == 2 * 0.5**6
    assert float(losses.alpha_norm(image, power=3)) == 2 * 0.5**3
