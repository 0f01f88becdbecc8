"""Painting one image's content in another's style (section 2, "Style transfer")."""

import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from flax import struct

from randviz.descent import lbfgs
from randviz.networks.gaussian import sample_noise_image
from randviz.networks.network import IMAGENET_MEAN, Network, features
from randviz.networks.rescaling import prepare_descent
from randviz.objectives.losses import (
    content_layer_weights,
    content_loss,
    mean_gram,
    texture_layer_weights,
    texture_loss,
    total_variation,
)
from randviz.types import Array, Image, Key, Params, UserError

# Differs from the paper: it does not say what is subtracted; un-centred input copies the layout.
INPUT_OFFSET = IMAGENET_MEAN
NOISE_STD = 30 / 255
CONTENT_LAYERS = ("conv2_2",)
STYLE_LAYERS = ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")
# Differs from the paper: 100 : 1 : 1000 shows no style (BUILD_NOTES.md).
CONTENT_WEIGHT, STYLE_WEIGHT, TV_WEIGHT = 1.0, 50.0, 2.0

# Rows: luma and two colour differences of ITU-R BT.601, for keeping a photograph's own colours.
_LUMA = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


@struct.dataclass
class Style:
    """α Σ ω L(x, xc, l) + β Σ μ E(x, xs, l) + γ R(x).

    Attributes:
      params: weights down to the deepest layer, in the gauge that float32 likes.
      content_targets: {layer: [h, w, C]}, F(xc).
      content_layer_weights: {layer: ω}.
      style_targets: {layer: [C, C]}, Gram matrices of the style divided by its positions.
      style_layer_weights: {layer: μ}.
      content_weight, style_weight, tv_weight: α, β, γ.
      network: static.
    """

    params: Params
    content_targets: Mapping[str, Array]
    content_layer_weights: Mapping[str, Array]
    style_targets: Mapping[str, Array]
    style_layer_weights: Mapping[str, Array]
    content_weight: Array
    style_weight: Array
    tv_weight: Array
    network: Network = struct.field(pytree_node=False)

    @classmethod
    @functools.partial(
        jax.jit,
        static_argnames=("cls", "network", "content_layers", "style_layers", "gradient_reduction"),
    )
    def of(
        cls,
        network: Network,
        params: Params,
        content_image: Image,
        style_images: Image | Sequence[Image],
        *,
        content_layers: tuple[str, ...] = CONTENT_LAYERS,
        style_layers: tuple[str, ...] = STYLE_LAYERS,
        content_weight: float | Array = CONTENT_WEIGHT,
        style_weight: float | Array = STYLE_WEIGHT,
        tv_weight: float | Array = TV_WEIGHT,
        style_blend_weights: Sequence[float] | None = None,
        gradient_reduction: str = "mean_abs",
    ) -> "Style":
        """Makes the objective of one photograph and one or several paintings.

        Args:
          network: the architecture; an input offset of None becomes the ImageNet mean.
          params: its weights down to the deepest layer, at any scale.
          content_image: [H, W, 3], RGB in [0, 1], xc.
          style_images: [h0, w0, 3], xs, or several of any sizes, whose Gram matrices and μ are
            blended.
          content_layers: whose features are matched.
          style_layers: whose Gram matrices are matched.
          content_weight: α.
          style_weight: β.
          tv_weight: γ.
          style_blend_weights: how much each style image counts, scaled to sum to 1; equal by
            default.
          gradient_reduction: of eq. 4 and 8, see `losses.content_layer_weights`.

        Returns:
          A callable pytree, image of the content image's size → scalar.

        Raises:
          UserError: for an unknown layer, an image that does not reach it, no style image, or
            shares that are not one for each style image.

        References:
          He, Wang, Hopcroft (2016), eq. 9.
        """
        network = network.with_offset(INPUT_OFFSET)
        content_layers = network.canonical_names(content_layers)
        style_layers = network.canonical_names(style_layers)
        deepest = network.canonical_names(tuple({*content_layers, *style_layers}))[-1]
        params = prepare_descent(network, params, deepest, shape=content_image.shape[:2])
        style_images = [style_images] if hasattr(style_images, "ndim") else list(style_images)
        shares = (
            [1.0] * len(style_images) if style_blend_weights is None else list(style_blend_weights)
        )
        if not style_images or len(shares) != len(style_images):
            raise UserError(
                f"there are {len(style_images)} style images and {len(shares)} shares; give at"
                " least one image and one share for each."
            )
        shares = jnp.asarray(shares, jnp.float32)
        shares = shares / jnp.sum(shares)

        once = network.for_one_evaluation()
        content_maps = features(once, params, content_image, content_layers)
        grams, mus = [], []
        for image in style_images:
            maps = features(once, params, image, style_layers)
            grams.append({layer: mean_gram(maps[layer]) for layer in style_layers})
            mus.append(
                texture_layer_weights(
                    network, params, image, style_layers, gradient_reduction=gradient_reduction
                )
            )
        blend = lambda *leaves: jnp.tensordot(shares, jnp.stack(leaves), 1)
        return cls(
            params=params,
            content_targets=content_maps,
            content_layer_weights=content_layer_weights(
                network,
                params,
                content_image,
                content_layers,
                gradient_reduction=gradient_reduction,
            ),
            style_targets=jax.tree.map(blend, *grams),
            style_layer_weights=jax.tree.map(blend, *mus),
            content_weight=jnp.float32(content_weight),
            style_weight=jnp.float32(style_weight),
            tv_weight=jnp.float32(tv_weight),
            network=network,
        )

    def __call__(self, image: Image) -> Array:
        layers = tuple({*self.content_targets, *self.style_targets})
        maps = features(self.network, self.params, image, layers)
        content = sum(
            self.content_layer_weights[layer] * content_loss(maps[layer], target)
            for layer, target in self.content_targets.items()
        )
        style = sum(
            self.style_layer_weights[layer] * texture_loss(maps[layer], target)
            for layer, target in self.style_targets.items()
        )
        smoothness = self.tv_weight * total_variation(image)
        return self.content_weight * content + self.style_weight * style + smoothness


