"""Many networks: pictures rebuilt through each of them, on as many devices as there are.

A network and a starting noise are numbers. Network n has the key `fold_in(weights_key, n)` and
noise m the key `fold_in(noise_key, m)`, so what is measured depends neither on how many there are
nor on their order: three hundred networks contain the first 256. Every noise meets every network,
so that the variance can be split between the two.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from randviz.descent.descent import minimize
from randviz.networks.extractor import Extractor
from randviz.networks.gaussian import sample_noise_image
from randviz.networks.network import Network
from randviz.networks.random_network import RandomNetwork
from randviz.objectives.objective import Term
from randviz.search.intervals import estimate
from randviz.search.selection import select_weights
from randviz.tasks.inversion import NOISE_STD, Inversion
from randviz.types import Array, Image, Key, Params

AXIS = "networks"  # of the mesh of devices
_EACH_ITS_OWN, _ALL_THE_SAME = PartitionSpec(AXIS), PartitionSpec()


class Kind(Protocol):
    """A pytree that draws weights from a network's key: `RandomNetwork`, and those below."""

    def draw(self, key: Key) -> Params:
        """Draws them."""
        ...


@struct.dataclass
class StackedNetwork(RandomNetwork):
    """ranVGG: of several draws of each layer, the one that reconstructs a reference image best.

    Attributes:
      reference: [H, W, 3], the image that the layers are selected on.
      num_candidates, num_steps: of the selection, as in `selection.select_weights`; static.
    """

    reference: Image = struct.field(kw_only=True)
    num_candidates: int = struct.field(pytree_node=False, kw_only=True)
    num_steps: int = struct.field(pytree_node=False, kw_only=True)

    def draw(self, key: Key) -> Params:
        return select_weights(
            key,
            self.network,
            self.reference,
            num_candidates=self.num_candidates,
            num_steps=self.num_steps,
            last_layer=self.last_layer,
            scale=self.scale,
            bias_scale=self.bias_scale,
        ).params


@struct.dataclass
class GivenNetwork:
    """A network whose weights are there already, trained or chosen: the same under every key.

    Attributes:
      params: its weights, down to the deepest layer wanted.
    """

    params: Params

    def draw(self, key: Key) -> Params:
        return self.params


class Reconstruction(NamedTuple):
    """Where one descent ended.

    Attributes:
      image: [H, W, 3], not clipped.
      feature_error: ‖F(x) - F(x0)‖ / ‖F(x0)‖.
      evaluations: int32, how often value and gradient were computed.
      failed_steps: int32, how many steps made no progress.
    """

    image: Image
    feature_error: Array
    evaluations: Array
    failed_steps: Array


def reconstruct(
    key: Key, extractor: Extractor, image: Image, *, layer: str, num_steps: int
) -> Reconstruction:
    """Rebuilds an image from its features in one layer and says how well they are matched.

    Args:
      key: of the noise that the descent starts from.
      extractor: whose features are matched.
      image: [H, W, 3], RGB in [0, 1].
      layer: of the features.
      num_steps: T.

    Returns:
      The end of the descent.

    Raises:
      UserError: for an unknown layer, or an image that does not reach it.
    """
    objective = Inversion(layer).of(extractor, image)
    start = sample_noise_image(key, image.shape[:2], std=NOISE_STD)
    found, trace = minimize(objective, start, num_steps=num_steps)
    # With the objective's rescaled weights, so that the squares of small features do not vanish.
    (term,) = objective.parts["content"].terms
    assert isinstance(term, Term)
    matched = objective.extractor(found, term.layer)[term.layer]
    error = jnp.linalg.norm(matched - term.target)
    return Reconstruction(
        image=found,
        feature_error=error / jnp.linalg.norm(term.target),
        evaluations=jnp.sum(trace.evaluations),
        failed_steps=jnp.sum(trace.failed),
    )


@functools.partial(jax.jit, static_argnames=("mesh",))
def make_networks(weights_key: Key, kind: Kind, which: Array, *, mesh: Mesh) -> Params:
    """Makes the weights of several networks, each on the device that will use them.

    Args:
      weights_key: of all networks; network n is made from `fold_in(weights_key, n)`.
      kind: draws them from a network's key.
      which: [N], int32, the networks' numbers; N is a multiple of the number of devices.
      mesh: the devices, one axis called `AXIS`.

    Returns:
      The weights, [N, ...] each, N divided among the devices.

    Raises:
      UserError: as the kind does.
    """

    def make(weights_key, kind, which):
        return lax.map(lambda n: kind.draw(jax.random.fold_in(weights_key, n)), which)

    specs = (_ALL_THE_SAME, _ALL_THE_SAME, _EACH_ITS_OWN)
    return _shard(make, mesh, specs)(weights_key, kind, which)


