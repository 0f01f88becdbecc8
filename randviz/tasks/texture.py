"""Making more of a texture from the correlations of its features.

The paper's section 2, "Texture synthesis".
"""

import functools
from collections.abc import Mapping

import jax
from flax import struct

from randviz.descent import lbfgs
from randviz.networks.gaussian import sample_noise_image
from randviz.networks.network import IMAGENET_MEAN, Network, features
from randviz.networks.rescaling import prepare_descent
from randviz.objectives.losses import mean_gram, texture_layer_weights, texture_loss
from randviz.types import Array, Image, Key, Params

# Differs from the paper, which does not say what is subtracted. Centred input: bright input beside
# the zero padding marks the border, and then the Gram matrices remember the source's layout. A
# small noise leaves large dark blobs (BUILD_NOTES.md).
INPUT_OFFSET = IMAGENET_MEAN
NOISE_STD = 30 / 255
LAYERS = ("conv1_1", "conv2_1", "conv3_1", "conv4_1")


@struct.dataclass
class Texture:
    """How far the correlations of an image's features are from a texture's: Σ_l μ E(x, x0, l).

    Attributes:
      params: weights down to the deepest layer, in the gauge that float32 likes.
      targets: {layer: [C, C]}, the texture's Gram matrices divided by its number of positions.
      layer_weights: {layer: μ}, in that gauge.
      network: static.
    """

    params: Params
    targets: Mapping[str, Array]
    layer_weights: Mapping[str, Array]
    network: Network = struct.field(pytree_node=False)

    @classmethod
    @functools.partial(
        jax.jit, static_argnames=("cls", "network", "layers", "shape", "gradient_reduction")
    )
    def of(
        cls,
        network: Network,
        params: Params,
        image: Image,
        *,
        layers: tuple[str, ...] = LAYERS,
        shape: tuple[int, int] | None = None,
        gradient_reduction: str = "mean_abs",
    ) -> "Texture":
        """Makes the objective that this texture minimizes.

        Args:
          network: the architecture; an input offset of None becomes the ImageNet mean.
          params: its weights down to the deepest layer, at any scale.
          image: [H, W, 3], RGB in [0, 1].
          layers: whose Gram matrices are matched.
          shape: (H, W) of the image that will descend, the texture's own by default; only the
            speed depends on it.
          gradient_reduction: of eq. 8, see `losses.texture_layer_weights`.

        Returns:
          A callable pytree, image of any size → scalar.

        Raises:
          UserError: for an unknown layer or an image that does not reach it.

        References:
          He, Wang, Hopcroft (2016), eq. 5, 6 and 8.
        """
        network = network.with_offset(INPUT_OFFSET)
        layers = network.canonical_names(layers)
        params = prepare_descent(network, params, layers[-1], shape=shape or image.shape[:2])
        maps = features(network.for_one_evaluation(), params, image, layers)
        mu = texture_layer_weights(
            network, params, image, layers, gradient_reduction=gradient_reduction
        )
        return cls(params, {layer: mean_gram(maps[layer]) for layer in layers}, mu, network)

    def __call__(self, image: Image) -> Array:
        maps = features(self.network, self.params, image, tuple(self.targets))
        return sum(
            self.layer_weights[layer] * texture_loss(maps[layer], target)
            for layer, target in self.targets.items()
        )


@functools.partial(
    jax.jit,
    static_argnames=(
        "network",
        "layers",
        "shape",
        "num_steps",
        "gradient_reduction",
        "solver",
        "memory",
    ),
)
def synthesize(
    key: Key,
    network: Network,
    params: Params,
    image: Image,
    *,
    layers: tuple[str, ...] = LAYERS,
    shape: tuple[int, int] | None = None,
    num_steps: int = 2000,
    gradient_reduction: str = "mean_abs",
    solver: str = "jaxopt",
    memory: int = lbfgs.MEMORY,
) -> lbfgs.Result:
    """Makes an image with a texture's correlations, starting from white noise.

    Args:
      key: of the noise.
      network: the architecture.
      params: its weights down to the deepest layer.
      image: [h0, w0, 3], the texture, RGB in [0, 1].
      layers: whose Gram matrices are matched.
      shape: (H, W) of the result, the texture's own by default.
      num_steps: T.
      gradient_reduction: of eq. 8, see `losses.texture_layer_weights`.
      solver: "jaxopt", "optax" or "adam".
      memory: how many steps L-BFGS remembers.

    Returns:
      image: [H, W, 3], not clipped; trace: [T] each.

    Raises:
      UserError: for an unknown layer or solver, or an image that does not reach the layer.

    References:
      He, Wang, Hopcroft (2016), section 2, "Texture synthesis".
      Differs: the input offset (the ImageNet mean unless the network has one) and the noise
      (mid-grey, thirty grey levels) are not stated in the paper.
    """
    objective = Texture.of(
        network, params, image, layers=layers, shape=shape, gradient_reduction=gradient_reduction
    )
    start = sample_noise_image(key, shape or image.shape[:2], std=NOISE_STD)
    return lbfgs.minimize(objective, start, num_steps=num_steps, solver=solver, memory=memory)
