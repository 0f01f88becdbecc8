"""The core under `jax_enable_x64`: the same weights, and everything stays float32."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from conftest import TINY

import randviz as rv
from randviz.networks.weights import random_weights

LAYERS = ("conv1_1", "conv2_1")


def descend():
    """{name: array} of weights, features, layer weights and a short descent."""
    image = np.random.default_rng(1).uniform(size=(12, 16, 3)).astype(np.float32)
    params = random_weights(jax.random.key(7), TINY, scale=np.float64(0.015), last_layer="pool2")
    extractor = TINY.bind(params)
    found = {
        "weights": params,
        "features": rv.features(TINY, params, image, LAYERS),
        "content weights": rv.layer_weights(extractor, image, dict.fromkeys(LAYERS, rv.Features())),
        "style weights": rv.layer_weights(extractor, image, dict.fromkeys(LAYERS, rv.Gram())),
    }
    pyramid = rv.RandomPyramid().sample(jax.random.key(2))
    wide = np.random.default_rng(2).uniform(size=(48, 56, 3)).astype(np.float32)
    patches = lambda image: pyramid.sample_features(jax.random.key(3), image, "octave2", 5)
    found["filters"] = jax.jit(lambda image: (pyramid(image, "octave2"), patches(image)))(wide)
    drawn = rv.RandomNetwork(network=TINY, last_layer="conv1_1").sample(jax.random.key(4))
    found["drawn"] = drawn(image, LAYERS[:1])
    for solver in ("jaxopt", "optax", "averaged_adam"):
        result = rv.invert(
            jax.random.key(1), extractor, image, layer="conv1_1", num_steps=3, solver=solver
        )
        found[solver] = result.image
    leaves, _ = jax.tree.flatten_with_path(found)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


@pytest.mark.slow
def test_a_descent_under_x64_is_the_same(tmp_path):
    env = {**os.environ, "JAX_ENABLE_X64": "1"}
    path = tmp_path / "found.npz"
    subprocess.run([sys.executable, __file__, path], env=env, check=True)
    found, expected = np.load(path), descend()
    assert set(found) == {"x64", *expected} and found["x64"]
    for name, array in expected.items():
        assert found[name].dtype == np.float32, name
        if "weights']['conv" in name and "kernel" in name:
            np.testing.assert_array_equal(found[name], array)
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5, err_msg=name)


if __name__ == "__main__":
    np.savez(sys.argv[1], x64=jax.config.jax_enable_x64, **descend())
