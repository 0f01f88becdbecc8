"""What an untrained deep network knows: inversion, textures and style with random weights.

The package is built in floors; a module imports only what stands before it in this table.

========================  ======================================================================
0 words                   types
1 numerics                winograd, conv, gaussian, networks, weights, gauge, losses, line_search,
                          lbfgs
2 tasks                   inversion, texture, style, theory
3 search                  selection, recipe, population
4 host                    images, tensor_files, checkpoints, grids, quality, runs, forecast, rows,
                          settings, charts, processes
5 commands                commands.*, experiments.*, __main__
========================  ======================================================================

Floors 0 to 3 are functions of their arguments: no files, clocks, prints, flags or fresh keys.

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

from randviz import lbfgs
from randviz.gauge import normalize_activations, normalize_gauge
from randviz.inversion import Inversion, invert
from randviz.losses import (
    alpha_norm,
    content_layer_weights,
    content_loss,
    gram_matrix,
    mean_gram,
    texture_layer_weights,
    texture_loss,
    total_variation,
)
from randviz.networks import ALEXNET, CAFFENET, VGG19, Network, features
from randviz.recipe import Recipe, format_recipe, parse_recipe
from randviz.selection import select_layer, select_weights
from randviz.style import Style, keep_colors, transfer
from randviz.texture import Texture, synthesize
from randviz.types import UserError
from randviz.weights import random_weights

__all__ = [
    "ALEXNET",
    "CAFFENET",
    "VGG19",
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
    "normalize_gauge",
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
