"""What the three tasks share in making their objectives."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from randviz.networks.extractor import Extractor
from randviz.networks.gaussian import same_draws, split_key
from randviz.objectives.layer_weights import layer_weights
from randviz.objectives.objective import Term
from randviz.objectives.statistics.base import Statistic, blend_linearly
from randviz.types import Array, Image, Key, UserError

WEIGHTINGS = ("gradient", "none")
# Added to masks, because a small region may have no position of a layer, and a mean needs some.
_LEAST_MASK = 1e-6


def check_weighting(weighting: str, known: Sequence[str] = WEIGHTINGS) -> None:
    """Raises UserError if there is no such way to weight layers."""
    if weighting not in known:
        raise UserError(f"weighting {weighting!r} is unknown; use {' or '.join(known)}.")


def make_terms(
    extractor: Extractor,
    images: Sequence[Image],
    layers: Sequence[str],
    statistic: Statistic,
    *,
    blend_weights: Array | None = None,
    weighting: str = "gradient",
    gradient_reduction: str = "mean_abs",
    mask: Image | None = None,
    key: Key | None = None,
) -> tuple[Term, ...]:
    """Makes the terms that images, blended, are the targets of.

    Args:
      extractor: whose features are compared.
      images: [H, W, 3] each, of any sizes; S of them.
      layers: canonical names.
      statistic: what is compared; its random parts are drawn for each layer.
      blend_weights: [S], summing to 1; None for a single image.
      weighting: of the layers: "gradient" for `layer_weights`, "none" for 1.
      gradient_reduction: see `layer_weights`.
      mask: [H, W], where the descending image is compared; None for everywhere.
      key: of the statistic's random parts.

    Returns:
      One term for each layer.

    Raises:
      UserError: as `layer_weights` and `Statistic.sample`.
    """
    once = extractor.for_one_evaluation()
    keys = [None] * len(layers) if key is None else split_key(key, len(layers))
    statistics = {
        layer: _draw(statistic, layer_key, once, images, layer)
        for layer, layer_key in zip(layers, keys, strict=True)
    }
    weights: Mapping[str, Array] = {layer: jnp.float32(1) for layer in layers}
    if weighting == "gradient":
        found = [
            layer_weights(extractor, image, statistics, gradient_reduction=gradient_reduction)
            for image in images
        ]
        weights = blend_linearly(found, blend_weights)
    masks = {
        layer: None if mask is None else extractor.reduce_mask(mask, layer) + _LEAST_MASK
        for layer in layers
    }
    wanted = [
        (layer, statistics[layer], masks[layer] if statistic.keeps_positions else None)
        for layer in layers
    ]
    values = [once.measure(image, wanted) for image in images]
    return tuple(
        Term(
            weights[layer],
            statistics[layer],
            statistics[layer].blend(each, blend_weights),
            masks[layer],
            layer,
        )
        for layer, *each in zip(layers, *values, strict=True)
    )


def _draw(
    statistic: Statistic,
    key: Key | None,
    extractor: Extractor,
    images: Sequence[Image],
    layer: str,
) -> Statistic:
    """Draws the random parts of a layer's statistic."""
    if not statistic.is_random:
        return statistic
    num_channels = extractor.feature_shape(images[0].shape, layer)[2]
    count = statistic.count_samples(num_channels)
    with same_draws():
        if not count or key is None:
            return statistic.sample(key, num_channels)
        place_key, choice_key, statistic_key = split_key(key, 3)
        keys = split_key(place_key, len(images))
        samples = jnp.stack(
            [
                extractor.sample_features(image_key, image, layer, count)
                for image_key, image in zip(keys, images, strict=True)
            ]
        )
        chosen = 0
        if len(images) > 1:
            chosen = jax.random.randint(choice_key, (count,), 0, len(images), jnp.int32)
        samples = samples[chosen, jnp.arange(count)]
        return statistic.sample(statistic_key, num_channels, samples)
