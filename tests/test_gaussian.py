"""The Gaussian numbers: their distribution, and that nothing but key and size decides them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from randviz.networks.gaussian import (
    as_key,
    sample_gaussian,
    sample_gaussians,
    sample_noise_image,
    split_key,
)
from randviz.networks.weights import random_weights, sample_weights
from randviz.types import UserError


def test_distribution_is_normal():
    numbers = np.asarray(sample_gaussian(jax.random.key(3), (200_000,)))
    assert scipy.stats.kstest(numbers, "norm").pvalue > 0.01
    assert abs(scipy.stats.kurtosis(numbers)) < 0.05
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.01


def test_an_array_does_not_depend_on_its_company():
    keys = jax.random.split(jax.random.key(0), 3)
    together = sample_gaussians(keys, [(5, 7), (3000,), (2, 2, 2)])
    alone = sample_gaussian(keys[1], (3000,))
    np.testing.assert_array_equal(together[1], alone)
    np.testing.assert_array_equal(alone[:1500], sample_gaussian(keys[1], (1500,)))
    assert [x.shape for x in together] == [(5, 7), (3000,), (2, 2, 2)]


def test_jit_and_vmap_draw_the_same_bits():
    keys = jax.random.split(jax.random.key(5), 2)
    plain = [sample_gaussian(key, (4, 9)) for key in keys]
    jitted = jax.jit(lambda key: sample_gaussian(key, (4, 9)))
    batched = jax.vmap(lambda key: sample_gaussian(key, (4, 9)))(keys)
    for i in range(2):
        np.testing.assert_array_equal(plain[i], jitted(keys[i]))
        np.testing.assert_array_equal(plain[i], batched[i])


def test_algorithm_has_not_changed():
    # The table from scipy in float64 and the bits from jax: what the module says it does.
    key = jax.random.key(0)
    found = sample_gaussian(key, (1030,))
    table = (scipy.stats.norm.ppf((np.arange(65536) + 0.5) / 65536) / 2**0.5).astype(np.float32)
    blocks = [jax.random.bits(jax.random.fold_in(key, i), (1024,), "uint32") for i in range(2)]
    bits = np.concatenate([np.asarray(block) for block in blocks])[:1030]
    np.testing.assert_array_equal(found, table[bits >> 16] + table[bits & 65535])


def test_noise_image_has_the_mean_and_spread_asked_for():
    noise = sample_noise_image(jax.random.key(1), (60, 80), std=0.1, mean=0.3)
    assert noise.shape == (60, 80, 3)
    assert float(noise.mean()) == pytest.approx(0.3, abs=0.005)
    assert float(noise.std()) == pytest.approx(0.1, rel=0.03)


def test_no_setting_of_threefry_changes_keys_or_numbers(tiny):
    def sample(key):
        keys = split_key(key, 3)
        weights = random_weights(key, tiny, last_layer="conv1_2")
        again = sample_weights(key, tiny, "conv1_2", draw=0)
        return jax.random.key_data(keys), sample_gaussian(keys[0], (5,)), weights, again

    key = jax.random.key(11)
    with jax.threefry_partitionable(True):
        expected = sample(key)
        np.testing.assert_array_equal(expected[0], jax.random.key_data(jax.random.split(key, 3)))
    with jax.threefry_partitionable(False):
        other = jax.random.key_data(jax.random.split(key, 3))
        assert not np.array_equal(expected[0], other)  # the setting matters where it is obeyed
        jax.tree.map(np.testing.assert_array_equal, sample(key), expected)
        # A program is lowered after the function has returned.
        jax.tree.map(np.testing.assert_array_equal, jax.jit(sample)(key), expected)


def test_an_old_style_key_draws_as_the_typed_one_does(tiny):
    old, typed = jax.random.PRNGKey(3), jax.random.key(3)
    assert as_key(typed) is typed
    for draw in (
        lambda key: random_weights(key, tiny, last_layer="conv1_1"),
        lambda key: sample_weights(key, tiny, "conv1_1", draw=2),
        lambda key: sample_noise_image(key, (3, 4), std=0.1),
    ):
        jax.tree.map(np.testing.assert_array_equal, draw(old), draw(typed))


@pytest.mark.parametrize(
    "make",
    [
        lambda: 3,
        lambda: None,
        lambda: "seed",
        lambda: jnp.int32(3),
        lambda: jnp.zeros(2, jnp.int32),
        lambda: jnp.zeros(4, jnp.uint32),
        lambda: jax.random.split(jax.random.key(0)),
        lambda: jax.random.key(0, impl="rbg"),
    ],
)
def test_what_is_no_key_is_refused(make):
    with pytest.raises(UserError, match="is not a single threefry2x32 key"):
        as_key(make())
