"""Rebuilding an image from its features in one layer.

The paper's section 2, "Inverting deep representations", and with other weights and terms the
inversion of Mahendran and Vedaldi (2015), with which the paper compares it in figure 1.
"""

import functools

import jax
import jax.numpy as jnp
from flax import struct

from randviz.descent import lbfgs
from randviz.networks.gaussian import sample_noise_image
from randviz.networks.network import Network, features
from randviz.networks.rescaling import prepare_descent
from randviz.objectives.losses import (
    alpha_norm,
    content_layer_weights,
    content_loss,
    total_variation,
)
from randviz.types import Array, Image, Key, Params, UserError

# Differs from the paper, which does not say what is subtracted. Un-centred input: the common
# brightness pins the ReLU masks and the map becomes easy to invert. At pool4, subtracting the
# ImageNet mean instead costs eleven decibels (BUILD_NOTES.md).
INPUT_OFFSET = 0.0
NOISE_STD = 10 / 255
WEIGHTINGS = ("omega", "energy")


_STATIC = ("network", "layer", "tv_power", "alpha_power", "weighting", "gradient_reduction")


@struct.dataclass
class Inversion:
    """How far an image's features in one layer are from a target's: ω L(x, x0, l) + γ R(x).

    Attributes:
      params: weights down to the layer, in the gauge that float32 likes.
      target: [h, w, C], F(x0).
      layer_weight: ω, or what stands in its place, in that gauge.
      tv_weight: γ, of the total variation.
      alpha_weight: of the α-norm.
      tv_power, alpha_power, network, layer: static.
    """

    params: Params
    target: Array
    layer_weight: Array
    tv_weight: Array
    alpha_weight: Array
    tv_power: float = struct.field(pytree_node=False)
    alpha_power: int = struct.field(pytree_node=False)
    network: Network = struct.field(pytree_node=False)
    layer: str = struct.field(pytree_node=False)

    @classmethod
    @functools.partial(jax.jit, static_argnames=("cls", *_STATIC))
    def of(
        cls,
        network: Network,
        params: Params,
        image: Image,
        *,
        layer: str,
        tv_weight: float | Array = 0.0,
        tv_power: float = 2.0,
        alpha_weight: float | Array = 0.0,
        alpha_power: int = 6,
        weighting: str = "omega",
        gradient_reduction: str = "mean_abs",
    ) -> "Inversion":
        """Makes the objective that this image minimizes.

        Args:
          network: the architecture; an input offset of None becomes 0.
          params: its weights down to the layer, at any scale.
          image: [H, W, 3], RGB in [0, 1].
          layer: whose features are matched.
          tv_weight: γ of the total variation, 0 in the paper.
          tv_power: β of the total variation.
          alpha_weight: of the α-norm, 0 in the paper.
          alpha_power: α, a whole number.
          weighting: what the loss is multiplied by: "omega", the paper's ω; or "energy", which
            makes it ‖F(x) - F(x0)‖² / ‖F(x0)‖².
          gradient_reduction: of eq. 4, see `losses.content_layer_weights`.

        Returns:
          A callable pytree, image → scalar.

        Raises:
          UserError: for an unknown layer or weighting, or an image that does not reach the layer.

        References:
          He, Wang, Hopcroft (2016), eq. 1 and 4.
          Mahendran and Vedaldi (2015), section 2, for the energy and the two regularisers.
        """
        if weighting not in WEIGHTINGS:
            raise UserError(f"weighting {weighting!r} is unknown; use {' or '.join(WEIGHTINGS)}.")
        network = network.with_offset(INPUT_OFFSET)
        layer = network.canonical_name(layer)
        params = prepare_descent(network, params, layer, shape=image.shape[:2])
        target = features(network.for_one_evaluation(), params, image, layer)[layer]
        if weighting == "omega":
            weight = content_layer_weights(
                network, params, image, (layer,), gradient_reduction=gradient_reduction
            )[layer]
        else:
            weight = 1 / content_loss(target, jnp.zeros_like(target))
        return cls(
            params=params,
            target=target,
            layer_weight=weight,
            tv_weight=jnp.float32(tv_weight),
            alpha_weight=jnp.float32(alpha_weight),
            tv_power=tv_power,
            alpha_power=alpha_power,
            network=network,
            layer=layer,
        )

    def __call__(self, image: Image) -> Array:
        found = features(self.network, self.params, image, self.layer)[self.layer]
        loss = self.layer_weight * content_loss(found, self.target)
        loss += self.tv_weight * total_variation(image, power=self.tv_power)
        return loss + self.alpha_weight * alpha_norm(image, power=self.alpha_power)


@functools.partial(jax.jit, static_argnames=(*_STATIC, "num_steps", "solver", "memory"))
def invert(
    key: Key,
    network: Network,
    params: Params,
    image: Image,
    *,
    layer: str,
    num_steps: int = 2000,
    tv_weight: float | Array = 0.0,
    tv_power: float = 2.0,
    alpha_weight: float | Array = 0.0,
    alpha_power: int = 6,
    weighting: str = "omega",
    gradient_reduction: str = "mean_abs",
    solver: str = "jaxopt",
    memory: int = lbfgs.MEMORY,
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
      tv_power, alpha_weight, alpha_power, weighting, gradient_reduction: as in `Inversion.of`.
      solver: "jaxopt", "optax" or "adam".
      memory: how many steps L-BFGS remembers.

    Returns:
      image: [H, W, 3], not clipped; trace: [T] each.

    Raises:
      UserError: for an unknown layer, weighting or solver, or an image that does not reach the
        layer.

    References:
      He, Wang, Hopcroft (2016), section 2, "Inverting deep representations".
      Differs: the input offset (0 unless the network has one) and the noise (mid-grey, ten grey
      levels) are not stated in the paper.
    """
    objective = Inversion.of(
        network,
        params,
        image,
        layer=layer,
        tv_weight=tv_weight,
        tv_power=tv_power,
        alpha_weight=alpha_weight,
        alpha_power=alpha_power,
        weighting=weighting,
        gradient_reduction=gradient_reduction,
    )
    start = sample_noise_image(key, image.shape[:2], std=NOISE_STD)
    return lbfgs.minimize(objective, start, num_steps=num_steps, solver=solver, memory=memory)
