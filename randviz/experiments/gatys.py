"""The rival that uses training: Gatys' objective, with the constants of his public notebook.

References:
  Gatys, Ecker, Bethge (2016), "Image style transfer using convolutional neural networks".
"""

import jax.numpy as jnp

from randviz.networks.extractor import Extractor
from randviz.objectives.objective import Objective
from randviz.tasks.style import STYLE_LAYERS, Style
from randviz.types import Image

CONTENT_LAYER = "conv4_2"
# Times 1 / N² of each layer of N channels; the content's is 1.
_STYLE_WEIGHT = 1000.0


def make_objective(
    extractor: Extractor, content: Image, painting: Image, *, factor: float = 1.0
) -> Objective:
    """Makes the objective: conv4_2 for the content, conv1_1 to conv5_1 for the style.

    Args:
      extractor: a trained VGG-19, its filters normalised.
      content: [H, W, 3], the photograph.
      painting: [h, w, 3].
      factor: by how much the style counts more than with his constants, with which the photograph
        hardly changes on some files of weights.

    Returns:
      A callable pytree, image → scalar. His losses are mean squares; eq. 1 is half of one, and
      eq. 5 a quarter of one over N² numbers.
    """
    task = Style(
        content_layers=(CONTENT_LAYER,), content_weight=2.0, tv_weight=0.0, weighting="none"
    )
    objective = task.of(extractor, content, painting)
    part = objective.parts["style"]
    counts = [extractor.feature_shape(content.shape, layer)[2] for layer in STYLE_LAYERS]
    terms = tuple(
        term.replace(weight=jnp.float32(4 * _STYLE_WEIGHT / count**2))
        for term, count in zip(part.terms, counts, strict=True)
    )
    style = part.replace(weight=jnp.float32(factor), terms=terms)
    return objective.replace(parts={**objective.parts, "style": style})
