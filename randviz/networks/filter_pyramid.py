"""Random filters on several octaves of an image: the shallowest random network.

Each octave is the image at half the size of the one before, and has filters of its own. All filters
have the same window, 7×7 pixels, and each a Gaussian envelope of a width of its own, so that single
pixels, small and large patches are all looked at. Nothing is padded: features are those of whole
patches.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax

from randviz.networks.conv import convolve
from randviz.networks.extractor import IMAGE_LAYER, Extractor
from randviz.networks.gaussian import as_key, split_key
from randviz.types import Array, Features, Image, Key, UserError


@struct.dataclass
class FilterPyramid(Extractor):
    """Filters on each octave of an image; layers `octave1`, `octave2`, ..., and `image`.

    Attributes:
      kernels: [S, s, s, 3, C], of S octaves.
      shifts: [S, 2], int32, in pixels: where the blocks that are averaged into a pixel of octave i
        begin, from 0 to 2^i - 1.
    """

    kernels: Array
    shifts: Array

    name = "filter_pyramid"

    @property
    def layer_names(self) -> tuple[str, ...]:
        octaves = range(1, self.kernels.shape[0] + 1)
        return (IMAGE_LAYER, *(f"octave{number}" for number in octaves))

    def reduce_mask(self, mask: Array, layer: str) -> Array:
        """See `Extractor.reduce_mask`; what the mask is in the middle of each patch."""
        if layer == IMAGE_LAYER:
            return mask
        octave = self.layer_names.index(layer) - 1
        reduced = _reduce(mask[..., None], 2**octave, self.shifts[octave])[..., 0]
        size = self.kernels.shape[1]
        height, width = (side - size + 1 for side in reduced.shape)
        return lax.dynamic_slice(reduced, (size // 2, size // 2), (height, width))

    def check_image(self, shape: tuple[int, ...], layer: str) -> None:
        """See `Extractor.check_image`."""
        super().check_image(shape, layer)
        if layer == IMAGE_LAYER:
            return
        octave = self.layer_names.index(layer)
        # The shift may take all but one pixel of a block.
        smallest = (self.kernels.shape[1] + 1) * 2 ** (octave - 1) - 1
        if min(shape[:2]) < smallest:
            raise UserError(
                f"an image of {shape[1]}×{shape[0]} pixels is smaller than a filter of {layer},"
                f" {smallest}×{smallest}; take a larger one."
            )

    def compute(self, image: Image, layers: tuple[str, ...]) -> Features:
        """See `Extractor.compute`; [h - s + 1, w - s + 1, C] of an octave of h × w pixels."""
        found = {IMAGE_LAYER: image}
        for octave, (kernel, shift) in enumerate(zip(self.kernels, self.shifts, strict=True)):
            layer = self.layer_names[1 + octave]
            if layer in layers:
                reduced = _reduce(image, 2**octave, shift)
                found[layer] = convolve(reduced, kernel, padding=0)
        return found


def _reduce(image: Array, factor: int, shift: Array) -> Array:
    """Averages blocks of factor × factor pixels, from `shift` on; a rest is left out."""
    if factor == 1:
        return image
    height, width = ((side - factor + 1) // factor for side in image.shape[:2])
    channels = image.shape[2]
    part = lax.dynamic_slice(image, (*shift, 0), (height * factor, width * factor, channels))
    return part.reshape(height, factor, width, factor, channels).mean((1, 3))


@struct.dataclass
class RandomPyramid:
    """What a `FilterPyramid` is drawn from.

    The filters of an octave are orthonormal before their envelopes narrow them, and their widths
    are stratified, so that few of them stand for all.

    Attributes:
      narrowest, widest: standard deviations of the envelopes are log-uniform between these, in
        pixels of the octave.
      num_octaves, num_filters, size: S, C and s; static.
    """

    narrowest: float | Array = 0.3
    widest: float | Array = 6.0
    num_octaves: int = struct.field(pytree_node=False, default=2)
    num_filters: int = struct.field(pytree_node=False, default=16)
    size: int = struct.field(pytree_node=False, default=7)

    def sample(self, key: Key) -> FilterPyramid:
        """Draws the filters, of norm 1 each, and the blocks' places.

        Args:
          key: consumed.
        """
        filter_key, shift_key = split_key(as_key(key))
        keys = split_key(filter_key, self.num_octaves)
        kernels = jnp.stack([self._draw(octave_key) for octave_key in keys])
        factors = 2 ** jnp.arange(self.num_octaves, dtype=jnp.int32)[:, None]
        # By default in JAX; the other setting would draw other numbers from the same key.
        with jax.threefry_partitionable(True):
            shape = (self.num_octaves, 2)
            shifts = jax.random.randint(shift_key, shape, 0, factors, jnp.int32)
        return FilterPyramid(kernels, shifts)

    def _draw(self, key: Key) -> Array:
        direction_key, order_key, width_key = split_key(key, 3)
        with jax.threefry_partitionable(True):
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
