"""What a purely random network does on average to one picture, without drawing it.

Under independent N(0, σ) kernels and zero biases, a layer's features before the ReLU are Gaussian
given the layer below, and with many channels they are Gaussian outright. All that is expected of
the features then follows from the covariance κ(p, q) = E[F(p) F(q)] between two positions of one
channel, and κ can be carried from layer to layer: convolution, ReLU and average pooling each do
something simple to it. Everything here is float64 in NumPy, so that σ = 0.015 loses no digits.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from randviz.networks.layers import Conv, Pool
from randviz.networks.network import PAPER_SCALE, Network
from randviz.types import Image, UserError

_LARGEST_PAIRS = 2**24  # pairs of positions: 64×64 pixels, 128 MiB for each covariance
_STEP = 1e-4  # by which an image in [0, 1] is brightened to find a slope


class Prediction(NamedTuple):
    """What is expected of one layer, averaged over networks.

    Attributes:
      energy: mean square activation; before the first pooling exact at any number of channels.
      spread: standard deviation of the energy between networks, relative to its mean.
      content_loss: `features.content_loss` of the features and zero.
      texture_loss: `gram.texture_loss` of the features and zero.
      content_layer_weight: ω, as `layer_weights` of `Features`.
      texture_layer_weight: μ, as `layer_weights` of `Gram`.
    """

    energy: float
    spread: float
    content_loss: float
    texture_loss: float
    content_layer_weight: float
    texture_layer_weight: float


class _Moments(NamedTuple):
    energy: float
    growth: float  # E[energy²] / E[energy]² between networks, at least 1
    texture_loss: float


def predict_layers(
    network: Network, image: Image, layers: tuple[str, ...], *, scale: float = PAPER_SCALE
) -> dict[str, Prediction]:
    """Predicts the size of a random network's features, losses and layer weights for one image.

    Many channels are assumed, and their finite number corrected to first order. Given the layer
    below, C channels leave the energy a relative variance v = (mean E[F(p)² F(q)²] / energy² - 1)
    / C. What lies above is homogeneous, so the energy's relative variance is Π (1 + v) - 1 over the
    convolutions so far. That is exact in the first layer. Above it the standard deviation comes out
    low by up to a fifth, because only changes of size are followed, not of shape. The texture loss,
    quadratic in the energy, grows by (1 + v) for each convolution below; its own layer's channels
    are counted as they are.

    The layer weights are reciprocal mean gradients. The gradient summed over all pixels is the
    slope of the expected loss as the whole image is brightened, and for input that is not centred
    nearly all of it is positive. Where the gradient has both signs its mean size is larger and the
    weights smaller than predicted: in VGG-19 by about a tenth. Their mean over networks is that of
    a reciprocal, 1 / s and 1 / s² for a log-normal energy s.

    Args:
      network: the architecture: convolutions with zero padding, average pooling, input offset 0.
      image: [H, W, 3], RGB in [0, 1]; H·W at most 4096.
      layers: names of layers.
      scale: σ, the standard deviation of the kernels; biases are zero.

    Returns:
      {layer: Prediction} under the canonical names, in forward order.

    Raises:
      UserError: for an unknown layer, an image that does not reach it, is too large or is black,
        and for what the theory does not cover: maximum pooling, other padding, groups, response
        normalisation, fully connected layers, another input offset.

    Example:
      >>> from randviz.networks.vgg import VGG19
      >>> found = predict_layers(VGG19, np.ones((8, 8, 3)), ("conv1_1",), scale=0.01)
      >>> round(found["conv1_1"].energy / (255**2 * 0.01**2 * 3 / 2 * (22 / 8) ** 2), 12)
      1.0

    References:
      Cho and Saul (2009), "Kernel methods for deep learning", section 2: the ReLU.
      Novak et al. (2019), "Bayesian deep convolutional networks with many channels are Gaussian
      processes", sections 2 and 3: the covariance of positions, and pooling.
    """
    layers = network.canonical_names(tuple(layers))
    values = np.asarray(image, np.float64)
    check_covered(network, values.shape, layers[-1])
    _check_slopes(network, values)
    here, brighter, darker = (
        _follow_moments(network, values + change, layers[-1], scale)
        for change in (0, _STEP, -_STEP)
    )
    predictions = {}
    for layer in layers:
        energy, growth, texture_loss = here[layer]
        # Each loss's gradient, averaged over pixel values. The content loss is half the energy.
        run = 2 * _STEP * values.size
        content_slope = (brighter[layer].energy - darker[layer].energy) / (2 * run)
        texture_slope = (brighter[layer].texture_loss - darker[layer].texture_loss) / run
        predictions[layer] = Prediction(
            energy=energy,
            spread=(growth - 1) ** 0.5,
            content_loss=energy / 2,
            texture_loss=texture_loss,
            # A log-normal s of mean 1 has E[1/s] = E[s²] and E[1/s²] = E[s²]³. The texture loss's
            # own mean has grown by E[s²] already.
            content_layer_weight=growth / content_slope,
            texture_layer_weight=growth**4 / texture_slope,
        )
    return predictions


def check_covered(network: Network, shape: tuple[int, ...], last_layer: str) -> None:
    """Checks that the covariances of a network's features can be followed down to a layer.

    Args:
      network: the architecture.
      shape: (H, W, 3) of the image.
      last_layer: the deepest layer wanted.

    Raises:
      UserError: for an image that does not reach the layer or is too large, and for what the theory
        does not cover: maximum pooling, other padding, padding of pooling layers, groups,
        response normalisation, fully connected layers, other activations than the ReLU, none.
    """
    network.check_image(shape, last_layer)
    path = network.up_to(last_layer)
    first = path[0].name if path else last_layer
    other = next((layer.name for layer in path if not isinstance(layer, Conv | Pool)), None)
    grouped = next((layer.name for layer in path if getattr(layer, "groups", 1) > 1), None)
    padded = next((layer.name for layer in path if isinstance(layer, Pool) and layer.padding), None)
    linear = next((x.name for x in path if isinstance(x, Conv) and not x.activated), None)
    pooled = any(isinstance(layer, Pool) for layer in path)
    height, width = shape[:2]
    _refuse(
        {
            f"networks that begin with a convolution, not {first!r}": not isinstance(
                next(iter(path), None), Conv
            ),
            f"convolutions and pooling, not layer {other!r}; name a layer before it": other,
            f"no groups, which layer {grouped!r} has; name a layer before it": grouped,
            f"pooling of whole windows, not layer {padded!r}, which is padded; name a layer before"
            " it": padded,
            f"convolutions with a ReLU, not layer {linear!r}; name a layer before it": linear,
            f"avg pooling, not {network.pooling!r}; take avg": pooled and network.pooling != "avg",
            f"zero padding, not {network.padding_mode!r}; take zero": network.padding_mode
            != "zero",
            f"the ReLU, not {network.activation!r}; take relu": network.activation != "relu",
            f"images of 64×64 pixels or less, and {width}×{height} are too large for the covariance"
            " of all pairs of positions": (height * width) ** 2 > _LARGEST_PAIRS,
        }
    )


def _check_slopes(network: Network, image: np.ndarray) -> None:
    """What predictions of gradients ask beyond `check_covered`."""
    _refuse(
        {
            f"weights drawn from N(0, σ), not at the scale {network.initialization!r}; take"
            " another network": network.initialization not in ("normal", "auto"),
            f"input offset 0, not {network.input_offset}, with which gradients have both signs;"
            " take 0": np.any(network.input_offset or 0.0),
            "no black image, to which no network answers; take another": not np.any(image),
        }
    )


def _refuse(reasons: Mapping[str, object]) -> None:
    for covered, is_refused in reasons.items():
        if is_refused:
            raise UserError(f"the theory covers {covered}.")


def _follow_moments(
    network: Network, image: np.ndarray, last_layer: str, scale: float
) -> dict[str, _Moments]:
    pixels = 255 * image * np.asarray(network.input_scale, np.float64)
    covariance = np.einsum("abc,dec->abde", pixels, pixels)
    channels = 1  # the colours are summed over already
    growth = below = own = 1.0
    moments = {}
    for layer in network.up_to(last_layer):
        if isinstance(layer, Conv):
            covariance = convolve_covariance(
                covariance,
                kernel_size=layer.kernel_size,
                padding=layer.padding,
                stride=layer.stride,
            )
            covariance, fourth = rectify_covariance(scale**2 * channels * covariance)
            channels = layer.channels
            below = growth
            own = np.mean(fourth) / np.mean(np.square(covariance))
            growth = below * (1 + (np.mean(fourth) / mean_variance(covariance) ** 2 - 1) / channels)
        else:
            # A channel's own share of the Gram matrix, `own`, stays what it was: exact where a
            # window's features are proportional to each other, and nearly so in pictures.
            covariance = pool_covariance(covariance, size=layer.window[0], stride=layer.window[1])
        texture_loss = np.mean(np.square(covariance)) / 4 * (1 + (own - 1) / channels) * below
        moments[layer.name] = _Moments(
            mean_variance(covariance), float(growth), float(texture_loss)
        )
    return moments


def convolve_covariance(
    covariance: np.ndarray, *, kernel_size: int = 3, padding: int = 1, stride: int = 1
) -> np.ndarray:
    """Sums a covariance over the taps of a kernel, zero beyond the edge.

    Args:
      covariance: [h, w, h, w], of a channel's features at two positions, of one image or of two.
      kernel_size: height and width of a kernel.
      padding: how far the padding reaches beyond each edge.
      stride: positions from one output to the next.

    Returns:
      [h', w', h', w'], Σ_t κ(p + t, q + t): with C_in channels and kernels of standard deviation
      σ, the covariance of the convolution's outputs is σ² C_in times this.

    References:
      Novak et al. (2019), section 2: the operator A.
    """
    rows, columns = (
        (side + 2 * padding - kernel_size) // stride + 1 for side in covariance.shape[:2]
    )
    padded = np.pad(covariance, padding)
    taken = lambda first, count: slice(first, first + (count - 1) * stride + 1, stride)
    taps = (
        (taken(i, rows), taken(j, columns)) for i in range(kernel_size) for j in range(kernel_size)
    )
    # Both positions move together: different taps of a kernel are independent.
    return np.asarray(sum(padded[(*tap, *tap)] for tap in taps))


def rectify_covariance(
    covariance: np.ndarray, variances: tuple[np.ndarray, np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Passes the covariance of Gaussian features of mean zero through the ReLU.

    Args:
      covariance: [h, w, h, w], Σ of the features u at two positions.
      variances: [h, w] each, Σ_pp and Σ_qq, where the two positions are of two images.

    Returns:
      E[relu(u_p) relu(u_q)] and E[relu(u_p)² relu(u_q)²], [h, w, h, w] each. With θ the angle
      whose cosine is the correlation, they are √(Σ_pp Σ_qq) J1(θ) / 2π and Σ_pp Σ_qq J2(θ) / 2π.

    References:
      Cho and Saul (2009), section 2: J1 and J2, of the kernels of order 1 and 2.
    """
    own = np.einsum("abab->ab", covariance)
    first, second = np.sqrt(variances or (own, own))
    size = first[:, :, None, None] * second
    # Where a position is always zero its angle does not matter.
    cosine = np.divide(covariance, size, out=np.ones_like(size), where=size > 0).clip(-1, 1)
    sine, rest = np.sqrt(1 - cosine**2), np.pi - np.arccos(cosine)
    moment = size / (2 * np.pi) * (sine + rest * cosine)
    fourth = size**2 / (2 * np.pi) * (3 * sine * cosine + rest * (1 + 2 * cosine**2))
    return moment, fourth


def pool_covariance(covariance: np.ndarray, *, size: int = 2, stride: int = 2) -> np.ndarray:
    """Passes a covariance through average pooling: its mean over the windows of both positions.

    Args:
      covariance: [h, w, h, w].
      size: height and width of a window.
      stride: positions from one window to the next.

    Returns:
      [h', w', h', w']; rows and columns that do not fill a window are dropped.

    References:
      Novak et al. (2019), section 3: after pooling, all pairs of positions matter.
    """
    for axis in range(4):
        means = sliding_window_view(covariance, size, axis=axis).mean(-1)
        covariance = means.take(range(0, means.shape[axis], stride), axis=axis)
    return covariance


def mean_variance(covariance: np.ndarray) -> float:
    """The mean over positions p of κ(p, p), from [h, w, h, w]."""
    return float(np.mean(np.einsum("abab->ab", covariance)))
