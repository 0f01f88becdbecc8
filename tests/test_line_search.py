"""The line search: Wolfe's conditions, one evaluation where one is enough, and bad functions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from randviz.descent.line_search import search_line


def search(function, start, direction=None, first_step=1.0, **options):
    start = jnp.asarray(start, jnp.float32)
    loss, grad = jax.value_and_grad(function)(start)
    direction = -grad if direction is None else jnp.asarray(direction, jnp.float32)
    run = jax.jit(
        lambda step: search_line(
            jax.value_and_grad(function), start, loss, grad, direction, step, **options
        )
    )
    return run(jnp.float32(first_step)), loss, jnp.vdot(grad, direction)


def bowl(x):
    return jnp.sum(x**2) / 2


def valley(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def test_a_good_first_step_costs_one_evaluation():
    found, _, _ = search(bowl, [3.0, -2.0])
    assert int(found.evaluations) == 1 and not found.failed
    np.testing.assert_allclose(found.point.image, 0, atol=1e-6)


@pytest.mark.parametrize("first_step", [1e-4, 1e-2, 1.0, 30.0, 1e4])
@pytest.mark.parametrize("function", [bowl, valley, lambda x: jnp.sum(jnp.cosh(x) + jnp.abs(x))])
def test_strong_wolfe_conditions_hold_from_any_first_step(function, first_step):
    found, loss, slope = search(function, [-1.2, 1.0, 0.7], first_step=first_step)
    point = found.point
    assert not found.failed and int(found.evaluations) < 20
    assert point.loss <= loss + 1e-4 * point.step * slope
    assert abs(point.slope) <= -0.9 * slope
    # What it says of the point is true of the point.
    value, grad = jax.value_and_grad(function)(point.image)
    np.testing.assert_allclose([point.loss, *point.grad], [value, *grad], rtol=1e-5)


def test_places_without_a_finite_value_are_never_accepted():
    wall = lambda x: jnp.where(jnp.max(jnp.abs(x)) > 1.5, jnp.nan, valley(x))
    found, loss, _ = search(wall, [-1.2, 1.0], first_step=1.0)
    assert not found.failed and found.point.loss < loss
    assert np.isfinite(found.point.grad).all()


def test_an_uphill_direction_fails_and_stays():
    found, loss, _ = search(bowl, [3.0, -2.0], direction=[3.0, -2.0])
    assert found.failed and int(found.evaluations) == 0
    assert found.point.loss == loss
    np.testing.assert_array_equal(found.point.image, [3.0, -2.0])


def test_a_function_that_only_rises_fails_after_the_last_evaluation():
    # Its gradient lies: there is nothing below in the direction it promises.
    liar = jax.custom_vjp(bowl)
    liar.defvjp(lambda x: (bowl(x), x), lambda x, cotangent: (-x * cotangent,))
    found, loss, _ = search(liar, [3.0, -2.0], max_evaluations=7)
    assert int(found.evaluations) == 7
    assert found.failed or found.point.loss <= loss * (1 + 1e-6)
    np.testing.assert_allclose(found.point.image, [3.0, -2.0], rtol=1e-6)


def test_a_first_step_of_zero_asks_for_no_search():
    found, _, _ = search(bowl, [3.0, -2.0], first_step=0.0)
    assert found.failed and int(found.evaluations) == 0


def test_where_the_loss_is_flat_to_rounding_the_slope_decides():
    # The decrease is far below the rounding of the loss, so the usual condition cannot be met.
    flat = lambda x: 1e4 + bowl(x)
    found, _, _ = search(flat, [2e-3, -1e-3])
    assert not found.failed and int(found.evaluations) == 1
    np.testing.assert_allclose(found.point.image, 0, atol=1e-7)


def test_evaluations_are_counted_as_they_happen():
    count = []

    def counted(x):
        jax.debug.callback(lambda: count.append(1))
        return valley(x)

    start = jnp.asarray([-1.2, 1.0, 0.7], jnp.float32)
    loss, grad = jax.value_and_grad(valley)(start)
    found = search_line(jax.value_and_grad(counted), start, loss, grad, -grad, jnp.float32(1.0))
    jax.effects_barrier()
    assert len(count) == int(found.evaluations) > 1


def test_vmap_equals_a_loop():
    starts = jnp.asarray([[-1.2, 1.0], [0.3, 0.2], [2.0, -1.0]], jnp.float32)

    def run(start):
        loss, grad = jax.value_and_grad(valley)(start)
        first = jnp.float32(1.0)
        return search_line(jax.value_and_grad(valley), start, loss, grad, -grad, first)

    together = jax.vmap(run)(starts)
    for i, start in enumerate(starts):
        alone = run(start)
        np.testing.assert_allclose(together.point.image[i], alone.point.image, rtol=1e-5)
        assert int(together.evaluations[i]) == int(alone.evaluations)
