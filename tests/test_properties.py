"""What holds for any size, any numbers and any record, tried on some that hypothesis chooses."""

import dataclasses
import functools
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mixing import MIXING

import randviz as rv
from randviz.descent import descent
from randviz.host.records import Records
from randviz.networks.weights import random_weights, weight_shapes
from randviz.objectives.statistics.catalog import STATISTICS
from randviz.search.recipe import Recipe, format_recipe, parse_recipe
from randviz.tasks.painting import plan_painting, plan_texture

# Each size is a program of its own, so there are few. The same ones each time: a test that fails
# now and then tells nobody anything.
few = settings(
    max_examples=6, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
many = settings(few, max_examples=60)
heights, widths = st.integers(1, 97), st.integers(1, 61)
seeds = st.integers(0, 2**32 - 1)
SHUFFLABLE = [name for name, known in STATISTICS.items() if not known.keeps_positions]


def draw(seed, *shape):
    return np.random.default_rng(seed).uniform(0.05, 1, shape).astype(np.float32)


@functools.cache
def tiny_network(**options):
    network = dataclasses.replace(TINY, **options)
    return network.bind(random_weights(jax.random.key(7), network, last_layer="conv2_1"))


@functools.partial(jax.jit, static_argnames="count")
def compare(statistic, maps, others, count):
    channels = maps.shape[-1]
    samples = others.reshape(-1, channels)[jnp.arange(count) % (others.size // channels)]
    statistic = statistic.sample(jax.random.key(0), channels, samples)
    target = statistic.measure(others, None)
    return statistic.compare(statistic.measure(maps, None), target)


def distance(name, maps, others):
    statistic = STATISTICS[name]
    count = statistic.count_samples(maps.shape[-1])
    return float(compare(statistic, maps, others, count))


@few
@given(height=heights, width=widths, seed=seeds)
@pytest.mark.parametrize("name", STATISTICS)
def test_distances_are_zero_at_their_target_and_nowhere_negative(name, height, width, seed):
    maps, others = draw(seed, height, width, 4), draw(seed + 1, height, width, 4)
    apart, same = distance(name, maps, others), distance(name, others, others)
    # The root of a tiny constant, where a distance is a root.
    assert same <= 2e-6
    assert apart >= same


@few
@given(height=heights, width=widths, seed=seeds)
@pytest.mark.parametrize("name", SHUFFLABLE)
def test_the_order_of_positions_does_not_matter(name, height, width, seed):
    maps, others = draw(seed, height, width, 4), draw(seed + 1, height, width, 4)
    shuffled = np.random.default_rng(seed).permutation(maps.reshape(-1, 4)).reshape(maps.shape)
    before, after = distance(name, maps, others), distance(name, shuffled, others)
    np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-6)


@few
@given(height=st.integers(2, 97), width=st.integers(2, 61), seed=seeds)
def test_an_inversion_of_any_size_is_zero_at_its_image(height, width, seed):
    image = draw(seed, height, width, 3)
    objective = rv.Inversion("conv2_1").of(tiny_network(), image)
    other = draw(seed + 1, height, width, 3)
    assert float(objective(image)) <= 1e-9 < float(objective(other))


@few
@given(
    rows=st.integers(1, 12), columns=st.integers(1, 8), seed=seeds, moves=st.tuples(seeds, seeds)
)
def test_a_tile_rolled_is_its_features_rolled(rows, columns, seed, moves):
    network = tiny_network(padding_mode="periodic")
    find = jax.jit(lambda image: network.compute(image, ("pool1",)))
    image = draw(seed, 4 * rows, 4 * columns, 3)
    down, right = moves[0] % rows, moves[1] % columns
    # pool1 has one feature for two pixels.
    before = find(image)["pool1"]
    rolled = np.roll(image, (2 * down, 2 * right), (0, 1))
    np.testing.assert_allclose(
        find(rolled)["pool1"], np.roll(before, (down, right), (0, 1)), atol=1e-5
    )


@few
@given(height=st.integers(16, 97), width=st.integers(16, 61), seed=seeds)
def test_paintings_and_textures_of_any_shape_are_planned(height, width, seed):
    photograph, painting = draw(seed, height, width, 3), draw(seed + 1, width, height, 3)
    key = jax.random.key(0)
    plans = [plan_painting(key, photograph, [painting]), plan_texture(key, painting)]
    for plan, shape in zip(plans, [(height, width), (width, height)], strict=True):
        assert plan.shape == shape
        assert plan.crop(np.zeros((*plan.canvas, 3))).shape == (*shape, 3)
        assert plan.schedule.shapes(plan.canvas)[-1] == plan.canvas


@few
@given(first=st.integers(0, 9), seed=seeds)
@pytest.mark.parametrize("solver", ["jaxopt", "averaged_adam"])
def test_two_chunks_are_one_bit_for_bit(solver, first, seed):
    objective = rv.Texture(("first", "second")).of(MIXING, draw(3, 12, 10, 3))
    start = descent.init(objective, draw(seed, 12, 10, 3), num_steps=9, solver=solver)
    whole, _ = descent.advance(objective, start, num_steps=9, solver=solver)
    half, _ = descent.advance(objective, start, num_steps=first, solver=solver)
    parts, _ = descent.advance(objective, half, num_steps=9 - first, solver=solver)
    jax.tree.map(np.testing.assert_array_equal, parts, whole)


@many
@given(
    seed=seeds,
    scale=st.floats(1e-6, 1e6),
    bias_scale=st.floats(0, 1e6),
    depth=st.integers(1, 16),
    offset=st.sampled_from([None, 0.0, 0.5, -1.25]),
    check=st.text("0123456789abcdef", min_size=16, max_size=16),
    data=st.data(),
)
def test_recipes_are_read_as_they_were_written(seed, scale, bias_scale, depth, offset, check, data):
    last_layer = list(weight_shapes(rv.VGG19, "conv5_4"))[depth - 1]
    draws = data.draw(st.lists(st.integers(0, 999), min_size=depth, max_size=depth))
    recipe = Recipe(
        *("vgg19", seed, tuple(draws), last_layer, scale, bias_scale, "avg", "zero", offset, check)
    )
    assert parse_recipe(format_recipe(recipe)) == recipe


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(few, max_examples=20)
@given(records=st.lists(st.dictionaries(st.text(), values, max_size=4), max_size=4))
def test_records_are_read_as_they_were_written(records):
    records = [{**record, "trial": {"number": n}} for n, record in enumerate(records)]
    with tempfile.TemporaryDirectory() as folder:
        kept = Records(folder, {"seed": 0})
        for record in records:
            kept.append(record)
        assert Records(folder, {"seed": 0}).records == records
