"""What an untrained deep network knows: inversion, textures and style with random weights.

The package is built in floors, a folder each; a module imports only from its own floor and from
those above it in this table.

===============  ===================================================================================
types            the words: image, features, params, key
networks         architectures, their features and their weights
objectives       what is compared, and how the parts are weighted
descent          solvers
tasks            inversion, texture, style
search           networks chosen and counted: ranVGG, recipes, populations
host             files, pictures, long runs, settings, plots
commands         `randviz invert`, `texture`, `style`, ...
experiments      the paper's figures
===============  ===================================================================================

All before `host` are functions of their arguments: no files, clocks, prints, flags or fresh keys.

Example:
  >>> import jax, randviz as rv
  >>> image = jax.random.uniform(jax.random.key(0), (12, 16, 3))
  >>> params = rv.random_weights(jax.random.key(1), rv.VGG19, last_layer="conv1_2")
  >>> result = rv.invert(
  ...     jax.random.key(2), rv.VGG19, params, image, layer="conv1_2", num_steps=30
  ... )
  >>> bool(abs(result.image - image).mean() < 0.02)
  True

References:
  Kun He, Yan Wang, John Hopcroft. A Powerful Generative Model Using Random Weights for the Deep
  Image Representation. NIPS 2016.
"""

from randviz.descent import lbfgs
from randviz.networks.activations import normalize_activations
from randviz.networks.extractor import Extractor
from randviz.networks.network import ALEXNET, CAFFENET, VGG19, Network, features
from randviz.networks.weights import random_weights
from randviz.objectives.losses import (
    alpha_norm,
    content_layer_weights,
    content_loss,
    gram_matrix,
    mean_gram,
    texture_layer_weights,
    texture_loss,
    total_variation,
)
from randviz.search.recipe import Recipe, format_recipe, parse_recipe
from randviz.search.selection import select_layer, select_weights
from randviz.tasks.inversion import Inversion, invert
from randviz.tasks.style import Style, keep_colors, transfer
from randviz.tasks.texture import Texture, synthesize
from randviz.types import UserError

__all__ = [
    "ALEXNET",
    "CAFFENET",
    "VGG19",
    "Extractor",
    "Inversion",
    "Network",
    "Recipe",
    "Style",
    "Texture",
    "UserError",
    "alpha_norm",
    "content_layer_weights",
    "content_loss",
    "features",
    "format_recipe",
    "gram_matrix",
    "invert",
    "keep_colors",
    "lbfgs",
    "mean_gram",
    "normalize_activations",
    "parse_recipe",
    "random_weights",
    "select_layer",
    "select_weights",
    "synthesize",
    "texture_layer_weights",
    "texture_loss",
    "total_variation",
    "transfer",
]
