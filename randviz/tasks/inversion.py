"""Rebuilding an image from its features in one layer.

The paper's section 2, "Inverting deep representations", and with other weights and terms the
inversion of Mahendran and Vedaldi (2015), with which the paper compares it in figure 1.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from randviz.descent.descent import Progress
from randviz.descent.schedule import Schedule
from randviz.descent.solver import Result, Solver
from randviz.networks.extractor import Extractor
from randviz.networks.gaussian import as_key, sample_noise_image, split_key
from randviz.objectives.building import check_weighting, make_terms
from randviz.objectives.objective import Objective, Part, Sampler
from randviz.objectives.regularizers import Regularizer, alpha_norm, total_variation
from randviz.objectives.statistics.base import Statistic
from randviz.objectives.statistics.features import Features
from randviz.tasks.task import Descent, first_shape, run
from randviz.types import Array, Image, Key, Offset, as_image

# Differs from the paper, which does not say what is subtracted. Un-centred input: the common
# brightness pins the ReLU masks and the map becomes easy to invert. At pool4, subtracting the
# ImageNet mean instead costs eleven decibels (BUILD_NOTES.md).
INPUT_OFFSET = 0.0
NOISE_STD = 10 / 255
WEIGHTINGS = ("omega", "energy", "none")


@struct.dataclass
class Inversion:
    """What is minimized to rebuild an image: ω L(x, x0, l) + γ R(x) + the α-norm.

    Attributes:
      layer: whose features are matched; static.
      tv_weight: γ of the total variation, 0 in the paper; 0.003 to 0.01 helps the deep layers.
      tv_power: β of the total variation; static.
      alpha_weight: of the α-norm, 0 in the paper.
      alpha_power: α, a whole number; static.
      statistic: of the features; the features themselves in the paper.
      weighting: what the loss is multiplied by: "omega", the paper's ω; "energy", which makes it
        ‖F(x) - F(x0)‖² / ‖F(x0)‖²; "none"; static.
      gradient_reduction: of eq. 4, see `layer_weights`; static.
      input_offset: for a network that leaves it open; static.
    """

    layer: str = struct.field(pytree_node=False)
    tv_weight: float | Array = 0.0
    alpha_weight: float | Array = 0.0
    statistic: Statistic = Features()
    tv_power: float = struct.field(pytree_node=False, default=2.0)
    alpha_power: int = struct.field(pytree_node=False, default=6)
    weighting: str = struct.field(pytree_node=False, default="omega")
    gradient_reduction: str = struct.field(pytree_node=False, default="mean_abs")
    input_offset: Offset = struct.field(pytree_node=False, default=INPUT_OFFSET)

    def of(self, extractor: Extractor, image: Image, *, key: Key | None = None) -> Objective:
        """Makes the objective that this image minimizes.

        Args:
          extractor: whose features are matched.
          image: [H, W, 3], RGB in [0, 1].
          key: of the statistic's random parts, if it has any.

        Returns:
          A callable pytree, image → scalar.

        Raises:
          UserError: for an unknown layer or weighting, or an image that does not reach the layer.

        References:
          He, Wang, Hopcroft (2016), eq. 1 and 4.
          Mahendran and Vedaldi (2015), section 2, for the energy and the two regularisers.
        """
        check_weighting(self.weighting, WEIGHTINGS)
        return _make(self, extractor, as_image(image), key)


@jax.jit
def _make(task: Inversion, extractor: Extractor, image: Image, key: Key | None) -> Objective:
    extractor = extractor.with_offset(task.input_offset)
    layers = extractor.canonical_names(task.layer)
    extractor = extractor.prepare(layers, image.shape[:2], rescale=task.weighting != "none")
    (term,) = make_terms(
        extractor,
        [image],
        layers,
        task.statistic,
        weighting="gradient" if task.weighting == "omega" else "none",
        gradient_reduction=task.gradient_reduction,
        key=key,
    )
    if task.weighting == "energy":
        zero = jax.tree.map(jnp.zeros_like, term.target)
        energy = term.statistic.compare(term.target, zero)
        term = dataclasses.replace(term, weight=1 / energy)
    parts = {
        "content": Part(jnp.float32(1), (term,)),
        "tv": Part(jnp.float32(task.tv_weight), (Regularizer(total_variation, task.tv_power),)),
        "alpha_norm": Part(
            jnp.float32(task.alpha_weight), (Regularizer(alpha_norm, task.alpha_power),)
        ),
    }
    return Objective(extractor, parts)


def invert(
    key: Key,
    extractor: Extractor | Sampler,
    image: Image,
    *,
    num_steps: int = 2000,
    solver: Solver | str | None = None,
    schedule: Schedule | None = None,
    redraw: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> Result:
    """Rebuilds an image from its features in one layer, starting from white noise.

    Args:
      key: of the noise and of everything else that is random.
      extractor: whose features are matched; or what weights are drawn from anew at each step.
      image: [H, W, 3], RGB in [0, 1].
      num_steps: T.
      solver: a value or a name; by default jaxopt's L-BFGS, or the averaged Adam where something
        is redrawn.
      schedule: sizes and steps from coarse to fine, in place of `num_steps`.
      redraw: whether random parts of the statistic are drawn anew at each step.
      progress: called with an `Iterate` some twenty times at each size; see `show_progress`.
      options: fields of `Inversion`; `layer` must be among them.

    Returns:
      image: [H, W, 3], not clipped; trace: [T] each.

    Raises:
      UserError: for an unknown layer, weighting or solver, an array that is no image, or an image
        that does not reach the layer.

    References:
      He, Wang, Hopcroft (2016), section 2, "Inverting deep representations".
      Differs: the input offset (0 unless the network has one) and the noise (mid-grey, ten grey
      levels) are not stated in the paper.
    """
    noise_key, draw_key = split_key(as_key(key))
    image = as_image(image)
    start = sample_noise_image(noise_key, first_shape(image.shape[:2], schedule), std=NOISE_STD)
    descent = Descent(Inversion(**options), extractor, (image,), draw_key, redraw)
    return run(descent, start, image.shape[:2], num_steps, solver, schedule, progress)
