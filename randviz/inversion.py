"""Rebuilding an image from its features in one layer.

The paper's section 2, "Inverting deep representations".
"""

import functools

import jax
import jax.numpy as jnp
from flax import struct

from randviz import lbfgs
from randviz.gauge import prepare_descent
from randviz.gaussian import draw_noise_image
from randviz.losses import content_layer_weights, content_loss, total_variation
from randviz.networks import Network, features
from randviz.types import Array, Image, Key, Params

# Differs from the paper, which does not say what is subtracted. Un-centred input: the common
# brightness pins the ReLU masks and the map becomes easy to invert. At pool4, subtracting the
# ImageNet mean instead costs eleven decibels (BUILD_NOTES.md).
INPUT_OFFSET = 0.0
NOISE_STD = 10 / 255


@struct.dataclass
class Inversion:
    """How far an image's features in one layer are from a target's: ω L(x, x0, l) + γ R(x).

    Attributes:
      params: weights down to the layer, in the gauge that float32 likes.
      target: [h, w, C], F(x0).
      layer_weight: ω, in that gauge.
      tv_weight: γ.
      network, layer: static.
    """

    params: Params
    target: Array
    layer_weight: Array
    tv_weight: Array
    network: Network = struct.field(pytree_node=False)
    layer: str = struct.field(pytree_node=False)

    @classmethod
    @functools.partial(jax.jit, static_argnames=("cls", "network", "layer", "reading"))
    def of(
        cls,
        network: Network,
        params: Params,
        image: Image,
        *,
        layer: str,
        tv_weight: float | Array = 0.0,
        reading: str = "mean_abs",
    ) -> "Inversion":
        """Makes the objective that this image minimizes.

        Args:
          network: the architecture; an input offset of None becomes 0.
          params: its weights down to the layer, at any scale.
          image: [H, W, 3], RGB in [0, 1].
          layer: whose features are matched.
          tv_weight: γ of the total variation, 0 in the paper.
          reading: of eq. 4, see `losses.content_layer_weights`.

        Returns:
          A callable pytree, image → scalar.

        Raises:
          UserError: for an unknown layer or an image that does not reach it.

        References:
          He, Wang, Hopcroft (2016), eq. 1 and 4.
        """
        network = network.with_offset(INPUT_OFFSET)
        layer = network.canonical_name(layer)
        params = prepare_descent(network, params, layer)
        target = features(network, params, image, layer)[layer]
        omega = content_layer_weights(network, params, image, (layer,), reading=reading)
        return cls(params, target, omega[layer], jnp.float32(tv_weight), network, layer)

    def __call__(self, image: Image) -> Array:
        found = features(self.network, self.params, image, self.layer)[self.layer]
        loss = self.layer_weight * content_loss(found, self.target)
        return loss + self.tv_weight * total_variation(image)


@functools.partial(
    jax.jit, static_argnames=("network", "layer", "num_steps", "reading", "solver", "memory")
)
def invert(
    key: Key,
    network: Network,
    params: Params,
    image: Image,
    *,
    layer: str,
    num_steps: int = 2000,
    tv_weight: float | Array = 0.0,
    reading: str = "mean_abs",
    solver: str = "jaxopt",
    memory: int = 20,
) -> lbfgs.Result:
    """Rebuilds an image from its features in one layer, starting from white noise.

    Args:
      key: of the noise.
      network: the architecture.
      params: its weights down to the layer.
      image: [H, W, 3], RGB in [0, 1].
      layer: whose features are matched.
      num_steps: T.
      tv_weight: γ of the total variation, 0 in the paper; 0.003 to 0.01 helps the deep layers.
      reading: of eq. 4, see `losses.content_layer_weights`.
      solver: "jaxopt", "optax" or "adam".
      memory: how many steps L-BFGS remembers.

    Returns:
      image: [H, W, 3], not clipped; trace: [T] each.

    Raises:
      UserError: for an unknown layer or solver, or an image that does not reach the layer.

    References:
      He, Wang, Hopcroft (2016), section 2, "Inverting deep representations".
      Differs: the input offset (0 unless the network has one) and the noise (mid-grey, ten grey
      levels) are not stated in the paper.
    """
    objective = Inversion.of(
        network, params, image, layer=layer, tv_weight=tv_weight, reading=reading
    )
    start = draw_noise_image(key, image.shape[:2], std=NOISE_STD)
    return lbfgs.minimize(objective, start, num_steps=num_steps, solver=solver, memory=memory)
