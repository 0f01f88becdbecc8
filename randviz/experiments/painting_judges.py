"""Judges of paintings that take no part in the descent.

How near a picture is to a painting, and how near it still is to the photograph: by patches of sizes
that are not matched, by features of a trained network, by edges.
"""

import functools

import jax
import jax.numpy as jnp
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


def judge(
    image: Image, content: Image, painting: Image, trained: Extractor | None = None
) -> dict[str, float]:
    """Asks all judges.

    Args:
      image: [H, W, 3], what was made; clipped to [0, 1] here.
      content: [H, W, 3], the photograph.
      painting: [h, w, 3].
      trained: a trained VGG-19; None asks the others only.

    Returns:
      {judge: value}. "patches_5" and so on, "gram" and "sliced": the distance to the painting over
      the photograph's own, 1 for the photograph and 0 for the painting. "content": how far the
      features at conv4_2 are from the photograph's, 0 for the photograph. "edges": structural
      similarity of edge strengths, 1 for the photograph.
    """
    image = np.clip(np.asarray(image, np.float32), 0, 1)
    found = {
        f"patches_{side}": measure_patch_distance(image, painting, side=side, levels=1)
        / measure_patch_distance(content, painting, side=side, levels=1)
        for side in PATCH_SIDES
    }
    edges = [measure_edges(x) for x in (image, content)]
    found["edges"] = float(skimage.metrics.structural_similarity(*edges, data_range=0.5))
    if trained is not None:
        found |= _ask_network(trained, image, content, painting)
    return found


@functools.partial(jax.jit, static_argnames="layers")
def _extract(extractor: Extractor, image: Image, layers: tuple[str, ...]) -> dict[str, Array]:
    return extractor(image, layers)


def _ask_network(
    extractor: Extractor, image: Image, content: Image, painting: Image
) -> dict[str, float]:
    """Distances in a network's features: Gram matrices, and quantiles along random directions."""
    layers = (*STYLE_LAYERS, CONTENT_LAYER)
    found, near, far = (_extract(extractor, x, layers) for x in (image, content, painting))
    directions = np.random.default_rng(0)
    places = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    gram, sliced = [], []
    for layer in STYLE_LAYERS:
        grams = [mean_gram(maps[layer]) for maps in (found, near, far)]
        gram.append(jnp.linalg.norm(grams[0] - grams[2]) / jnp.linalg.norm(grams[1] - grams[2]))
        drawn = directions.normal(size=(found[layer].shape[-1], _DIRECTIONS)).astype(np.float32)
        quantiles = [
            np.quantile(np.asarray(maps[layer]).reshape(-1, drawn.shape[0]) @ drawn, places, 0)
            for maps in (found, near, far)
        ]
        own, before = (np.mean(np.abs(x - quantiles[2])) for x in quantiles[:2])
        sliced.append(own / before)
    change = jnp.linalg.norm(found[CONTENT_LAYER] - near[CONTENT_LAYER])
    return {
        "gram": float(np.exp(np.mean(np.log(gram)))),
        "sliced": float(np.exp(np.mean(np.log(sliced)))),
        "content": float(change / jnp.linalg.norm(near[CONTENT_LAYER])),
    }
