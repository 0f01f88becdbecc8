"""Random filters on several octaves of an image: the shallowest random network.

Each octave is the image at half the size of the one before, and has filters of its own. All filters
have the same window, 7×7 pixels, and each a Gaussian envelope of a width of its own, so that single
pixels, small and large patches are all looked at. Nothing is padded: features are those of whole
patches.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from randviz.networks.conv import convolve
from randviz.networks.extractor import IMAGE_LAYER, Extractor, cut
from randviz.networks.gaussian import as_key, same_draws, split_key
from randviz.types import Array, Features, Image, Key, UserError


@struct.dataclass
class FilterPyramid(Extractor):
    """Filters on each octave of an image; layers `octave1`, `octave2`, ..., and `image`.

    Attributes:
      kernels: [S, s, s, 3, C], of S octaves.
      shifts: [S, 2], int32, in pixels: where the blocks that are averaged into a pixel of octave i
        begin, from 0 to 2^i - 1.
      most_features: how many numbers of a layer are kept at once by `measure`; static.
      mesh: devices that share the rows of an image in `measure`; None for one device; static.
    """

    kernels: Array
    shifts: Array
    most_features: int = struct.field(pytree_node=False, default=2**25)
    mesh: Mesh | None = struct.field(pytree_node=False, default=None)

    name = "filter_pyramid"

    @property
    def layer_names(self) -> tuple[str, ...]:
        octaves = range(1, self.kernels.shape[0] + 1)
        return (IMAGE_LAYER, *(f"octave{number}" for number in octaves))

    def reduce_mask(self, mask: Array, layer: str) -> Array:
        """See `Extractor.reduce_mask`; what the mask is in the middle of each patch."""
        if layer == IMAGE_LAYER:
            return mask
        reduced = self._look(mask[..., None], layer)[0][..., 0]
        size = self.kernels.shape[1]
        height, width = (side - size + 1 for side in reduced.shape)
        return lax.dynamic_slice(reduced, (size // 2, size // 2), (height, width))

    def check_image(self, shape: tuple[int, ...], layer: str) -> None:
        super().check_image(shape, layer)
        if layer == IMAGE_LAYER:
            return
        smallest = smallest_side(self.kernels.shape[1], self.layer_names.index(layer))
        if min(shape[:2]) < smallest:
            raise UserError(
                f"an image of {shape[1]}×{shape[0]} pixels is smaller than a filter of {layer},"
                f" {smallest}×{smallest}; take a larger one."
            )

    def compute(self, image: Image, layers: tuple[str, ...]) -> Features:
        """See `Extractor.compute`; [h - s + 1, w - s + 1, C] of an octave of h × w pixels."""
        return {
            layer: image if layer == IMAGE_LAYER else convolve(*self._look(image, layer), padding=0)
            for layer in layers
        }

    def sample_features(self, key: Key, image: Image, layer: str, count: int) -> Array:
        """See `Extractor.sample_features`; nothing but these patches is looked at."""
        if layer == IMAGE_LAYER:
            return super().sample_features(key, image, layer, count)
        self.check_image(image.shape, layer)
        reduced, kernel = self._look(image, layer)
        size = kernel.shape[0]
        limits = [side - size + 1 for side in reduced.shape[:2]]
        places = jax.random.randint(key, (count, 2), 0, jnp.array(limits), jnp.int32)
        patches = jax.vmap(lambda place: cut(reduced, place, (size, size)))(places)
        return jnp.tensordot(patches, kernel, 3)

    def measure(self, image: Image, wanted: Sequence[tuple[str, Any, Array | None]]) -> list[Any]:
        """See `Extractor.measure`; means of many features are accumulated in bands of rows.

        A band's features are computed once more for the gradient, so that no more than a band's are
        ever kept. With several devices each has its share of the bands.
        """
        counts = [
            self._count_bands(image.shape, layer, statistic) for layer, statistic, _ in wanted
        ]
        each = list(zip(wanted, counts, strict=True))
        # Together, so that terms of one layer share its features.
        whole = iter(super().measure(image, [one for one, count in each if count == 1]))
        return [
            next(whole) if count == 1 else self._accumulate(image, *one, count)
            for one, count in each
        ]

    def _count_bands(self, shape: tuple[int, ...], layer: str, statistic: Any) -> int:
        if layer == IMAGE_LAYER or not statistic.is_additive:
            return 1
        self.check_image(shape, layer)
        height, width, channels = self.feature_shape(shape, layer)
        num_bands = -(-height * width * channels // self.most_features)
        return min(height, max(num_bands, self._num_devices))

    @property
    def _num_devices(self) -> int:
        return 1 if self.mesh is None else self.mesh.size

    def _accumulate(self, image, layer, statistic, mask, num_bands):
        reduced, kernel = self._look(image, layer)
        size = kernel.shape[0]
        height, width = reduced.shape[0] - size + 1, reduced.shape[1] - size + 1
        rows = -(-height // num_bands)
        # As many for each device; those beyond the last row count nothing.
        num_bands = -(-height // (rows * self._num_devices)) * self._num_devices
        mask = jnp.ones((height, width), reduced.dtype) if mask is None else mask

        @jax.checkpoint
        def measure_band(first, reduced, kernel, mask, statistic):
            # A last band begins earlier, and rows that were counted before do not count.
            begin = jnp.minimum(first, height - rows)
            part = lax.dynamic_slice_in_dim(reduced, begin, rows + size - 1)
            fresh = begin + jnp.arange(rows) >= first
            weights = lax.dynamic_slice_in_dim(mask, begin, rows) * fresh[:, None]
            total = jnp.sum(weights)
            # Where nothing counts, anything may be measured.
            weights = jnp.where(total > 0, weights, 1.0)
            value = statistic.measure(convolve(part, kernel, padding=0), weights)
            return value, total

        def sum_bands(firsts, *arguments):
            values, totals = lax.map(lambda first: measure_band(first, *arguments), firsts)
            shares = totals / jnp.sum(arguments[2])
            return jax.tree.map(lambda leaf: jnp.tensordot(shares, leaf, 1), values)

        arguments = (rows * jnp.arange(num_bands), reduced, kernel, mask, statistic)
        if self.mesh is None:
            return sum_bands(*arguments)
        (axis,) = self.mesh.axis_names
        whole = PartitionSpec()
        return jax.shard_map(
            lambda *arguments: lax.psum(sum_bands(*arguments), axis),
            mesh=self.mesh,
            in_specs=(PartitionSpec(axis), whole, whole, whole, whole),
            out_specs=whole,
        )(*arguments)

    def _look(self, image: Array, layer: str) -> tuple[Array, Array]:
        """The image at an octave's size, and the octave's filters."""
        octave = self.layer_names.index(layer) - 1
        return _reduce(image, 2**octave, self.shifts[octave]), self.kernels[octave]


def smallest_side(size: int, octave: int) -> int:
    """How many pixels high and wide an image is at least, for an octave to have a patch.

    Args:
      size: s, of the filters' window.
      octave: from 1.
    """
    # The shift may take all but one pixel of a block.
    return (size + 1) * 2 ** (octave - 1) - 1


def _reduce(image: Array, factor: int, shift: Array) -> Array:
    """Averages blocks of factor × factor pixels, from `shift` on; a rest is left out."""
    if factor == 1:
        return image
    height, width = ((side - factor + 1) // factor for side in image.shape[:2])
    part = cut(image, shift, (height * factor, width * factor))
    return part.reshape(height, factor, width, factor, image.shape[2]).mean((1, 3))


@struct.dataclass
class RandomPyramid:
    """What a `FilterPyramid` is drawn from.

    The filters of an octave are orthonormal before their envelopes narrow them, and their widths
    are stratified, so that few of them stand for all.

    Attributes:
      narrowest, widest: standard deviations of the envelopes are log-uniform between these, in
        pixels of the octave.
      num_octaves, num_filters, size: S, C and s; static.
      mesh: of the `FilterPyramid`; static.
    """

    narrowest: float | Array = 0.3
    widest: float | Array = 6.0
    num_octaves: int = struct.field(pytree_node=False, default=2)
    num_filters: int = struct.field(pytree_node=False, default=16)
    size: int = struct.field(pytree_node=False, default=7)
    mesh: Mesh | None = struct.field(pytree_node=False, default=None)

    def __post_init__(self) -> None:
        if self.num_filters > 3 * self.size**2:
            raise UserError(
                f"num_filters={self.num_filters} directions are not at right angles in patches of"
                f" {self.size}×{self.size} pixels; take at most {3 * self.size**2}."
            )

    def sample(self, key: Key) -> FilterPyramid:
        """Draws the filters, of norm 1 each, and the blocks' places.

        Args:
          key: consumed.
        """
        filter_key, shift_key = split_key(as_key(key))
        keys = split_key(filter_key, self.num_octaves)
        # One draw of all octaves makes half the program that one after another would.
        kernels = jax.vmap(self._draw)(keys)
        factors = 2 ** jnp.arange(self.num_octaves, dtype=jnp.int32)[:, None]
        with same_draws():
            shape = (self.num_octaves, 2)
            shifts = jax.random.randint(shift_key, shape, 0, factors, jnp.int32)
        return FilterPyramid(kernels, shifts, mesh=self.mesh)

    def _draw(self, key: Key) -> Array:
        direction_key, order_key, width_key = split_key(key, 3)
        with same_draws():
            shape = (self.size**2 * 3, self.num_filters)
            gaussians = jax.random.normal(direction_key, shape, jnp.float32)
            strata = jax.random.permutation(order_key, self.num_filters)
            jitter = jax.random.uniform(width_key, (self.num_filters,), jnp.float32)
        directions, _ = jnp.linalg.qr(gaussians)
        levels = (strata + jitter) / self.num_filters
        widths = self.narrowest * (self.widest / self.narrowest) ** levels
        places = jnp.arange(self.size, dtype=jnp.float32) - self.size // 2
        profiles = jnp.exp(-jnp.square(places[:, None] / widths) / 2)
        envelopes = profiles[:, None, None] * profiles[None, :, None]
        filters = directions.reshape(self.size, self.size, 3, -1) * envelopes
        return filters / jnp.sqrt(jnp.sum(jnp.square(filters), (0, 1, 2)))
