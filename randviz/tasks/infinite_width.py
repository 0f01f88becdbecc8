"""Networks of infinitely many random channels: what they compare, computed without drawing.

One layer of C filters w from N(0, σ²) gives F_c(p) = relu(w_c · p) at a patch p. Over filters,

    (1/C) Σ_c F_c(p) F_c(q) → k(p, q) = E[relu(w · p) relu(w · q)],

the arc-cosine kernel of order 1 of the two patches. The paper's texture loss knows the features by
these sums alone. With G = FᵀF / M, M positions, for two images x and y,

    Σ_cd G_cd(x) G_cd(y) = (1 / M M') Σ_pq (Σ_c F_c(p) F_c(q))² → C² mean_pq k(p, q)²,
    E(x, y) = ‖G(x) - G(y)‖² / 4C² → (mean k²(x, x) + mean k²(y, y) - 2 mean k²(x, y)) / 4:

a quarter of the squared maximum mean discrepancy (MMD) of the two sets of patches, with kernel k².
At finite C each sum over channels is a mean of C independent numbers of variance m - k², with
m(p, q) = E[relu²(w · p) relu²(w · q)], the arc-cosine kernel of order 2. So the expected loss is
the MMD's quarter with k² + (m - k²) / C in place of k², exactly, and a single network's kernel is
off by √(mean (m - k²) / C), relative to √(mean k²): as C^-½.

A distance of means over positions needs no such correction:

    (1/C) Σ_c (mean_p F_c(p) - mean_q F_c(q))² has mean mean k(x, x) + mean k(y, y) - 2 mean k(x, y)

at any C, one filter included, with some other kernel for any function of a filter's response. A
descent that redraws its filters at each step descends the mean over filters: with means that of the
infinitely wide network itself, with Gram matrices the MMD of k² + (m - k²) / C. A descent on one
network descends that network's kernel, with its errors.

In deeper layers k takes the place of the patches' inner products, see `theory`; there the limit is
that of all widths together, and at finite width the mean is off by a multiple of 1 / C.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from randviz.networks.layers import ACTIVATIONS, Conv
from randviz.networks.network import Network
from randviz.tasks.theory import (
    check_covered,
    convolve_covariance,
    pool_covariance,
    rectify_covariance,
)
from randviz.types import Image, UserError


class Kernel(NamedTuple):
    """What is expected of products of a channel's features at two positions, over networks.

    Attributes:
      second: [h, w, h, w], k = E[F(p) F(q)], p in the one image and q in the other.
      fourth: [h, w, h, w], m = E[F(p)² F(q)²]; None after pooling.
    """

    second: np.ndarray
    fourth: np.ndarray | None


def compute_kernels(
    network: Network,
    images: Sequence[Image],
    pairs: Sequence[tuple[int, int]],
    layers: tuple[str, ...],
) -> dict[tuple[int, int], dict[str, Kernel]]:
    """Computes the kernels of infinitely wide layers between images.

    Args:
      network: the architecture: convolutions with zero padding and ReLU, average pooling. The
        numbers of channels do not matter. Weights are those of `random_weights` with
        `initialization` "he" and biases of zero.
      images: [H, W, 3] each, of one size, RGB in [0, 1]; H·W at most 4096.
      pairs: numbers of two images each.
      layers: names of layers.

    Returns:
      {pair: {layer: kernel}}, of these pairs and of each of their images with itself.

    Raises:
      UserError: for images of two sizes, and as `theory.check_covered`.

    References:
      Cho and Saul (2009), "Kernel methods for deep learning", section 2.
      Novak et al. (2019), "Bayesian deep convolutional networks with many channels are Gaussian
      processes", sections 2 and 3.
      Amir and Weiss (2021), "Understanding and simplifying perceptual distances": the MMD.
    """
    layers = network.canonical_names(tuple(layers))
    shapes = {tuple(image.shape) for image in images}
    if len(shapes) > 1:
        sizes = " and ".join(sorted(f"{shape[1]}×{shape[0]}" for shape in shapes))
        raise UserError(f"kernels are of images of one size, not of {sizes}; resize them.")
    check_covered(network, shapes.pop(), layers[-1])
    offset = np.asarray(network.input_offset or 0.0, np.float64)
    scale = np.asarray(network.input_scale, np.float64)
    pixels = [(255 * np.asarray(image, np.float64) - offset) * scale for image in images]
    everyone = sorted({*pairs, *((i, i) for pair in pairs for i in pair)})
    covariances = {(i, j): np.einsum("abc,dec->abde", pixels[i], pixels[j]) for i, j in everyone}
    found: dict[tuple[int, int], dict[str, Kernel]] = {pair: {} for pair in everyone}
    inputs = 3 * (255 / 2 * float(np.mean(scale))) ** 2  # the first layer's, by He's rule
    for layer in network.up_to(layers[-1]):
        if isinstance(layer, Conv):
            factor = ACTIVATIONS["relu"].gain / (layer.kernel_size**2 * inputs)
            kernels = _pass_convolution(layer, covariances, factor)
            inputs = 1.0  # k is a mean over channels
        else:
            size, stride, _ = layer.window
            kernels = {
                pair: Kernel(pool_covariance(covariance, size=size, stride=stride), None)
                for pair, covariance in covariances.items()
            }
        covariances = {pair: kernel.second for pair, kernel in kernels.items()}
        if layer.name in layers:
            for pair, kernel in kernels.items():
                found[pair][layer.name] = kernel
    return found


def _pass_convolution(
    layer: Conv, covariances: Mapping[tuple[int, int], np.ndarray], factor: float
) -> dict[tuple[int, int], Kernel]:
    """Kernels after a convolution and a ReLU; kernels' variance times inputs is the factor."""
    before = {
        pair: factor
        * convolve_covariance(
            covariance,
            kernel_size=layer.kernel_size,
            padding=layer.padding,
            stride=layer.stride,
        )
        for pair, covariance in covariances.items()
    }
    variances = {i: np.einsum("abab->ab", x) for (i, j), x in before.items() if i == j}
    return {
        (i, j): Kernel(*rectify_covariance(x, (variances[i], variances[j])))
        for (i, j), x in before.items()
    }


