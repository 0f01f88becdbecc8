"""An extractor that is little to compile, for tests of what does not depend on the network."""

import jax
import numpy as np
from flax import struct

import randviz as rv


@struct.dataclass
class Mixing(rv.Extractor):
    """Mixes colours, and does so again.

    Attributes:
      mixture: [3, 6].
    """

    name = "mixing"
    layer_names = ("first", "second")
    mixture: jax.Array

    def compute(self, image, layers):
        first = jax.nn.relu(image @ self.mixture)
        return {"first": first, "second": first @ self.mixture.T}


@struct.dataclass
class RandomMixing:
    """A `Mixing` still to be drawn."""

    def sample(self, key):
        return Mixing(jax.random.normal(key, (3, 6), "float32"))


MIXING = Mixing(np.random.default_rng(6).normal(size=(3, 6)).astype(np.float32))
