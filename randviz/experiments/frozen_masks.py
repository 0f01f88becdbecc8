"""A ReLU network whose masks are those of one picture: linear, and equal to the network there."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from randviz.networks.layers import Conv, Layer, Scope
from randviz.networks.network import BoundNetwork, Network, features
from randviz.networks.rescaling import rescale_weights
from randviz.types import Array, Image, Params


@dataclasses.dataclass(frozen=True)
class Mask(Layer):
    """Multiplies features by a mask of their shape, [h, w, C], which is the layer's kernel."""

    has_weights = True
    # Rescaled as a kernel, it would no longer be of zeros and ones.
    rescalable = False

    def apply(self, x: Array, scope: Scope) -> Array:
        mask, _, _ = scope.read(self.name, x.shape)
        return x * mask


def find_convolutions(network: Network, last_layer: str) -> tuple[str, ...]:
    """Names of the convolutions down to a layer, in forward order."""
    return tuple(layer.name for layer in network.up_to(last_layer) if isinstance(layer, Conv))


def freeze_masks(extractor: BoundNetwork, image: Image, last_layer: str) -> BoundNetwork:
    """Makes the linear network that a ReLU network is around one picture.

    A ReLU multiplies each feature by a mask, 1 where it is above 0 and 0 elsewhere. Here the masks
    are the picture's whatever the input, so features are affine in the image. At the picture
    features and their gradients are the ReLU network's; up to powers of two, see `rescale_weights`.

    Args:
      extractor: with activation "relu" and an input offset, convolutions and pooling in a row.
      image: [H, W, 3], the picture.
      last_layer: the deepest layer wanted.

    Returns:
      A network for images of the picture's size only, with a layer more after each convolution,
      whose weight is the mask.
    """
    network = extractor.network
    params, _ = rescale_weights(network, extractor.params, last_layer)
    maps = _activate(network, params, image, find_convolutions(network, last_layer))
    masks = {
        f"{name}_mask": {
            "kernel": (x > 0).astype(jnp.float32),
            "bias": jnp.zeros(x.shape[-1], jnp.float32),
        }
        for name, x in maps.items()
    }
    layers: list[Layer] = []
    for layer in network.up_to(last_layer):
        layers += [layer, Mask(f"{layer.name}_mask")] if layer.name in maps else [layer]
    frozen = dataclasses.replace(network, layers=tuple(layers), activation="none")
    return frozen.bind({**params, **masks})


@functools.partial(jax.jit, static_argnames=("network", "layers"))
def _activate(network: Network, params: Params, image: Image, layers: tuple[str, ...]):
    return features(network.for_one_evaluation(), params, image, layers)


def measure_flips(
    extractor: BoundNetwork, image: Image, other: Image, last_layer: str
) -> dict[str, float]:
    """How many ReLUs are on for one image and off for another.

    Args:
      extractor: a ReLU network with its weights.
      image, other: [H, W, 3] each.
      last_layer: the deepest layer looked at.

    Returns:
      {layer: share of its features, from 0 to 1}, of each convolution.
    """
    network = extractor.network
    # At small weights deep features are below what float32 can tell from zero.
    params, _ = rescale_weights(network, extractor.params, last_layer)
    layers = find_convolutions(network, last_layer)
    maps = [_activate(network, params, x, layers) for x in (image, other)]
    return {
        layer: float(np.mean((np.asarray(maps[0][layer]) > 0) != (np.asarray(maps[1][layer]) > 0)))
        for layer in layers
    }
