"""Pictures made of the picture itself: what a reconstruction or a texture has to beat."""

import math

import numpy as np

from randviz.types import Image

_ORDER = np.array([5, 11, 8, 6, 0, 13, 1, 9, 7, 10, 4, 15, 14, 2, 12, 3])  # of sixteen tiles


def fill_with_mean(image: Image) -> np.ndarray:
    """The mean colour everywhere: three numbers.

    Args:
      image: [H, W, 3].

    Returns:
      [H, W, 3].
    """
    image = np.asarray(image)
    return np.broadcast_to(image.mean((0, 1)), image.shape)


def average_blocks(image: Image, count: int) -> np.ndarray:
    """Block means, as many numbers as are allowed.

    Args:
      image: [H, W, 3].
      count: numbers that are allowed, three for each block; at least 3.

    Returns:
      [H, W, 3], the mean colour of its block at each pixel. Blocks differ by at most a pixel in
      height and in width, and have about the picture's proportions. With 3·H·W numbers or more it
      is the picture.
    """
    image = np.asarray(image)
    share = min(math.sqrt(count / image.size), 1.0)
    edges = []
    for side in image.shape[:2]:
        blocks = max(math.floor(share * side + 1e-9), 1)
        edges.append(np.linspace(0, side, blocks + 1).round().astype(int))
    means = image
    for axis, starts in enumerate(edges):
        sizes = np.diff(starts)
        sums = np.add.reduceat(means, starts[:-1], axis=axis)
        means = sums / np.expand_dims(sizes, [other for other in range(3) if other != axis])
    for axis, starts in enumerate(edges):
        means = np.repeat(means, np.diff(starts), axis=axis)
    return means


def shuffle_tiles(image: Image) -> np.ndarray:
    """Sixteen tiles in another order: what is smaller than a tile stays, what is larger is broken.

    Args:
      image: [H, W, 3], at least four pixels a side.

    Returns:
      [H', W', 3]; sides a multiple of four. No two tiles that touched left and right or above and
      below still do.
    """
    image = np.asarray(image)
    height, width = (side // 4 for side in image.shape[:2])
    cut = image[: 4 * height, : 4 * width].reshape(4, height, 4, width, 3)
    tiles = cut.swapaxes(1, 2).reshape(16, height, width, 3)
    shuffled = tiles[_ORDER].reshape(4, 4, height, width, 3)
    return shuffled.swapaxes(1, 2).reshape(4 * height, 4 * width, 3)
