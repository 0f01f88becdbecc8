"""Objectives: what a descent minimizes, as a sum of terms on one extractor.

An objective is a pytree that is called on an image and returns a scalar. One whose weights or
directions are drawn anew at each step is called on the step's number first.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import struct

from randviz.networks.conv import pad_sides
from randviz.networks.extractor import Extractor
from randviz.networks.gaussian import split_key
from randviz.objectives.regularizers import Regularizer
from randviz.objectives.statistics.base import Statistic
from randviz.types import Array, Image, Key


@struct.dataclass
class Term:
    """One layer's distance from a target: weight × distance(statistic(features), target).

    Attributes:
      weight: scalar, ω or μ or 1.
      statistic: what is compared, and how.
      target: its value at the source.
      mask: [h, w] of the layer, or None.
      layer: static.
    """

    weight: Array
    statistic: Statistic
    target: Any
    mask: Array | None
    layer: str = struct.field(pytree_node=False)

    def __call__(self, value: Any) -> Array:
        return self.weight * self.statistic.compare(value, self.target)


@struct.dataclass
class Part:
    """Terms that count together.

    Attributes:
      weight: scalar: α of the content, β of the style, γ of the total variation.
      terms: summed up.
    """

    weight: Array
    terms: tuple[Term | Regularizer, ...]


@struct.dataclass
class Objective:
    """A sum of weighted parts.

    Attributes:
      extractor: whose features are compared.
      parts: {name: Part}; names are "content", "style", "tv" and "alpha_norm".
      wrap: pixels of the image that are repeated beyond its opposite side before its features are
        computed, so that it has no edge; static.
      origin: [2], in [0, 1) of the image's height and width, by which such an image is rolled
        before; drawn anew at each step, it lets all places count alike, although those that are
        repeated count twice. None for 0.
    """

    extractor: Extractor
    parts: Mapping[str, Part]
    wrap: int = struct.field(pytree_node=False, default=0)
    origin: Array | None = None

    def losses(self, image: Image) -> dict[str, Array]:
        """Computes each part of the objective.

        Args:
          image: [H, W, 3].

        Returns:
          {name: scalar}, weights included.
        """
        of_features = [term for term in self.terms() if isinstance(term, Term)]
        wanted = [(term.layer, term.statistic, term.mask) for term in of_features]
        # In the order of the terms; those of the image alone look at the image.
        values = iter(self.extractor.measure(self._continue(image), wanted))
        return {
            name: part.weight
            * sum(term(next(values) if isinstance(term, Term) else image) for term in part.terms)
            for name, part in self.parts.items()
        }

    def _continue(self, image: Image) -> Image:
        """Rolls the image and wraps it around."""
        if self.origin is not None:
            shift = self.origin * jnp.array(image.shape[:2], jnp.float32)
            # Without the barrier XLA:CPU rolls again for each window of the convolutions.
            rolled = jnp.roll(image, shift.astype(jnp.int32), (0, 1))
            image = jax.lax.optimization_barrier(rolled)
        if self.wrap:
            image = pad_sides(image, self.wrap, "wrap")
        return image

    def __call__(self, image: Image) -> Array:
        return jnp.asarray(sum(self.losses(image).values()))

    def terms(self) -> list[Term | Regularizer]:
        """All terms of all parts."""
        return [term for part in self.parts.values() for term in part.terms]

    def layer_weights(self) -> dict[str, dict[str, Array]]:
        """Collects the weights of the terms that look at features.

        Returns:
          {part: {layer: weight}}, summed where a layer has several terms.
        """
        found: dict[str, dict[str, Array]] = {}
        for name, part in self.parts.items():
            for term in part.terms:
                if isinstance(term, Term):
                    of_part = found.setdefault(name, {})
                    of_part[term.layer] = of_part.get(term.layer, 0) + term.weight
        return found

    def for_one_evaluation(self) -> "Objective":
        return dataclasses.replace(self, extractor=self.extractor.for_one_evaluation())


def find_non_finite(objective: Callable[[Image], Array], image: Image) -> str:
    """Says which term is not finite at an image, or has a gradient that is not.

    Args:
      objective: an `Objective`; of other callables nothing is known.
      image: [H, W, 3].

    Returns:
      Such as "the style term of layer 'conv3_1' is inf"; "" if no single term is to blame.
    """
    if not isinstance(objective, Objective):
        return ""
    measure = jax.jit(lambda alone, image: jax.value_and_grad(lambda x: alone(x))(image))
    for name, part in objective.parts.items():
        for term in part.terms:
            alone = dataclasses.replace(
                objective, parts={name: dataclasses.replace(part, terms=(term,))}
            )
            value, gradient = measure(alone, image)
            said = f"the {name} term"
            if isinstance(term, Term):
                said += f" of layer {term.layer!r}"
            if not jnp.isfinite(value):
                return f"{said} is {value}"
            if not jnp.isfinite(jnp.linalg.norm(gradient)):
                return f"the gradient of {said} is not finite"
    return ""


class Sampler(Protocol):
    """A pytree that draws an extractor from a key."""

    def sample(self, key: Key) -> Extractor:
        """Draws one."""
        ...


class Task(Protocol):
    """A pytree that makes an objective: `Inversion`, `Texture`, `Style`."""

    @property
    def of(self) -> Callable[..., Objective]:
        """Makes it of an extractor, images, and a key of random parts."""
        ...


@struct.dataclass
class Redrawn:
    """An objective that is drawn anew at each step, so that what descends is its expectation.

    The draw of a step depends on the key and the step's number alone, so a descent that is stopped
    and gone on with is the same descent.

    Attributes:
      key: of all draws.
      source: what weights are drawn from at each step, or an extractor that stays.
      task: makes the objective.
      arguments: the task's images.
    """

    key: Key
    source: Sampler | Extractor
    task: Task
    arguments: tuple[Any, ...]

    def at(self, step: int | Array) -> Objective:
        """The objective of one step.

        Args:
          step: its number, from 0.
        """
        extractor, statistic_key = self._draw(step)
        return self.task.of(extractor, *self.arguments, key=statistic_key)

    def extractor_at(self, step: int | Array) -> Extractor:
        """The extractor of one step, as it is drawn.

        Args:
          step: its number, from 0.
        """
        return self._draw(step)[0]

    def _draw(self, step: int | Array) -> tuple[Extractor, Key]:
        network_key, statistic_key = split_key(jax.random.fold_in(self.key, step))
        extractor = self.source
        if not isinstance(extractor, Extractor):
            extractor = extractor.sample(network_key)
        return extractor, statistic_key

    def __call__(self, image: Image) -> Array:
        return self.at(0)(image)


def objective_at(
    objective: Callable[[Image], Array], step: int | Array
) -> Callable[[Image], Array]:
    """The objective of one step: drawn for it if it is redrawn, itself otherwise."""
    draw = getattr(objective, "at", None)
    return objective if draw is None else draw(step)
