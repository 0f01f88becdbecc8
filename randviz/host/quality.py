"""How close one picture is to another, in image space, where different networks can be compared."""

import numpy as np
import skimage.color
import skimage.filters
import skimage.metrics

from randviz.types import Image


def compare_images(image: Image, target: Image) -> dict[str, float]:
    """Measures the difference of two pictures as they would be saved, clipped to [0, 1].

    Args:
      image: [H, W, 3].
      target: [H, W, 3].

    Returns:
      distance: the mean over pixels of the Euclidean norm over RGB, in units of 0 to 255;
      psnr: peak signal-to-noise ratio, decibels, infinite for equal pictures;
      ssim: structural similarity, at most 1, NaN where the picture is smaller than its window.

    References:
      He, Wang, Hopcroft (2016), figures 3 and 4: "average Euclidean distance".
    """
    image = np.clip(np.asarray(image, np.float64), 0, 1)
    target = np.clip(np.asarray(target, np.float64), 0, 1)
    difference = image - target
    error = np.mean(np.square(difference))
    window = 7  # scikit-image's default
    ssim = (
        skimage.metrics.structural_similarity(target, image, channel_axis=2, data_range=1)
        if min(image.shape[:2]) >= window
        else np.nan
    )
    return {
        "distance": float(255 * np.mean(np.linalg.norm(difference, axis=-1))),
        "psnr": float(-10 * np.log10(error)) if error else float("inf"),
        "ssim": float(ssim),
    }


def correlate_contours(image: Image, target: Image) -> float:
    """Says whether edges are where they should be, whatever colours lie between them.

    Args:
      image: [H, W, 3].
      target: [H, W, 3].

    Returns:
      Pearson's correlation of the edge strengths (Sobel) of both in grey; 1 for the same edges,
      about 0 for unrelated ones or none at all.
    """
    strengths = [measure_edges(x).ravel() for x in (image, target)]
    if min(np.ptp(strength) for strength in strengths) == 0:
        return 0.0
    return float(np.corrcoef(*strengths)[0, 1])


def measure_edges(image: Image) -> np.ndarray:
    """Edge strengths in grey.

    Args:
      image: [H, W, 3], clipped to [0, 1] here.

    Returns:
      [H, W], at least 0: the magnitude of Sobel's gradient.
    """
    return skimage.filters.sobel(skimage.color.rgb2gray(np.clip(np.asarray(image), 0, 1)))
