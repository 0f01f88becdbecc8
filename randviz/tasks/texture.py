"""Making more of a texture from the statistics of its features.

The paper's section 2, "Texture synthesis", whose statistic is the Gram matrix.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from randviz.descent.descent import Progress
from randviz.descent.schedule import Schedule
from randviz.descent.solver import Result, Solver
from randviz.networks.extractor import Extractor, as_names
from randviz.networks.gaussian import as_key, same_draws, sample_noise_image, split_key
from randviz.networks.network import IMAGENET_MEAN
from randviz.objectives.building import check_weighting, make_terms
from randviz.objectives.objective import Objective, Part, Sampler
from randviz.objectives.statistics.base import Statistic
from randviz.objectives.statistics.gram import Gram
from randviz.tasks.task import Descent, first_shape, run
from randviz.types import Image, Key, Offset, as_image

# Differs from the paper, which does not say what is subtracted. Centred input: bright input beside
# the zero padding marks the border, and then the Gram matrices remember the source's layout. A
# small noise leaves large dark blobs (BUILD_NOTES.md).
INPUT_OFFSET = IMAGENET_MEAN
NOISE_STD = 30 / 255
LAYERS = ("conv1_1", "conv2_1", "conv3_1", "conv4_1")


@struct.dataclass
class Texture:
    """What is minimized to synthesize a texture: Σ_l μ E(x, x0, l).

    Attributes:
      layers: whose statistics are matched; static.
      statistic: of the features; the Gram matrix in the paper.
      shape: (H, W) of the image that will descend, the texture's own by default; only the speed
        depends on it; static.
      weighting: of the layers: "gradient", the paper's μ; or "none"; static.
      gradient_reduction: of eq. 8, see `layer_weights`; static.
      input_offset: for a network that leaves it open; static.
      wrap: pixels by which the image that descends, not the texture, is continued periodically on
        each side, see `Objective`; static.
    """

    layers: tuple[str, ...] = struct.field(pytree_node=False, default=LAYERS)
    statistic: Statistic = Gram()
    shape: tuple[int, ...] | None = struct.field(pytree_node=False, default=None)
    weighting: str = struct.field(pytree_node=False, default="gradient")
    gradient_reduction: str = struct.field(pytree_node=False, default="mean_abs")
    input_offset: Offset = struct.field(pytree_node=False, default=INPUT_OFFSET)
    wrap: int = struct.field(pytree_node=False, default=0)

    def __post_init__(self):
        object.__setattr__(self, "layers", as_names(self.layers))

    def of(self, extractor: Extractor, image: Image, *, key: Key | None = None) -> Objective:
        """Makes the objective that this texture minimizes.

        Args:
          extractor: whose features are compared.
          image: [H, W, 3], RGB in [0, 1].
          key: of the statistic's random parts, if it has any.

        Returns:
          A callable pytree, image of any size → scalar.

        Raises:
          UserError: for an unknown layer or weighting, or an image that does not reach a layer.

        References:
          He, Wang, Hopcroft (2016), eq. 5, 6 and 8.
        """
        check_weighting(self.weighting)
        task = dataclasses.replace(self, layers=extractor.canonical_names(self.layers))
        return _make(task, extractor, as_image(image), key)


@jax.jit
def _make(task: Texture, extractor: Extractor, image: Image, key: Key | None) -> Objective:
    extractor = extractor.with_offset(task.input_offset)
    shape = task.shape or image.shape[:2]
    extractor = extractor.prepare(task.layers, shape, rescale=task.weighting != "none")
    terms = make_terms(
        extractor,
        [image],
        task.layers,
        task.statistic,
        weighting=task.weighting,
        gradient_reduction=task.gradient_reduction,
        key=key,
    )
    origin = None
    if task.wrap and key is not None:
        with same_draws():
            origin = jax.random.uniform(jax.random.fold_in(key, len(terms)), (2,), jnp.float32)
    return Objective(extractor, {"style": Part(jnp.float32(1), terms)}, task.wrap, origin)


def synthesize(
    key: Key,
    extractor: Extractor | Sampler,
    image: Image,
    *,
    shape: tuple[int, ...] | None = None,
    num_steps: int = 2000,
    solver: Solver | str | None = None,
    schedule: Schedule | None = None,
    redraw: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> Result:
    """Makes an image with a texture's statistics, starting from white noise.

    Args:
      key: of the noise and of everything else that is random.
      extractor: whose features are compared; or what weights are drawn from anew at each step.
      image: [h0, w0, 3], the texture, RGB in [0, 1].
      shape: (H, W) of the result, the texture's own by default.
      num_steps: T.
      solver: a value or a name; by default jaxopt's L-BFGS, or the averaged Adam where something
        is redrawn.
      schedule: sizes and steps from coarse to fine, in place of `num_steps`.
      redraw: whether random parts of the statistic are drawn anew at each step.
      progress: called with an `Iterate` some twenty times at each size; see `show_progress`.
      options: fields of `Texture`.

    Returns:
      image: [H, W, 3], not clipped; trace: [T] each.

    Raises:
      UserError: for an unknown layer, weighting or solver, an array that is no image, or an image
        that does not reach a layer.

    References:
      He, Wang, Hopcroft (2016), section 2, "Texture synthesis".
      Differs: the input offset (the ImageNet mean unless the network has one) and the noise
      (mid-grey, thirty grey levels) are not stated in the paper.
    """
    noise_key, draw_key = split_key(as_key(key))
    image = as_image(image)
    shape = image.shape[:2] if shape is None else (int(shape[0]), int(shape[1]))
    start = sample_noise_image(noise_key, first_shape(shape, schedule), std=NOISE_STD)
    # The shape in full size serves all sizes: only the speed depends on it.
    task = dataclasses.replace(Texture(**options), shape=shape)
    descent = Descent(task, extractor, (image,), draw_key, redraw)
    return run(descent, start, shape, num_steps, solver, schedule, progress)
