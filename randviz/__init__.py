"""What an untrained deep network knows: inversion, textures and style with random weights.

The package is built in floors, a folder each; a module imports only from its own floor and from
those above it in this table.

===============  ===================================================================================
types            image, features, params, key
networks         architectures, their features and their weights
objectives       what is compared, and how the parts are weighted
descent          solvers
tasks            inversion, texture, style
search           networks chosen and counted: ranVGG, recipes, populations, intervals
host             files, pictures, long runs, settings, plots
commands         `randviz invert`, `texture`, `style`, ...
experiments      the paper's figures
===============  ===================================================================================

All before `host` are functions of their arguments: no files, clocks, prints, flags or fresh keys.

Example:
  >>> import jax, randviz as rv
  >>> image = jax.random.uniform(jax.random.key(0), (12, 16, 3))
  >>> params = rv.random_weights(jax.random.key(1), rv.VGG19, last_layer="conv1_2")
  >>> network = rv.VGG19.bind(params)
  >>> result = rv.invert(jax.random.key(2), network, image, layer="conv1_2", num_steps=30)
  >>> bool(abs(result.image - image).mean() < 0.02)
  True

References:
  Kun He, Yan Wang, John Hopcroft. A Powerful Generative Model Using Random Weights for the Deep
  Image Representation. NIPS 2016.
"""

from randviz.host import signals

# Before the other imports, which take seconds.
if signals.is_program():
    signals.watch()

from randviz.descent.adam import Adam
from randviz.descent.descent import Iterate, advance, init, iterate, minimize
from randviz.descent.lbfgs import JaxoptLbfgs, OptaxLbfgs
from randviz.descent.schedule import Schedule, plan_schedule
from randviz.descent.solver import Result, Solver, State, Trace
from randviz.host.images import load_image, save_image
from randviz.host.notebook import show_as_pictures, show_progress
from randviz.networks.activations import normalize_activations
from randviz.networks.adapters import from_function, from_linen, from_nnx
from randviz.networks.alexnet import ALEXNET, CAFFENET
from randviz.networks.catalog import NETWORKS
from randviz.networks.extractor import Extractor
from randviz.networks.filter_bank import FILTER_BANK, RANDOM_FILTERS, filter_bank, single_layer
from randviz.networks.filter_pyramid import FilterPyramid, RandomPyramid
from randviz.networks.network import BoundNetwork, Network, features
from randviz.networks.random_network import RandomNetwork
from randviz.networks.resnet import RESNET18, RESNET18_PLAIN, RESNET50
from randviz.networks.vgg import VGG11, VGG13, VGG16, VGG19
from randviz.networks.weights import random_weights
from randviz.objectives.layer_weights import layer_weights
from randviz.objectives.objective import Objective, Redrawn
from randviz.objectives.regularizers import alpha_norm, total_variation
from randviz.objectives.statistics.base import Statistic
from randviz.objectives.statistics.features import Features, content_loss
from randviz.objectives.statistics.gram import Gram, gram_matrix, mean_gram, texture_loss
from randviz.objectives.statistics.moments import MeanAndCovariance, Means
from randviz.objectives.statistics.random_features import CosineMeans, ThresholdMeans
from randviz.objectives.statistics.sliced_wasserstein import SlicedWasserstein
from randviz.search.recipe import Recipe, format_recipe, parse_recipe
from randviz.search.selection import select_layer, select_weights
from randviz.tasks.inversion import Inversion, invert
from randviz.tasks.painting import paint, paint_texture
from randviz.tasks.style import Style, keep_colors, match_colors, transfer
from randviz.tasks.texture import Texture, synthesize
from randviz.types import UserError

show_as_pictures(Iterate, Result)

__all__ = [
    "ALEXNET",
    "CAFFENET",
    "FILTER_BANK",
    "NETWORKS",
    "RANDOM_FILTERS",
    "RESNET18",
    "RESNET18_PLAIN",
    "RESNET50",
    "VGG11",
    "VGG13",
    "VGG16",
    "VGG19",
    "Adam",
    "BoundNetwork",
    "CosineMeans",
    "Extractor",
    "Features",
    "FilterPyramid",
    "Gram",
    "Inversion",
    "Iterate",
    "JaxoptLbfgs",
    "MeanAndCovariance",
    "Means",
    "Network",
    "Objective",
    "OptaxLbfgs",
    "RandomNetwork",
    "RandomPyramid",
    "Recipe",
    "Redrawn",
    "Result",
    "Schedule",
    "SlicedWasserstein",
    "Solver",
    "State",
    "Statistic",
    "Style",
    "Texture",
    "ThresholdMeans",
    "Trace",
    "UserError",
    "advance",
    "alpha_norm",
    "content_loss",
    "features",
    "filter_bank",
    "format_recipe",
    "from_function",
    "from_linen",
    "from_nnx",
    "gram_matrix",
    "init",
    "invert",
    "iterate",
    "keep_colors",
    "layer_weights",
    "load_image",
    "match_colors",
    "mean_gram",
    "minimize",
    "normalize_activations",
    "paint",
    "paint_texture",
    "parse_recipe",
    "plan_schedule",
    "random_weights",
    "save_image",
    "select_layer",
    "select_weights",
    "show_progress",
    "single_layer",
    "synthesize",
    "texture_loss",
    "total_variation",
    "transfer",
]
