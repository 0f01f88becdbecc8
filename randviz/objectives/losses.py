"""The paper's losses, equation by equation, and the layer weights that balance them.

Eq. 4 and 8 are read as the paper writes L(x, x0): variable first, target second. The gradient is
taken at the image itself with the target's features set to zero, "the maximum possible gradient";
read the other way round both equations vanish.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from randviz.networks.bilinear import define_bilinear
from randviz.networks.network import Network, features
from randviz.types import Array, Image, Params, UserError

GRADIENT_REDUCTIONS = ("mean_abs", "abs_mean")


def content_loss(layer_features: Array, target: Array) -> Array:
    """Half the mean squared difference of two feature maps, before ω.

    Args:
      layer_features: [h, w, C], F(x).
      target: [h, w, C], F(x0).

    Returns:
      Scalar, ‖F(x) - F(x0)‖² / (2NM), N = C channels, M = h·w positions.

    References:
      He, Wang, Hopcroft (2016), eq. 1.
    """
    return jnp.mean(jnp.square(layer_features - target)) / 2


def gram_matrix(layer_features: Array) -> Array:
    """Correlates the channels of a feature map, forgetting where things are.

    Args:
      layer_features: [h, w, C], one layer's features, after the ReLU.

    Returns:
      [C, C], F Fᵀ; symmetric, positive semidefinite, unchanged by shuffling positions.

    Example:
      >>> gram_matrix(jnp.array([[[1.0, 2.0], [3.0, 0.0]]])).tolist()
      [[10.0, 2.0], [2.0, 4.0]]

    References:
      He, Wang, Hopcroft (2016), section 2, "Texture synthesis".
    """
    return _correlate_channels(layer_features.reshape(-1, layer_features.shape[-1]))


@jax.custom_jvp
def _correlate_channels(columns: Array) -> Array:
    """[M, C] → [C, C], the product with its own transpose."""
    return lax.dot_general(columns, columns, (((0,), (0,)), ((), ())))


# A rule of its own, because autodiff's makes two products of the size of the Gram matrix's, one for
# each factor, and both come out with the channels first: on a CPU turning them takes longer.
@_correlate_channels.defjvp
def _differentiate_channels(primals, tangents):
    (columns,), (tangent,) = primals, tangents
    return _correlate_channels(columns), _correlate_symmetrically(tangent, columns)


def _symmetric_product(tangent, columns):
    product = lax.dot_general(tangent, columns, (((0,), (0,)), ((), ())))
    return product + product.T


_correlate_symmetrically = define_bilinear(
    "correlate_symmetrically",
    compute=lambda tangent, columns, _: _symmetric_product(tangent, columns),
    reference=_symmetric_product,
    transpose=lambda cotangent, columns, _, shape: columns @ (cotangent + cotangent.T),
)


def mean_gram(layer_features: Array) -> Array:
    """The Gram matrix divided by the number of positions, comparable between sizes.

    Args:
      layer_features: [h, w, C].

    Returns:
      [C, C], F Fᵀ / M.
    """
    height, width, _ = layer_features.shape
    return gram_matrix(layer_features) / (height * width)


def texture_loss(layer_features: Array, target: Array) -> Array:
    """The squared difference of two Gram matrices, before μ.

    Args:
      layer_features: [h, w, C], F(x).
      target: [C, C], the target's `mean_gram`.

    Returns:
      Scalar, ‖G(x)/M - G(x0)/M0‖² / (4N²), which is eq. 6 where both have M positions.

    References:
      He, Wang, Hopcroft (2016), eq. 6.
      Differs: each Gram matrix is divided by its own M, so that a texture can be made in another
      size than its source's; the paper's sizes are equal, and then so are the formulas.
    """
    channels = layer_features.shape[-1]
    # Differs from the paper: each Gram matrix over its own M, so that sizes may differ.
    return jnp.sum(jnp.square(mean_gram(layer_features) - target)) / (4 * channels**2)


def total_variation(image: Image, *, power: float = 2.0) -> Array:
    """Sums a power of the differences of adjacent pixels.

    Args:
      image: [H, W, 3], in [0, 1].
      power: β, at least 1. Static: a number, not an array.

    Returns:
      Scalar R(x) = Σ (down² + right²)^(β/2), in units of [0, 1] to the power β; it grows with the
      number of pixels, as ω-weighted losses do. Where there is no difference, neither is there a
      gradient.

    References:
      He, Wang, Hopcroft (2016), eq. 9 and the sentence below it, with β = 2.
      Mahendran and Vedaldi (2015), section 2.2, other β.
    """
    down, right = jnp.square(image[1:] - image[:-1]), jnp.square(image[:, 1:] - image[:, :-1])
    if power == 2:
        return jnp.sum(down) + jnp.sum(right)
    none = ((0, 0),)
    energy = jnp.pad(down, ((0, 1), *none, *none)) + jnp.pad(right, (*none, (0, 1), *none))
    # The root's slope at zero is infinite, and times zero no number; so no root of zero is taken.
    some = energy > 0
    return jnp.sum(jnp.where(some, jnp.where(some, energy, 1.0) ** (power / 2), 0.0))


def alpha_norm(image: Image, *, power: int = 6) -> Array:
    """Sums a power of the distances of all pixel values from mid-grey.

    Args:
      image: [H, W, 3], in [0, 1].
      power: α, a whole number. Static: a number, not an array.

    Returns:
      Scalar Σ |x - 1/2|^α, in units of [0, 1] to the power α; it grows with the number of pixels.

    References:
      Mahendran and Vedaldi (2015), section 2.2.
      Differs: they measure from the mean of many pictures.
    """
    return jnp.sum(jnp.abs(image - 0.5) ** power)


def content_layer_weights(
    network: Network,
    params: Params,
    image: Image,
    layers: tuple[str, ...],
    *,
    gradient_reduction: str = "mean_abs",
) -> dict[str, Array]:
    """Computes ω of each layer: the reciprocal size of the content loss's largest gradient.

    Args:
      network: the architecture.
      params: its weights.
      image: [H, W, 3], x0 in eq. 4: the image inverted, or the content image.
      layers: names of layers.
      gradient_reduction: "mean_abs" for the mean of |gradient|, the paper's words "absolute
        mean gradient"; "abs_mean" for |mean of the gradient|, the letter of its formula.

    Returns:
      {layer: ω}, scalars; the gradient is with respect to the image in [0, 1].

    Raises:
      UserError: for an unknown gradient_reduction, or as `features`.

    References:
      He, Wang, Hopcroft (2016), eq. 4.
      Differs: the default gradient reduction. The two agree within 10 % on input that is not
      centred; on centred input the letter of the formula varies strongly between seeds.
    """
    at_zero = lambda maps: content_loss(maps, jnp.zeros_like(maps))
    return _layer_weights(at_zero, network, params, image, tuple(layers), gradient_reduction)


def texture_layer_weights(
    network: Network,
    params: Params,
    image: Image,
    layers: tuple[str, ...],
    *,
    gradient_reduction: str = "mean_abs",
) -> dict[str, Array]:
    """Computes μ of each layer: the reciprocal size of the texture loss's largest gradient.

    Args:
      network: the architecture.
      params: its weights.
      image: [H, W, 3], x0 in eq. 8: the texture, or the style image.
      layers: names of layers.
      gradient_reduction: as in `content_layer_weights`.

    Returns:
      {layer: μ}, scalars; the gradient is with respect to the image in [0, 1].

    Raises:
      UserError: for an unknown gradient_reduction, or as `features`.

    References:
      He, Wang, Hopcroft (2016), eq. 8.
      Differs: the default gradient_reduction, as in `content_layer_weights`.
    """
    at_zero = lambda maps: texture_loss(maps, jnp.zeros((maps.shape[-1],) * 2, maps.dtype))
    return _layer_weights(at_zero, network, params, image, tuple(layers), gradient_reduction)


def _layer_weights(
    loss: Callable[[Array], Array],
    network: Network,
    params: Params,
    image: Image,
    layers: tuple[str, ...],
    gradient_reduction: str,
) -> dict[str, Array]:
    if gradient_reduction not in GRADIENT_REDUCTIONS:
        raise UserError(
            f"gradient reduction {gradient_reduction!r} is unknown; use"
            f" {' or '.join(GRADIENT_REDUCTIONS)}."
        )
    layers = network.canonical_names(layers)
    network = network.for_one_evaluation()
    maps, pull_back = jax.vjp(lambda x: features(network, params, x, layers), image)
    cotangents = {layer: jax.grad(loss)(maps[layer]) for layer in layers}

    def gradient_size(chosen: Array) -> Array:
        masked = {layer: chosen[i] * cotangents[layer] for i, layer in enumerate(layers)}
        (gradient,) = pull_back(masked)
        # Differs from the paper: by default its words, not the letter of its formula.
        mean = jnp.mean(jnp.abs(gradient) if gradient_reduction == "mean_abs" else gradient)
        return jnp.abs(mean)

    # One backward program run once a layer: unrolled, it would be compiled once a layer.
    sizes = jax.lax.map(gradient_size, jnp.eye(len(layers), dtype=image.dtype))
    return {layer: 1 / sizes[i] for i, layer in enumerate(layers)}