@functools.partial(
    jax.jit,
    static_argnames=(
        "network",
        "content_layers",
        "style_layers",
        "init",
        "num_steps",
        "gradient_reduction",
        "solver",
        "memory",
    ),
)
def transfer(
    key: Key,
    network: Network,
    params: Params,
    content_image: Image,
    style_images: Image | Sequence[Image],
    *,
    content_layers: tuple[str, ...] = CONTENT_LAYERS,
    style_layers: tuple[str, ...] = STYLE_LAYERS,
    content_weight: float | Array = CONTENT_WEIGHT,
    style_weight: float | Array = STYLE_WEIGHT,
    tv_weight: float | Array = TV_WEIGHT,
    style_blend_weights: Sequence[float] | None = None,
    init: str = "content",
    num_steps: int = 2000,
    gradient_reduction: str = "mean_abs",
    solver: str = "jaxopt",
    memory: int = lbfgs.MEMORY,
) -> lbfgs.Result:
    """Paints the content of one image in the style of another.

    Args:
      key: of the noise, where the descent starts from noise.
      network, params, content_image, style_images, content_layers, style_layers, content_weight,
        style_weight, tv_weight, style_blend_weights, gradient_reduction: as in `Style.of`.
      init: where the descent starts: "content" or "noise".
      num_steps: T.
      solver: "jaxopt", "optax" or "adam".
      memory: how many steps L-BFGS remembers.

    Returns:
      image: [H, W, 3], the content image's size, not clipped; trace: [T] each.

    Raises:
      UserError: as `Style.of`, or for an unknown solver or init.

    References:
      He, Wang, Hopcroft (2016), section 2, "Style transfer".
      Differs: α : β : γ = 1 : 50 : 2 in place of 100 : 1 : 1000, which shows no style at all; the
      start is the content image in place of noise; the input offset is the ImageNet mean.
    """
    objective = Style.of(
        network,
        params,
        content_image,
        style_images,
        content_layers=content_layers,
        style_layers=style_layers,
        content_weight=content_weight,
        style_weight=style_weight,
        tv_weight=tv_weight,
        style_blend_weights=style_blend_weights,
        gradient_reduction=gradient_reduction,
    )
    if init not in ("content", "noise"):
        raise UserError(f"init {init!r} is unknown; use content or noise.")
    start = content_image
    if init == "noise":
        start = sample_noise_image(key, content_image.shape[:2], std=NOISE_STD)
    return lbfgs.minimize(objective, start, num_steps=num_steps, solver=solver, memory=memory)


def keep_colors(image: Image, photograph: Image) -> Image:
    """Takes the brightness from one image and the colours from another.

    Args:
      image: [H, W, 3], the stylised picture, RGB.
      photograph: [H, W, 3], whose colours are kept.

    Returns:
      [H, W, 3], not clipped.
    """
    luma = jnp.asarray(_LUMA)
    brightness = image @ luma[0]
    mixed = jnp.concatenate([brightness[..., None], photograph @ luma[1:].T], axis=-1)
    return mixed @ jnp.linalg.inv(luma).T
