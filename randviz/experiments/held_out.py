"""How near two pictures are in texture, measured by a network and by statistics that were held out.

Another random network can say whether a random network's texture is near. Between random and
trained ones it would be partial; there, two statistics of no network are asked: the pixels of small
patches, and how oriented contours go on, which patches do not see.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import skimage.color
import skimage.filters

from randviz.commands.inputs import make_keys
from randviz.networks.rescaling import rescale_weights
from randviz.networks.vgg import VGG19
from randviz.networks.weights import random_weights
from randviz.objectives.statistics.gram import mean_gram
from randviz.tasks.texture import INPUT_OFFSET, LAYERS
from randviz.types import Array, Image, Params, UserError

# Of the network that is asked; no command's default is near it.
_SEED = 20161205
_SIDE, _LEVELS, _DIRECTIONS, _QUANTILES = 7, 3, 256, 256  # of patches compared
# In pixels; a contour is followed for up to three half wavelengths, in steps of one.
_WAVELENGTHS, _ORIENTATIONS, _REACH = (4, 8), 4, 3


@functools.cache
def _draw_judge() -> Params:
    return random_weights(make_keys(_SEED)[0], VGG19, last_layer=LAYERS[-1])


def measure_texture_error(image: Image, source: Image) -> float:
    """Compares Gram matrices in a random network that was held out of all descents.

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
    params, _ = rescale_weights(network, params, LAYERS[-1])
    found, wanted = (network.bind(params)(x, LAYERS) for x in (image, source))
    errors = []
    for layer in LAYERS:
        target = mean_gram(wanted[layer])
        difference = jnp.linalg.norm(mean_gram(found[layer]) - target)
        errors.append(difference / jnp.linalg.norm(target))
    return jnp.mean(jnp.stack(errors))


def measure_patch_distance(
    image: Image, source: Image, *, side: int = _SIDE, levels: int = _LEVELS
) -> float:
    """Compares the distributions of small patches, wherever they stand.

    Args:
      image: [H, W, 3], clipped to [0, 1] here; at least side · 2^(levels - 1) pixels a side.
      source: [H', W', 3], likewise.
      side: height and width of a patch, in pixels.
      levels: how many sizes of the pictures, each half of the one before.

    Returns:
      The sliced Wasserstein distance of all patches, averaged over the sizes: along 256 fixed
      random directions, the mean difference of quantiles over the mean standard deviation of
      the source. 0 for the same patches.

    Raises:
      UserError: for a smaller picture.

    References:
      Rabin et al. (2011), "Wasserstein barycenter and its application to texture mixing";
      Karras et al. (2018), section 5: as a measure, on a pyramid.
    """
    x, y = (np.clip(np.asarray(picture, np.float32), 0, 1) for picture in (image, source))
    smallest = side * 2 ** (levels - 1)
    for height, width in (x.shape[:2], y.shape[:2]):
        if min(height, width) < smallest:
            raise UserError(
                f"a picture of {width}×{height} pixels is too small for its patches to be compared;"
                f" take a larger --image_size, {smallest} pixels a side at least."
            )
    directions = np.random.default_rng(_SEED).normal(size=(side**2 * 3, _DIRECTIONS))
    directions /= np.linalg.norm(directions, axis=0)
    places = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    distances = []
    for _ in range(levels):
        found, wanted = (_list_patches(picture, side) @ directions for picture in (x, y))
        difference = np.quantile(found, places, axis=0) - np.quantile(wanted, places, axis=0)
        distances.append(np.mean(np.abs(difference)) / np.mean(np.std(wanted, axis=0)))
        x, y = (_halve(picture) for picture in (x, y))
    return float(np.mean(distances))


def _list_patches(image: np.ndarray, side: int) -> np.ndarray:
    """[H, W, 3] → [patches, side · side · 3]."""
    windows = np.lib.stride_tricks.sliding_window_view(image, (side, side), axis=(0, 1))
    return windows.reshape(-1, side**2 * 3)


def _halve(image: np.ndarray) -> np.ndarray:
    height, width = (side // 2 * 2 for side in image.shape[:2])
    blocks = image[:height, :width].reshape(height // 2, 2, width // 2, 2, 3)
    return blocks.mean(axis=(1, 3))


def measure_contour_distance(image: Image, source: Image) -> float:
    """Compares how oriented contours go on: correlations of the magnitudes of oriented subbands.

    Small patches of a coin's edge tell little of whether the edge closes to a circle; which
    orientations stand beside and beyond each other tells more. Neither contrast nor brightness
    counts, nor does colour.

    Args:
      image: [H, W, 3], clipped to [0, 1] here.
      source: [H', W', 3], likewise.

    Returns:
      ‖c(x) - c(s)‖ / ‖c(s)‖, averaged over wavelengths of 4 and 8 pixels. c is the correlation of
      the magnitudes of two of four orientations, at each shift of up to three half wavelengths
      across and down. 0 for the same texture, about 1 for none of its correlations.

    References:
      Portilla and Simoncelli (2000), "A parametric texture model based on joint statistics of
      complex wavelet coefficients", section 2: these correlations tell textures apart to the eye.
      Differs: Gabor filters in place of a steerable pyramid, and of the model's statistics these
      alone.
    """
    x, y = (skimage.color.rgb2gray(np.clip(np.asarray(z, float), 0, 1)) for z in (image, source))
    distances = []
    for wavelength in _WAVELENGTHS:
        found, wanted = (_correlate_magnitudes(picture, wavelength) for picture in (x, y))
        # A picture without contours has none to go on: it is at 1 from any other.
        scale = np.linalg.norm(wanted) or np.linalg.norm(found) or 1.0
        distances.append(np.linalg.norm(found - wanted) / scale)
    return float(np.mean(distances))


def _correlate_magnitudes(picture: np.ndarray, wavelength: int) -> np.ndarray:
    """[H, W] → [shifts, orientations, orientations]."""
    # A Gabor filter answers to brightness a little.
    picture = picture - picture.mean()
    angles = np.pi * np.arange(_ORIENTATIONS) / _ORIENTATIONS
    filtered = [
        np.hypot(*skimage.filters.gabor(picture, 1 / wavelength, angle, mode="reflect"))
        for angle in angles
    ]
    magnitudes = np.stack(filtered, axis=-1)
    magnitudes -= magnitudes.mean(axis=(0, 1))
    deviation = np.sqrt(np.mean(np.square(magnitudes)))
    if deviation > 1e-6:
        magnitudes /= deviation
    height, width = picture.shape
    step = wavelength // 2
    found = []
    for down, across in itertools.product(range(_REACH + 1), range(-_REACH, _REACH + 1)):
        # The opposite shift of two orientations is the same pair the other way round.
        if down > 0 or across >= 0:
            y, x = down * step, across * step
            here = magnitudes[: height - y, max(-x, 0) : width - max(x, 0)]
            there = magnitudes[y:, max(x, 0) : width - max(-x, 0)]
            found.append(np.einsum("hwi,hwj->ij", here, there) / here[..., 0].size)
    return np.stack(found)
