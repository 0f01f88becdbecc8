"""Objectives drawn anew at each step, the Adam that descends them, and the discipline of keys."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from jax.tree_util import Partial
from mixing import MIXING, RandomMixing

import randviz as rv
from randviz.networks import weights
from randviz.objectives.objective import objective_at
from randviz.tasks.task import Descent
from randviz.types import UserError

DIRECTIONS = rv.SlicedWasserstein(num_directions=4)


@pytest.fixture(scope="module")
def redrawn(image):
    task = rv.Texture(layers=("first",), statistic=DIRECTIONS, weighting="none")
    return rv.Redrawn(jax.random.key(3), RandomMixing(), task, (image,))


@jax.jit
def evaluate(objective, step, image):
    return objective.at(step)(image)


def test_each_step_has_another_objective_and_always_the_same(redrawn, other_image):
    losses = [float(evaluate(redrawn, step, other_image)) for step in (0, 1, 2, 1)]
    assert len({*losses}) == 3 and losses[1] == losses[3]
    other = redrawn.replace(key=jax.random.key(4))
    assert float(evaluate(other, 0, other_image)) != losses[0]
    # A fixed objective is the same at all steps.
    assert objective_at(rv.total_variation, 3) is rv.total_variation
    objective = jax.eval_shape(objective_at, redrawn, 1)
    assert objective.parts["style"].terms[0].statistic.directions.shape == (6, 4)


@pytest.mark.parametrize("solver", [pytest.param("adam", marks=pytest.mark.slow), "averaged_adam"])
def test_two_chunks_are_one_bit_for_bit(redrawn, other_image, solver):
    state = rv.init(redrawn, other_image, num_steps=9, solver=solver)
    whole, trace = rv.advance(redrawn, state, num_steps=9, solver=solver)
    losses = []
    for count in (1, 5, 3):
        state, part = rv.advance(redrawn, state, num_steps=count, solver=solver)
        losses += [*part.loss]
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(losses, trace.loss)


def test_vmap_over_keys_equals_a_loop(redrawn, other_image):
    def run(key):
        return rv.minimize(redrawn.replace(key=key), other_image, num_steps=6, solver="adam")

    keys = jax.random.split(jax.random.key(0), 3)
    together = jax.vmap(run)(keys)
    for i in range(3):
        alone = run(keys[i])
        np.testing.assert_allclose(together.trace.loss[i], alone.trace.loss, rtol=1e-3)
        np.testing.assert_allclose(together.image[i], alone.image, atol=1e-3)
    assert len({*np.asarray(together.trace.loss[:, -1]).tolist()}) == 3


@pytest.mark.parametrize("solver", ["jaxopt", "optax"])
def test_a_line_search_is_refused_in_a_sentence(redrawn, other_image, solver):
    for call in (
        lambda: rv.init(redrawn, other_image, solver=solver),
        lambda: rv.minimize(redrawn, other_image, num_steps=2, solver=solver),
    ):
        with pytest.raises(UserError, match=r"redrawn at each step; use.*averaged_adam\.$"):
            call()


def test_the_verbs_redraw(image):
    options = {"layers": "first", "statistic": DIRECTIONS, "num_steps": 6, "weighting": "none"}
    results = [
        rv.synthesize(jax.random.key(0), source, image, redraw=redraw, **options)
        for source, redraw in ((RandomMixing(), False), (MIXING, True))
    ]
    for result in results:
        np.testing.assert_array_equal(result.trace.evaluations, 1)
        assert np.isfinite(result.image).all()


# Adam.


def simulate_adam(gradient_at, image, num_steps, learning_rate, final_rate, average):
    """Kingma and Ba's algorithm 1, a cosine and an average, in float64.

    A step looks at where it stands and leads on; where the last one leads is looked at no more.
    """
    ahead = mean = np.asarray(image, np.float64)
    first = second = np.zeros_like(ahead)
    for step in range(num_steps):
        image = ahead
        keep = average if 2 * step >= num_steps else 0.0
        mean = keep * mean + (1 - keep) * image
        gradient = gradient_at(image)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        moments = first / (1 - 0.9 ** (step + 1)), second / (1 - 0.999 ** (step + 1))
        cosine = (1 + np.cos(np.pi * step / num_steps)) / 2
        rate = learning_rate * (final_rate + (1 - final_rate) * cosine)
        ahead = image - rate * moments[0] / (np.sqrt(moments[1]) + 1e-8)
    return image, mean


@jax.jit
def skewed_bowl(target, image):
    return jnp.sum(jnp.square(image - target) * jnp.arange(1, 4, dtype=jnp.float32))


@jax.jit
def scaled_bowl(scale, target, image):
    return scale * skewed_bowl(target, image)


def test_adam_is_the_textbooks():
    rng = np.random.default_rng(0)
    start, target = (rng.uniform(size=(4, 5, 3)).astype(np.float32) for _ in range(2))
    bowl = Partial(skewed_bowl, target)
    solver = rv.Adam(learning_rate=0.05, final_rate=0.1, average=0.7)
    state = rv.init(bowl, start, num_steps=10, solver=solver)
    state, trace = rv.advance(bowl, state, num_steps=10, solver=solver)
    gradient_at = lambda image: 2 * (image - target) * np.arange(1, 4)
    last, mean = simulate_adam(gradient_at, start, 10, 0.05, 0.1, 0.7)
    np.testing.assert_allclose(state.image, last, atol=1e-5)
    np.testing.assert_allclose(solver.result(state), mean, atol=1e-5)
    rates = 0.05 * (0.1 + 0.9 * (1 + np.cos(np.pi * np.arange(10) / 10)) / 2)
    np.testing.assert_allclose(trace.step_size, rates, rtol=1e-5)
    np.testing.assert_allclose(
        trace.loss[-1], np.sum((last - target) ** 2 * np.arange(1, 4)), rtol=1e-4
    )


def test_the_result_averages_the_second_half_alone():
    # Every gradient is 1, so that every step of Adam is as long as its rate.
    slope = Partial(jax.jit(jnp.sum))
    start = np.full((4, 5, 3), 0.5, np.float32)
    solver = rv.Adam(learning_rate=0.01, average=0.9)
    places = 0.5 - 0.01 * np.arange(8)  # where each of eight steps looks
    shares = np.array([0, 0, 0, 0.9**4, 0.9**3 * 0.1, 0.9**2 * 0.1, 0.9 * 0.1, 0.1])
    found = rv.minimize(slope, start, num_steps=8, solver=solver).image
    np.testing.assert_allclose(found, shares @ places, rtol=1e-5)
    plain = rv.minimize(slope, start, num_steps=8, solver=rv.Adam(learning_rate=0.01)).image
    np.testing.assert_allclose(plain, places[-1], rtol=1e-5)


def test_steps_do_not_depend_on_the_size_of_the_gradient():
    # Means over the positions of a large picture have gradients of about 1e-8.
    rng = np.random.default_rng(0)
    start, target = (rng.uniform(size=(4, 5, 3)).astype(np.float32) for _ in range(2))
    bowls = [Partial(scaled_bowl, np.float32(scale), target) for scale in (1, 1e-9)]
    found = [rv.minimize(bowl, start, num_steps=5, solver="adam").image for bowl in bowls]
    np.testing.assert_allclose(*found, rtol=1e-5)
    assert np.median(np.abs(found[0] - start)) > 0.05


def test_without_a_plan_the_rate_does_not_decay_and_beyond_it_stays():
    slope = Partial(jax.jit(jnp.sum))
    start, solver = np.full((4, 5, 3), 0.5, np.float32), rv.Adam(final_rate=0.1)
    for planned, expected in ((0, [0.02] * 6), (2, [0.02, 0.011, *[0.002] * 4])):
        state = rv.init(slope, start, num_steps=planned, solver=solver)
        _, trace = rv.advance(slope, state, num_steps=6, solver=solver)
        np.testing.assert_allclose(trace.step_size, expected, rtol=1e-5)


# Keys.


class Spy:
    """Collects the keys that samplers consume. What `jit` would hide it sees without."""

    def __init__(self, patch):
        self.consumed = []
        for name in ("normal", "uniform", "randint", "bits", "permutation"):
            patch.setattr(jax.random, name, self.watch(getattr(jax.random, name)))
        patch.setattr(weights, "sample_gaussians", self.watch(sample_zeros))

    def watch(self, sampler):
        @functools.wraps(sampler)
        def watched(keys, *arguments, **options):
            data = np.asarray(jax.random.key_data(keys))
            self.consumed += [tuple(key.tolist()) for key in data.reshape(-1, data.shape[-1])]
            return sampler(keys, *arguments, **options)

        return watched


def sample_zeros(keys, shapes):
    return [np.zeros(shape, np.float32) for shape in shapes]


@struct.dataclass
class Watched:
    """Draws a network's weights, and puts a fixed extractor in its place, which is soon computed.

    Attributes:
      network: what draws.
    """

    network: rv.RandomNetwork

    def sample(self, key):
        self.network.sample(key)
        return MIXING


@pytest.mark.parametrize(
    "task",
    [
        rv.Texture(layers=("first", "second"), statistic=DIRECTIONS, weighting="none"),
        rv.Style(
            content_layers="first", style_layers=("first", "second"), weighting="none",
            content_statistic=rv.CosineMeans(), style_statistic=rv.ThresholdMeans(),
        ),
    ],
)  # fmt: skip
def test_no_key_is_used_twice(task, tiny, image, other_image, monkeypatch):
    images = (image,)
    if isinstance(task, rv.Style):
        left = np.float32(np.arange(16) < 8) * np.ones((12, 1), np.float32)
        images = (image, [image, other_image], [left, 1 - left])
    network = Watched(rv.RandomNetwork(network=tiny, last_layer="conv1_2"))
    descent = Descent(task, network, images, jax.random.key(1))
    spy = Spy(monkeypatch)
    with jax.disable_jit():
        # Two steps at each of two scales, whose sizes do not matter.
        for scale in (0, 1):
            objective = descent.objective(1.0, scale)
            for step in (0, 1):
                objective.at(step)
    counts = collections.Counter(spy.consumed)
    # Kernels and biases of two layers, and what the statistics draw: directions in two layers; or
    # frequencies in one, and places and widths in two layers of two style images.
    statistics = 2 if isinstance(task, rv.Texture) else 1 + 2 * 2 * 2
    assert len(spy.consumed) >= 4 * (2 * 2 + statistics)
    assert max(counts.values()) == 1
