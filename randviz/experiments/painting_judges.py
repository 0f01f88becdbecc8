"""Judges of paintings that take no part in the descent.

How near a picture is to a painting, and how near it still is to the photograph: by patches of sizes
that are not matched, by features of a trained network, by edges.
"""

import functools
from collections.abc import Callable

import jax
import numpy as np
import skimage.metrics

from randviz.experiments.gatys import CONTENT_LAYER
from randviz.experiments.held_out import measure_patch_distance
from randviz.host.quality import measure_edges
from randviz.networks.extractor import Extractor
from randviz.objectives.statistics.gram import mean_gram
from randviz.tasks.style import STYLE_LAYERS
from randviz.types import Array, Image

# The method matches patches of 7 pixels, and of 14 in blocks of two.
PATCH_SIDES = (5, 11, 21)
# Of how near a picture is to the painting, and to the photograph.
STYLE_JUDGES = ("gram", "sliced", *(f"patches_{side}" for side in PATCH_SIDES))
JUDGES = (*STYLE_JUDGES, "content", "edges")
_DIRECTIONS, _QUANTILES = 64, 512


def make_judge(
    content: Image, painting: Image, trained: Extractor | None = None
) -> Callable[[Image], dict[str, float]]:
    """Makes what asks all judges; what they say of the two pictures themselves is computed once.

    Args:
      content: [H, W, 3], the photograph.
      painting: [h, w, 3].
      trained: a trained VGG-19; None asks the others only.

    Returns:
      A function of what was made, [H, W, 3], clipped to [0, 1] there → {judge: value}. "patches_5"
      and so on, "gram" and "sliced": the distance to the painting over the photograph's own, 1 for
      the photograph and 0 for the painting. "content": how far the features at conv4_2 are from the
      photograph's, 0 for the photograph. "edges": structural similarity of edge strengths, 1 for
      the photograph.
    """
    measure_patches = lambda image: np.array(
        [measure_patch_distance(image, painting, side=side, levels=1) for side in PATCH_SIDES]
    )
    names = [f"patches_{side}" for side in PATCH_SIDES]
    own_patches, own_edges = measure_patches(content), measure_edges(content)
    ask_network = None if trained is None else make_network_judge(trained, content, painting)

    def judge(image: Image) -> dict[str, float]:
        image = np.clip(np.asarray(image, np.float32), 0, 1)
        found = dict(zip(names, (measure_patches(image) / own_patches).tolist(), strict=True))
        similarity = skimage.metrics.structural_similarity
        found["edges"] = float(similarity(measure_edges(image), own_edges, data_range=0.5))
        return found if ask_network is None else found | ask_network(image)

    return judge


@functools.partial(jax.jit, static_argnames="layers")
def _extract(extractor: Extractor, image: Image, layers: tuple[str, ...]) -> dict[str, Array]:
    return extractor(image, layers)


def make_network_judge(
    extractor: Extractor, content: Image, painting: Image
) -> Callable[[Image], dict[str, float]]:
    """As `make_judge`, of a network's features only.

    Args:
      extractor: the network.
      content: [H, W, 3], the photograph, or what a descent starts from.
      painting: [h, w, 3].

    Returns:
      A function of what was made, [H, W, 3] → {"gram", "sliced", "content": value}: by Gram
      matrices, by quantiles along random directions, and by the content's features.
    """
    layers = (*STYLE_LAYERS, CONTENT_LAYER)
    places = (np.arange(_QUANTILES) + 0.5) / _QUANTILES

    def summarize(image):
        """The Gram matrix and the quantiles of each layer, and the features of the content's."""
        maps = _extract(extractor, image, layers)
        rng = np.random.default_rng(0)
        grams, quantiles = [], []
        for layer in STYLE_LAYERS:
            columns = np.asarray(maps[layer]).reshape(-1, maps[layer].shape[-1])
            directions = rng.normal(size=(columns.shape[1], _DIRECTIONS)).astype(np.float32)
            grams.append(np.asarray(mean_gram(maps[layer])))
            quantiles.append(np.quantile(columns @ directions, places, axis=0))
        return grams, quantiles, np.asarray(maps[CONTENT_LAYER])

    near_grams, near_quantiles, near = summarize(content)
    far_grams, far_quantiles, _ = summarize(painting)

    def compare(found, own, wanted, distance):
        """The geometric mean over layers of the distance over the photograph's own."""
        ratios = [
            distance(x - z) / distance(y - z) for x, y, z in zip(found, own, wanted, strict=True)
        ]
        return float(np.exp(np.mean(np.log(ratios))))

    def judge(image):
        grams, quantiles, features = summarize(image)
        return {
            "gram": compare(grams, near_grams, far_grams, np.linalg.norm),
            "sliced": compare(
                quantiles, near_quantiles, far_quantiles, lambda x: np.mean(np.abs(x))
            ),
            "content": float(np.linalg.norm(features - near) / np.linalg.norm(near)),
        }

    return judge
