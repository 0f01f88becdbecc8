"""A small classification task made of the sample pictures, and training on it.

A class is a picture. Its crops are grey, turned or mirrored, all of one brightness and contrast;
those to test on come from a part of the pictures that no crop to train on touches. What tells the
classes apart is the texture and the shapes in 24 pixels.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import skimage.color

from randviz.networks.modules import ModuleNetwork
from randviz.networks.network import Network
from randviz.types import Array, Key, UserError

CROP_SIZE = 24  # pixels a side
# Of a picture's width, from the left: what is trained on, and where what is tested on begins.
_TRAIN_SHARE, _TEST_START = 0.6, 0.65
_MEAN, _DEVIATION = 0.5, 0.2  # of every crop's pixels
_LEAST_DEVIATION = 0.03  # a crop that varies less, as of the sky, is not taken
_MOST_TRIES = 200  # to find one that varies
BATCH_SIZE = 64
# What suits one architecture lets another diverge, or hardly begin.
LEARNING_RATES = (5e-4, 2e-3)


class Crops(NamedTuple):
    """Pictures with their classes.

    Attributes:
      images: [N, 24, 24], grey in [0, 1].
      labels: [N], which picture each is of.
    """

    images: np.ndarray
    labels: np.ndarray


def make_crops(pictures: Sequence[np.ndarray], count: int, *, test: bool, seed: int = 0) -> Crops:
    """Cuts crops out of pictures, as many out of each.

    Args:
      pictures: [H, W, 3] each, RGB in [0, 1], at least 96 pixels a side.
      count: crops of each picture.
      test: whether they come from the right 35 % of the pictures, not from the left 60 %.
      seed: of places and turns.

    Returns:
      The crops, those of one picture together.

    Raises:
      UserError: for a picture with a part that is smaller than a crop.
    """
    rng = np.random.default_rng((seed, int(test)))
    images, labels = [], []
    for label, picture in enumerate(pictures):
        grey = skimage.color.rgb2gray(np.asarray(picture, float))
        width = grey.shape[1]
        part = grey[:, int(_TEST_START * width) :] if test else grey[:, : int(_TRAIN_SHARE * width)]
        if min(part.shape) < CROP_SIZE:
            raise UserError(
                f"picture {label + 1} has {grey.shape[1]}×{grey.shape[0]} pixels, too few for crops"
                f" of {CROP_SIZE} in its right third; leave it out."
            )
        images += [_cut_crop(rng, part) for _ in range(count)]
        labels += [label] * count
    return Crops(np.stack(images).astype(np.float32), np.array(labels, np.int32))


def _cut_crop(rng: np.random.Generator, part: np.ndarray) -> np.ndarray:
    """[24, 24], standardised; the one that varies most of many, if none varies enough."""
    best = None
    for _ in range(_MOST_TRIES):
        y, x = (rng.integers(side - CROP_SIZE + 1) for side in part.shape)
        found = part[y : y + CROP_SIZE, x : x + CROP_SIZE]
        if best is None or found.std() > best.std():
            best = found
        if best.std() >= _LEAST_DEVIATION:
            break
    crop = np.rot90(best, rng.integers(4))
    crop = crop[:, ::-1] if rng.integers(2) else crop
    crop = _MEAN + _DEVIATION * (crop - crop.mean()) / max(crop.std(), 1e-6)
    return np.clip(crop, 0, 1)


class _Task(NamedTuple):
    """What is trained; static under `jit`.

    Attributes:
      network: the architecture; None for the pixels themselves.
      layer: whose features are averaged over positions and classified linearly.
      num_classes: K.
      num_steps: T.
    """

    network: Network | ModuleNetwork | None
    layer: str
    num_classes: int
    num_steps: int


def train_classifier(
    key: Key,
    network: Network | ModuleNetwork | None,
    params: Any,
    layer: str,
    train: Crops,
    test: Crops,
    *,
    num_steps: int,
) -> dict[str, float]:
    """Trains a network and a linear classifier of its features' means together.

    Adam, batches of 64, a learning rate that rises in the first twentieth of the steps and then
    falls to 0 along a cosine; once with each of `LEARNING_RATES`, of which the one with the lower
    loss in training counts: the same for every architecture.

    Args:
      key: of the classifier and of the batches; consumed.
      network: the architecture, as `prepare_network` makes it; None classifies pixels linearly.
      params: its weights to begin with.
      layer: whose features are averaged.
      train, test: crops, of the same classes.
      num_steps: T.

    Returns:
      accuracy and train_accuracy, shares in [0, 1] of the crops tested on and of those trained on;
      train_loss, the mean cross-entropy of the last twentieth of the steps; learning_rate, the
      one that counts.
    """
    task = _Task(network, layer, int(train.labels.max()) + 1, num_steps)
    found = [_train(key, task, params, rate, train, test) for rate in LEARNING_RATES]
    # A loss that is not a number is the worst.
    return min(found, key=lambda one: (math.isnan(one["train_loss"]), one["train_loss"]))


def _train(
    key: Key, task: _Task, params: Any, learning_rate: float, train: Crops, test: Crops
) -> dict[str, float]:
    """As `train_classifier`, with one learning rate."""
    images, labels = jnp.asarray(train.images), jnp.asarray(train.labels)
    weights_key, batch_key = jax.random.split(key)
    size = _average(task, params, images[:1]).shape[1]
    kernel = jax.random.normal(weights_key, (size, task.num_classes)) / np.sqrt(size)
    weights = (params, kernel, jnp.zeros(task.num_classes))
    state = (weights, _make_optimizer(task).init(weights))
    losses = []
    for step in range(task.num_steps):
        step_key = jax.random.fold_in(batch_key, step)
        state, loss = _train_step(task, state, step_key, learning_rate, images, labels)
        losses.append(loss)
    return {
        "accuracy": _measure_accuracy(task, state[0], test),
        "train_accuracy": _measure_accuracy(task, state[0], train),
        "train_loss": float(jnp.mean(jnp.stack(losses[-max(task.num_steps // 20, 1) :]))),
        "learning_rate": learning_rate,
    }


def _make_optimizer(task: _Task) -> optax.GradientTransformation:
    """Adam at a learning rate of 1 at most; steps are multiplied by the true one."""
    warm_up = max(task.num_steps // 20, 1)
    last = max(task.num_steps, warm_up + 1)
    return optax.adam(optax.warmup_cosine_decay_schedule(0.0, 1.0, warm_up, last))


def as_input(images: Array) -> Array:
    """Grey crops [N, 24, 24] as [N, 24, 24, 3]."""
    return jnp.broadcast_to(images[..., None], (*images.shape, 3))


def prepare_network(network: Network | ModuleNetwork) -> Network | ModuleNetwork:
    """The network as it is trained: fed numbers of mean 0 and variance 1, and drawn as He et al.

    A module of the user's own is fed the crops in [0, 1], and drawn as it likes.
    """
    if not isinstance(network, Network):
        return network
    return dataclasses.replace(
        network,
        input_offset=255 * _MEAN,
        input_scale=1 / (255 * _DEVIATION),
        initialization="he",
    )


def _average(task: _Task, params: Any, images: Array) -> Array:
    """[N, C], means over positions of the features, or the pixels: [N, 576]."""
    if task.network is None:
        return (images.reshape(len(images), -1) - _MEAN) / _DEVIATION
    bind, layer = task.network.bind, task.layer
    measure = lambda image: jnp.mean(bind(params).compute(image, (layer,))[layer], (0, 1))
    return jax.vmap(measure)(as_input(images))


def _classify(task: _Task, weights: Any, images: Array) -> Array:
    params, kernel, bias = weights
    return _average(task, params, images) @ kernel + bias


@functools.partial(jax.jit, static_argnums=0)
def _train_step(
    task: _Task, state: Any, key: Key, learning_rate: float, images: Array, labels: Array
) -> tuple[Any, Array]:
    chosen_key, mirror_key = jax.random.split(key)
    chosen = jax.random.randint(chosen_key, (BATCH_SIZE,), 0, len(images))
    batch = images[chosen]
    mirrored = jax.random.bernoulli(mirror_key, shape=(BATCH_SIZE, 1, 1))
    batch = jnp.where(mirrored, batch[:, :, ::-1], batch)

    def measure_loss(weights):
        scores = _classify(task, weights, batch)
        losses = optax.softmax_cross_entropy_with_integer_labels(scores, labels[chosen])
        return jnp.mean(losses)

    weights, moments = state
    loss, gradient = jax.value_and_grad(measure_loss)(weights)
    updates, moments = _make_optimizer(task).update(gradient, moments)
    updates = jax.tree.map(lambda update: learning_rate * update, updates)
    return (optax.apply_updates(weights, updates), moments), loss


@functools.partial(jax.jit, static_argnums=0)
def _count_right(task: _Task, weights: Any, images: Array, labels: Array) -> Array:
    return jnp.sum(jnp.argmax(_classify(task, weights, images), 1) == labels)


def _measure_accuracy(task: _Task, weights: Any, crops: Crops) -> float:
    right, size = 0, 4 * BATCH_SIZE
    for first in range(0, len(crops.labels), size):
        part = slice(first, first + size)
        right += int(_count_right(task, weights, crops.images[part], crops.labels[part]))
    return right / len(crops.labels)
