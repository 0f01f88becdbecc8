"""Total variation and the α-norm against loops over pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import randviz as rv


def test_total_variation_by_hand():
    image = jnp.zeros((2, 3, 3)).at[0, 0, 1].set(2.0).at[1, 2, 0].set(0.5)
    # The first pixel has a neighbour below and one to the right; so has the last, above and left.
    assert float(rv.total_variation(image)) == pytest.approx(2 * 4.0 + 2 * 0.25)
    assert float(rv.total_variation(jnp.full((4, 5, 3), 0.7))) == 0


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_total_variation_of_any_power_is_a_double_loop(power):
    image = np.random.default_rng(4).uniform(0.1, 1, size=(3, 4, 3)).astype(np.float32)
    x = np.asarray(image, np.float64)
    expected = 0.0
    for i, j, c in np.ndindex(x.shape):
        down = x[i + 1, j, c] - x[i, j, c] if i < 2 else 0
        right = x[i, j + 1, c] - x[i, j, c] if j < 3 else 0
        expected += (down**2 + right**2) ** (power / 2)
    variation = jax.jit(lambda x: rv.total_variation(x, power=power))
    assert float(variation(image)) == pytest.approx(expected, rel=1e-5)
    check_grads(variation, (image,), 1, ("rev",), rtol=1e-2)
    flat = jax.grad(variation)(np.ones_like(image))
    np.testing.assert_array_equal(flat, 0)


def test_alpha_norm_counts_from_mid_grey():
    image = jnp.array([[[0.5, 1.0, 0.0]]])
    assert float(rv.alpha_norm(image)) == 2 * 0.5**6
    assert float(rv.alpha_norm(image, power=3)) == 2 * 0.5**3
