"""Coarse to fine: sizes, steps, shapes, and the verbs through several scales."""

import jax
import numpy as np
import pytest
from mixing import MIXING

import randviz as rv
from randviz.descent.schedule import minimize_coarse_to_fine, resize, scale_shape, share_steps
from randviz.types import UserError


def test_sizes_are_a_geometric_series():
    assert rv.plan_schedule(256, 290, min_size=128).sizes == (128, 181, 256)
    assert rv.plan_schedule(256, 290, num_scales=3).sizes == (128, 181, 256)
    assert rv.plan_schedule(256, 290, min_size=32, num_scales=4).sizes == (32, 64, 128, 256)
    assert rv.plan_schedule(256, 290) == rv.Schedule((256,), (290,))
    assert rv.plan_schedule(256, 290, min_size=256) == rv.Schedule((256,), (290,))
    # However near, a smaller first size is one; and sizes that round to the same are one.
    assert rv.plan_schedule(256, 290, min_size=250).sizes == (250, 256)
    assert rv.plan_schedule(4, 30, min_size=3, num_scales=9).sizes == (3, 4)
    assert rv.plan_schedule(4, 30, num_scales=10**9).sizes == (1, 2, 3, 4)


@pytest.mark.parametrize("num_steps", [0, 1, 7, 290])
def test_steps_are_divided_in_proportion_to_one_over_the_size(num_steps):
    sizes = (32, 45, 64, 91, 128)
    steps = share_steps(num_steps, [1 / size for size in sizes])
    assert sum(steps) == num_steps and min(steps) >= 0
    shares = num_steps / np.array(sizes) / np.sum(1 / np.array(sizes))
    assert np.all(np.abs(np.array(steps) - shares) <= 1)
    assert rv.Schedule(sizes, steps).num_steps == num_steps


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: rv.Schedule((), ()), "given do not grow"),
        (lambda: rv.Schedule((16, 8), (1, 1)), "16,8 do not grow"),
        (lambda: rv.Schedule((8, 8), (1, 1)), "8,8 do not grow"),
        (lambda: rv.Schedule((0, 8), (1, 1)), "0,8 do not grow"),
        (lambda: rv.Schedule((8, 16), (1,)), "one number of steps"),
        (lambda: rv.Schedule((8, 16), (1, -1)), "at least 0"),
        (lambda: rv.plan_schedule(16, 5, min_size=17), "17 is not between 1 and the size 16"),
        (lambda: rv.plan_schedule(16, 5, num_scales=0), "0 scales"),
    ],
)
def test_schedules_that_are_none_are_refused(make, said):
    with pytest.raises(UserError, match=said):
        make()


@pytest.mark.parametrize("shape", [(12, 16), (1, 50), (301, 7)])
def test_shapes_keep_their_aspect(shape):
    longest = max(shape)
    schedule = rv.plan_schedule(longest, 10, num_scales=3)
    shapes = schedule.shapes((*shape, 3))
    assert shapes[-1] == shape
    for size, (height, width) in zip(schedule.sizes, shapes, strict=True):
        assert max(height, width) == size
        for side, full in ((height, shape[0]), (width, shape[1])):
            assert side == max(1, round(full * size / longest))
    assert scale_shape((3, 100), 0.01) == (1, 1)


def test_images_and_masks_are_resized(image):
    flat = np.full((12, 16, 3), 0.3, np.float32)
    for shape in ((6, 8), (24, 32), (9, 5)):
        np.testing.assert_allclose(resize(flat, shape), 0.3, rtol=1e-5)
        assert resize(image, shape).shape == (*shape, 3)
    mask = np.float32(np.arange(16) < 8) * np.ones((12, 1), np.float32)
    for shape in ((6, 8), (24, 32)):
        found = resize(mask, shape)
        assert found.shape == shape and found.min() >= 0 and found.max() < 1 + 1e-6
        np.testing.assert_allclose(found.mean(), 0.5, rtol=1e-5)
    assert resize(image, (12, 16)) is image


def test_each_scale_begins_where_the_one_before_ended(image):
    # A bowl around a picture at each size; one step of it does not arrive.
    targets = [resize(image, shape) for shape in ((6, 8), (12, 16))]
    makes = []

    def make_objective(scale):
        makes.append(scale)
        return jax.tree_util.Partial(_bowl, targets[scale])

    start = np.full((3, 4, 3), 0.5, np.float32)
    schedule = rv.Schedule((8, 16), (2, 1))
    result = minimize_coarse_to_fine(make_objective, start, (12, 16), schedule)
    assert makes == [0, 1]
    first = rv.minimize(make_objective(0), resize(start, (6, 8)), num_steps=2)
    second = rv.minimize(make_objective(1), resize(first.image, (12, 16)), num_steps=1)
    np.testing.assert_array_equal(result.image, second.image)
    np.testing.assert_array_equal(result.trace.loss[:2], first.trace.loss)
    assert result.trace.loss.shape == (3,)


@pytest.mark.parametrize("shape", [(15, 20), (7, 31)])
def test_an_image_that_repeats_is_resized_as_its_repetition(image, shape):
    repeated = resize(jax.numpy.tile(image, (3, 3, 1)), (3 * shape[0], 3 * shape[1]))
    expected = repeated[shape[0] : -shape[0], shape[1] : -shape[1]]
    found = resize(image, shape, periodic=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found - resize(image, shape)).max() > 0.01


@jax.jit
def _bowl(target, image):
    return jax.numpy.sum(jax.numpy.square(image - target))


def test_the_verbs_go_from_coarse_to_fine(image, other_image):
    key, network = jax.random.key(0), MIXING
    schedule = rv.Schedule((8, 16), (3, 2))
    left = np.float32(np.arange(16) < 8) * np.ones((12, 1), np.float32)
    results = [
        rv.synthesize(
            key, network, image[:10], layers="first", shape=(12, 16), schedule=schedule,
            statistic=rv.SlicedWasserstein(num_directions=3), redraw=True,
        ),
        rv.transfer(
            key, network, image, [image, other_image], style_masks=[left, 1 - left],
            content_layers="first", style_layers="first", schedule=schedule, solver="adam",
        ),
    ]  # fmt: skip
    for result in results:
        assert result.image.shape == (12, 16, 3) and result.trace.loss.shape == (5,)
        assert np.isfinite(result.image).all()
    # Nothing is redrawn in the second.
    assert float(result.trace.loss[1]) < float(result.trace.loss[0])