def squared_discrepancy(own: np.ndarray, others: np.ndarray, between: np.ndarray) -> float:
    """The squared maximum mean discrepancy of two sets of positions.

    Args:
      own: a kernel of the first set's pairs, of any shape.
      others: of the second set's.
      between: of pairs of both.

    Returns:
      mean(own) + mean(others) - 2 mean(between); at least 0 up to rounding, for a kernel.

    References:
      Gretton et al. (2012), "A kernel two-sample test", lemma 6: the biased estimate.
    """
    return float(np.mean(own) + np.mean(others) - 2 * np.mean(between))


def expect_texture_loss(
    own: Kernel, others: Kernel, between: Kernel, width: float = np.inf
) -> float:
    """The mean over networks of the texture loss of two images in one layer.

    Args:
      own, others, between: kernels of the first image, of the second, and of the two.
      width: C; infinite for the limit. A finite one is exact in the first layer, where nothing
        lies below that could be too narrow.

    Returns:
      The mean of ‖G(x)/M - G(y)/M‖² / (4C²), see `gram.texture_loss`.

    Raises:
      UserError: for a finite width after pooling.
    """

    def square(kernel: Kernel) -> np.ndarray:
        squared = np.square(kernel.second)
        if np.isinf(width):
            return squared
        if kernel.fourth is None:
            raise UserError(f"after pooling the mean at width {width:g} is not known; take inf.")
        return squared + (kernel.fourth - squared) / width

    return squared_discrepancy(square(own), square(others), square(between)) / 4


def expect_kernel_error(kernel: Kernel, width: int) -> float:
    """By how much a network's own kernel differs from the limit, in the first layer.

    Args:
      kernel: of an image with itself, of a convolution.
      width: C.

    Returns:
      √E‖K - k‖² / ‖k‖, K(p, q) = (1/C) Σ_c F_c(p) F_c(q) of one network.

    Raises:
      UserError: after pooling.
    """
    if kernel.fourth is None:
        raise UserError("after pooling the error of a kernel is not known; name a convolution.")
    squared = np.square(kernel.second)
    return float(np.sqrt(np.mean(kernel.fourth - squared) / np.mean(squared) / width))
