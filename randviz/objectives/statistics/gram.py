"""The Gram matrix: the paper's texture, as correlations between the channels of a layer."""

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax

from randviz.networks.bilinear import define_bilinear
from randviz.objectives.statistics.base import Statistic
from randviz.types import Array


@struct.dataclass
class Gram(Statistic):
    """The Gram matrix over the number of positions."""

    order = 2

    def measure(self, features: Array, mask: Array | None = None) -> Array:
        """See `Statistic.measure`; [C, C]."""
        return mean_gram(features, mask)

    def compare(self, value: Array, target: Array) -> Array:
        """See `Statistic.compare`; the squared distance is the texture loss.

        References:
          He, Wang, Hopcroft (2016), eq. 6.
        """
        if self.distance == "squared":
            return _compare_grams(value, target)
        return super().compare(value, target)


def gram_matrix(features: Array) -> Array:
    """Correlates the channels of a feature map, forgetting where things are.

    Args:
      features: [h, w, C], one layer's features, after the ReLU.

    Returns:
      [C, C], F Fᵀ; symmetric, positive semidefinite, unchanged by shuffling positions.

    Example:
      >>> gram_matrix(jnp.array([[[1.0, 2.0], [3.0, 0.0]]])).tolist()
      [[10.0, 2.0], [2.0, 4.0]]

    References:
      He, Wang, Hopcroft (2016), section 2, "Texture synthesis".
    """
    return _correlate_channels(features.reshape(-1, features.shape[-1]))


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


def mean_gram(features: Array, mask: Array | None = None) -> Array:
    """The Gram matrix divided by the number of positions, comparable between sizes.

    Args:
      features: [h, w, C].
      mask: [h, w], at least 0, how much each position counts; None counts all alike.

    Returns:
      [C, C], F Fᵀ / M; with a mask m, F diag(m) Fᵀ / Σ m.
    """
    if mask is not None:
        return gram_matrix(features * jnp.sqrt(mask)[..., None]) / jnp.sum(mask)
    height, width, _ = features.shape
    return gram_matrix(features) / (height * width)


def texture_loss(features: Array, target: Array) -> Array:
    """The squared difference of two Gram matrices, before μ.

    Args:
      features: [h, w, C], F(x).
      target: [C, C], the target's `mean_gram`.

    Returns:
      Scalar, ‖G(x)/M - G(x0)/M0‖² / (4N²), which is eq. 6 where both have M positions.

    References:
      He, Wang, Hopcroft (2016), eq. 6.
      Differs: each Gram matrix is divided by its own M, so that a texture can be made in another
      size than its source's; the paper's sizes are equal, and then so are the formulas.
    """
    return _compare_grams(mean_gram(features), target)


def _compare_grams(value: Array, target: Array) -> Array:
    # Differs from the paper: each Gram matrix over its own M, so that sizes may differ.
    return jnp.sum(jnp.square(value - target)) / (4 * len(value) ** 2)
