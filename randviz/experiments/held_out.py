"""How near two pictures are in texture, asked of a network that neither was made with."""

import functools

import jax
import jax.numpy as jnp

from randviz.commands.inputs import make_keys
from randviz.gauge import normalize_gauge
from randviz.losses import mean_gram
from randviz.networks import VGG19, features
from randviz.texture import INPUT_OFFSET, LAYERS
from randviz.types import Array, Image, Params
from randviz.weights import random_weights

# Of the network that is asked; no command's default is near it.
_SEED = 20161205


@functools.cache
def _draw_judge() -> Params:
    return random_weights(make_keys(_SEED)[0], VGG19, last_layer=LAYERS[-1])


def measure_texture_error(image: Image, source: Image) -> float:
    """Compares Gram matrices in a random network that took no part.

    Args:
      image: [H, W, 3], clipped to [0, 1] here.
      source: [H', W', 3], the texture or the style.

    Returns:
      ‖G(x)/M - G(s)/M'‖ / ‖G(s)/M'‖, averaged over conv1_1, conv2_1, conv3_1 and conv4_1 of a
      purely random VGG-19 with centred input; 0 for the same texture, about 1 for grey against it.
    """
    return float(_compare(_draw_judge(), jnp.clip(image, 0, 1), jnp.clip(source, 0, 1)))


@jax.jit
def _compare(params: Params, image: Image, source: Image) -> Array:
    # Under many weights one image's features are often too small to be squared.
    network = VGG19.with_offset(INPUT_OFFSET).for_one_evaluation()
    params, _ = normalize_gauge(network, params, LAYERS[-1])
    found, wanted = (features(network, params, x, LAYERS) for x in (image, source))
    errors = []
    for layer in LAYERS:
        target = mean_gram(wanted[layer])
        difference = jnp.linalg.norm(mean_gram(found[layer]) - target)
        errors.append(difference / jnp.linalg.norm(target))
    return jnp.mean(jnp.stack(errors))