@functools.partial(jax.jit, static_argnames=("network", "layer", "num_steps", "mesh"))
def reconstruct_through(
    noise_key: Key,
    network: Network,
    params: Params,
    image: Image,
    *,
    noises: Array,
    layer: str,
    num_steps: int,
    mesh: Mesh,
) -> Reconstruction:
    """Rebuilds an image through each of several networks.

    Args:
      noise_key: of all noises; noise m is drawn from `fold_in(noise_key, m)`.
      network: the architecture.
      params: [N, ...] each, from `make_networks`.
      image: [H, W, 3], RGB in [0, 1].
      noises: [N], int32, the number m of the noise that each descent starts from.
      layer: whose features are matched.
      num_steps: T.
      mesh: the devices, one axis called `AXIS`.

    Returns:
      The ends of the descents, [N, ...] each, N divided among the devices. The bits are the same
      for any number of devices, as long as each has the same number of networks in a call.

    Raises:
      UserError: for an unknown layer, or an image that does not reach it.
    """

    def work(key, noises, params, image):
        # One after another: a device is filled by one descent on a picture of useful size, and
        # under vmap all would wait for the longest line search.
        def each(own):
            noise, params = own
            return reconstruct(
                jax.random.fold_in(key, noise),
                network.bind(params),
                image,
                layer=layer,
                num_steps=num_steps,
            )

        return lax.map(each, (noises, params))

    specs = (_ALL_THE_SAME, _EACH_ITS_OWN, _EACH_ITS_OWN, _ALL_THE_SAME)
    return _shard(work, mesh, specs)(noise_key, noises, params, image)


def _shard(function, mesh: Mesh, specs):
    """The function on every device's own share, without communication between devices."""
    # The checker of what differs between devices needs a rule from every primitive
    # of our own (conv.py), and there is nothing for it to find.
    return jax.shard_map(
        function, mesh=mesh, in_specs=specs, out_specs=_EACH_ITS_OWN, check_vma=False
    )


def summarize(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Describes the distances of a population, for each kind of weights, image and layer.

    Args:
      records: with the measures "distance", "psnr", "ssim" and "feature_error", the last three
        None where there is none; and a "trial" with "weights" (the kind), "network", "noise",
        "image" and "layer". In each group every noise has met every network.

    Returns:
      One dictionary for each group, in the order in which they first appear: "weights", "image",
      "layer", what `describe` says of the distances, and the medians of the other measures.
    """
    groups: dict[tuple[Any, ...], dict[Any, Any]] = {}
    names = ("weights", "image", "layer")
    for record in records:
        trial = record["trial"]
        group = groups.setdefault(tuple(trial[name] for name in names), {})
        group[trial["network"], trial["noise"]] = record
    return [
        {
            **dict(zip(names, values, strict=True)),
            **describe(_tabulate(group)),
            **{
                f"median_{measure}": _median([record.get(measure) for record in group.values()])
                for measure in ("psnr", "ssim", "feature_error")
            },
        }
        for values, group in groups.items()
    ]


def _tabulate(group) -> np.ndarray:
    networks, noises = (sorted(set(numbers)) for numbers in zip(*group, strict=True))
    return np.array([[group[n, m]["distance"] for m in noises] for n in networks])


def _median(values) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def describe(table: np.ndarray) -> dict[str, Any]:
    """Describes the numbers of a crossed table.

    Args:
      table: [networks, noises].

    Returns:
      num_networks, num_noises; mean, median, min, max, lower_quartile, upper_quartile, and the
      sample standard deviation std (None for a single number); mean_interval, the mean's 95 %
      interval over networks and noises, [low, high] (None for a single number, see
      `intervals.estimate`); variance, see `split_variance`.
    """
    mean = estimate(table)
    lower, upper = np.quantile(table, (0.25, 0.75))
    return {
        "num_networks": table.shape[0],
        "num_noises": table.shape[1],
        "mean": mean.value,
        "median": float(np.median(table)),
        "min": float(np.min(table)),
        "max": float(np.max(table)),
        "lower_quartile": float(lower),
        "upper_quartile": float(upper),
        "std": float(np.std(table, ddof=1)) if table.size > 1 else None,
        "mean_interval": [mean.low, mean.high] if mean.n > 1 else None,
        "variance": split_variance(table),
    }


def split_variance(table: np.ndarray) -> dict[str, float] | None:
    """Splits the variance of a crossed table between its rows and its columns.

    The model is y[n, m] = mean + weights[n] + noise[m] + both[n, m], all random and independent.
    With one number for each pair, what is particular to the pair and what is mere error are one.

    Args:
      table: [networks, noises].

    Returns:
      The variances of "weights", "noise" and "both", by the method of moments: each mean square is
      set equal to its expectation. An estimate below zero is put at zero. None where there is one
      network or one noise only.

    Example:
      >>> split_variance(np.array([[1.0, 1.0], [3.0, 3.0]]))
      {'weights': 2.0, 'noise': 0.0, 'both': 0.0}

    References:
      Searle, Casella, McCulloch, Variance Components (1992), chapter 4.
    """
    networks, noises = table.shape
    if min(networks, noises) < 2:
        return None
    centred = table - table.mean()
    of_network, of_noise = centred.mean(1), centred.mean(0)
    rest = centred - of_network[:, None] - of_noise
    mean_square_rest = np.sum(rest**2) / ((networks - 1) * (noises - 1))
    mean_square_weights = noises * np.sum(of_network**2) / (networks - 1)
    mean_square_noise = networks * np.sum(of_noise**2) / (noises - 1)
    return {
        "weights": max(float(mean_square_weights - mean_square_rest) / noises, 0.0),
        "noise": max(float(mean_square_noise - mean_square_rest) / networks, 0.0),
        "both": float(mean_square_rest),
    }
