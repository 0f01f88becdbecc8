"""The solvers against scipy and a dense BFGS matrix; chunks, counts, and things gone wrong."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from jax.tree_util import Partial

import randviz as rv
from benchmarks import solvers
from randviz.descent import descent
from randviz.host.images import load_image
from randviz.networks.gaussian import sample_noise_image
from randviz.types import UserError

SOLVERS = descent.SOLVERS
LBFGS = ("jaxopt", "optax")


@pytest.fixture(scope="module")
def problems(tiny, params, image):
    noise = sample_noise_image(jax.random.key(1), (12, 16), std=0.1)
    return {
        "inversion": (rv.Inversion(layer="conv2_1").of(tiny.bind(params), image), noise),
        "texture": (
            rv.Texture(layers=("conv1_1", "conv2_1")).of(tiny.bind(params), image),
            noise,
        ),
    }


def make_picture_problem(name, seed):
    """A problem of the kind that users have, small: real pictures and a real VGG-19."""
    if name != "style":
        settings = solvers.Settings(image_size=32, layer="conv3_1", seed=seed)
        make_objective, start = solvers.make_problem(settings, name)
        return make_objective(), start
    params = rv.random_weights(jax.random.key(seed), rv.VGG19, last_layer="conv3_1")
    photo, painting = (jnp.asarray(load_image(x, image_size=32)) for x in ("chelsea", "coffee"))
    layers = ("conv1_1", "conv2_1", "conv3_1")  # conv5_1, as by default, takes a minute
    return rv.Style(style_layers=layers).of(rv.VGG19.bind(params), photo, painting), photo


@pytest.mark.slow
@pytest.mark.parametrize("name", solvers.PROBLEMS)
def test_loss_is_no_worse_than_scipys_and_evaluations_are_few(name):
    # Two descents of one problem part by some per cent either way as rounding accumulates, so it
    # is the geometric mean over three networks that must be within ten.
    ratios, evaluations = [], []
    for seed in range(3):
        objective, start = make_picture_problem(name, seed)
        result = rv.minimize(objective, start, num_steps=100)
        reference = solvers.descend_with_scipy(objective, start, 100)
        ratios.append(float(result.trace.loss[-1]) / reference[-1])
        evaluations.append(float(result.trace.evaluations.sum()) / 100)
    assert np.exp(np.mean(np.log(ratios))) <= 1.1, ratios
    assert np.mean(evaluations) <= 1.25, evaluations


@pytest.mark.parametrize("solver", SOLVERS)
def test_evaluations_are_those_that_happen(problems, solver):
    objective, start = problems["texture"]
    counted = solvers.Counted(objective)
    state = rv.init(counted, start, solver=solver)
    jax.block_until_ready(state)
    jax.effects_barrier()
    solvers.evaluations.clear()
    state, trace = rv.advance(counted, state, num_steps=25, solver=solver)
    jax.block_until_ready(state)
    jax.effects_barrier()
    assert len(solvers.evaluations) == int(trace.evaluations.sum()) >= 25


def test_directions_are_those_of_the_dense_bfgs_matrix():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(6, 6))
    hessian = jnp.asarray(root @ root.T + np.eye(6), jnp.float32)
    quadratic = Partial(lambda matrix, x: x.ravel() @ matrix @ x.ravel() / 2, hessian)
    start = jnp.asarray(rng.normal(size=(1, 2, 3)), jnp.float32)
    images = [start]
    state = rv.init(quadratic, start)
    steps = []
    for _ in range(5):
        state, trace = rv.advance(quadratic, state, num_steps=1)
        images.append(state.image)
        steps.append(float(trace.step_size[0]))
    points = [np.asarray(x, np.float64).ravel() for x in images]
    gradients = [np.asarray(hessian, np.float64) @ x for x in points]
    for k in range(1, 5):
        s = [points[i + 1] - points[i] for i in range(k)]
        y = [gradients[i + 1] - gradients[i] for i in range(k)]
        inverse = np.eye(6) * (s[-1] @ y[-1]) / (y[-1] @ y[-1])  # Nocedal and Wright, eq. 7.20
        for si, yi in zip(s, y, strict=True):
            rho = 1 / (yi @ si)
            left = np.eye(6) - rho * np.outer(si, yi)
            inverse = left @ inverse @ left.T + rho * np.outer(si, si)  # eq. 6.17
        expected = -steps[k] * inverse @ gradients[k]
        np.testing.assert_allclose(points[k + 1] - points[k], expected, rtol=5e-3, atol=2e-4)


@pytest.mark.parametrize("solver", SOLVERS)
def test_two_chunks_are_one_bit_for_bit(problems, solver):
    objective, start = problems["texture"]
    state = rv.init(objective, start, solver=solver)
    whole, trace = rv.advance(objective, state, num_steps=70, solver=solver)
    parts = []
    for count in (1, 30, 39):
        state, part = rv.advance(objective, state, num_steps=count, solver=solver)
        parts.append(part)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(a, b)
    joined = jax.tree.map(lambda *rows: jnp.concatenate(rows), *parts)
    for a, b in zip(trace, joined, strict=True):
        np.testing.assert_array_equal(a, b)


def test_state_is_arrays_only(problems):
    objective, start = problems["inversion"]
    for solver in SOLVERS:
        state = rv.init(objective, start, solver=solver)
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))


def test_vmap_over_starts_equals_a_loop(problems):
    objective, _ = problems["texture"]
    starts = jax.random.uniform(jax.random.key(8), (3, 12, 16, 3))
    run = lambda start: rv.minimize(objective, start, num_steps=20)
    together = jax.vmap(run)(starts)
    for i in range(3):
        alone = run(starts[i])
        np.testing.assert_allclose(together.trace.loss[i], alone.trace.loss, rtol=0.02)
        assert together.trace.evaluations.shape == (3, 20)


def test_another_objective_of_the_same_kind_does_not_retrace(tiny, params, image, other_image):
    traces = []

    @struct.dataclass
    class Watched:
        target: jax.Array

        def __call__(self, x):
            traces.append(1)
            return jnp.sum(jnp.square(x - self.target))

    for target, count in ((image, 3), (other_image, 7), (image, 64)):
        state = rv.init(Watched(target), jnp.zeros_like(image))
        rv.advance(Watched(target), state, num_steps=count)
        if len(traces) and count == 3:
            first = len(traces)
    assert len(traces) == first


@pytest.mark.parametrize("factor", [1e-12, 1e15])
def test_a_scaled_objective_takes_the_same_path(problems, factor):
    # An absolute tolerance anywhere would stop the one or the other.
    objective, start = problems["inversion"]
    scaled = Partial(lambda inner, x: factor * inner(x), objective)
    plain = rv.minimize(objective, start, num_steps=30)
    other = rv.minimize(scaled, start, num_steps=30)
    np.testing.assert_allclose(other.trace.loss / factor, plain.trace.loss, rtol=0.05)
    assert not other.trace.failed.any()


def test_first_step_moves_a_pixel_by_about_a_grey_level():
    target = jax.random.uniform(jax.random.key(0), (12, 16, 3))
    bowl = Partial(lambda t, x: 1e-9 * jnp.sum(jnp.square(x - t)), target)
    state = rv.init(bowl, jnp.full_like(target, 0.5))
    state, trace = rv.advance(bowl, state, num_steps=1)
    moved = float(jnp.mean(jnp.abs(state.image - 0.5))) * 255 / float(trace.step_size[0])
    assert moved == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("solver", SOLVERS)
def test_values_that_are_not_finite_leave_the_last_good_image(solver):
    # Fine above one half, nowhere finite below; all solvers want to go below.
    cliff = Partial(lambda x: jnp.where(jnp.min(x) > 0.5, jnp.sum(x), jnp.nan))
    start = jnp.full((4, 5, 3), 0.9)
    result = rv.minimize(cliff, start, num_steps=60, solver=solver)
    assert np.isfinite(result.image).all()
    assert np.isfinite(result.trace.loss).all()
    assert float(cliff(result.image)) <= float(cliff(start))


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_step_that_leads_nowhere_finite_is_reported(solver):
    start = jnp.full((4, 5, 3), 0.9)
    needle = Partial(lambda s, x: jnp.where(jnp.all(x == s), jnp.sum(x), jnp.nan), start)
    result = rv.minimize(needle, start, num_steps=6, solver=solver)
    # Adam's first step looks at the start, where all is well, and leads on.
    first = int("adam" in solver)
    assert result.trace.failed[first:].all() and not result.trace.failed[:first].any()
    assert not result.trace.step_size[first:].any()
    np.testing.assert_array_equal(result.image, start)
    np.testing.assert_allclose(result.trace.loss, float(jnp.sum(start)), rtol=1e-6)


def test_a_start_that_is_not_finite_is_reported_at_every_step():
    broken = Partial(lambda x: jnp.sum(x) * jnp.nan)
    result = rv.minimize(broken, jnp.full((4, 5, 3), 0.5), num_steps=5)
    assert result.trace.failed.all()
    np.testing.assert_array_equal(result.image, jnp.full((4, 5, 3), 0.5))


def test_at_the_bottom_nothing_more_is_evaluated():
    bowl = Partial(lambda x: jnp.sum(jnp.square(x - 0.25)))
    result = rv.minimize(bowl, jnp.full((4, 5, 3), 0.25), num_steps=10)
    assert result.trace.failed.all()
    assert int(result.trace.evaluations.sum()) == 0
    np.testing.assert_array_equal(result.image, jnp.full((4, 5, 3), 0.25))


@pytest.mark.parametrize("solver", ["optax", "adam", "averaged_adam"])
def test_the_other_solvers_descend_too(problems, solver):
    objective, start = problems["inversion"]
    result = rv.minimize(objective, start, num_steps=60, solver=solver)
    assert float(objective(result.image)) < 0.05 * float(objective(start))


def test_a_negative_number_of_steps_is_refused_and_none_is_none(problems):
    objective, start = problems["inversion"]
    with pytest.raises(UserError, match="-5"):
        rv.minimize(objective, start, num_steps=-5)
    result = rv.minimize(objective, start, num_steps=0)
    assert result.trace.loss.shape == (0,)
    np.testing.assert_array_equal(result.image, start)


def test_unknown_solver_is_refused(problems):
    objective, start = problems["inversion"]
    with pytest.raises(UserError, match=r"newton.*jaxopt"):
        rv.minimize(objective, start, num_steps=1, solver="newton")


def test_iterates_are_those_of_one_descent(problems):
    objective, start = problems["inversion"]
    seen = list(rv.iterate(objective, start, num_steps=7, every=3))
    assert [iterate.step for iterate in seen] == [3, 6, 7]
    whole = rv.minimize(objective, start, num_steps=7)
    np.testing.assert_array_equal(seen[-1].image, whole.image)
    for iterate in seen:
        assert iterate.loss == whole.trace.loss[iterate.step - 1]
    assert list(rv.iterate(objective, start, num_steps=0)) == []
    with pytest.raises(UserError, match="every is 0"):
        next(rv.iterate(objective, start, num_steps=3, every=0))


def test_a_solver_is_a_value_or_a_name(problems):
    assert descent.find_solver("jaxopt", memory=7) == rv.JaxoptLbfgs(memory=7)
    assert descent.find_solver("adam", memory=7) == rv.Adam()
    assert descent.find_solver(rv.OptaxLbfgs(memory=3)) == rv.OptaxLbfgs(memory=3)
    objective, start = problems["inversion"]
    state = rv.init(objective, start, solver=rv.JaxoptLbfgs(memory=3))
    assert state.inner.s_history.shape == (3, *start.shape)


def test_jaxopts_internals_have_not_moved():
    """What `_Lbfgs` overrides and `JaxoptLbfgs` reads is no promise of jaxopt's."""
    import inspect

    import jaxopt

    from randviz.descent import lbfgs

    bowl = lambda image, objective: jnp.sum(image**2)
    solver = jaxopt.LBFGS(fun=bowl, history_size=2, linesearch_init="current")
    # The search that is replaced, called with these arguments and read by these names.
    assert callable(solver.run_ls) and callable(solver._value_and_grad_fun)
    source = inspect.getsource(jaxopt.LBFGS.update)
    assert "self.run_ls(" in source
    call = source.split("self.run_ls(")[1].split(")\n")[0]
    parameters = list(inspect.signature(lbfgs._Lbfgs._search).parameters)[1:]
    for name in parameters[2:]:
        assert f"{name}=" in call, name
    assert {*re.findall(r"ls_state\.(\w+)", source)} <= {*lbfgs._Found._fields}
    fields = set(solver.init_state(jnp.ones((1, 2, 3)), None)._fields)
    assert fields >= {
        "iter_num", "value", "grad", "stepsize", "error", "s_history", "y_history", "rho_history",
        "gamma", "failed_linesearch", "num_grad_eval",
    }  # fmt: skip
    # And the replacement is what runs.
    searched = []

    class Watched(lbfgs._Lbfgs):
        def _search(self, *arguments, **options):
            searched.append(options.keys())
            return super()._search(*arguments, **options)

    own = Watched(fun=bowl, history_size=2, linesearch_init="current", implicit_diff=False)
    own.update(jnp.ones((1, 2, 3)), own.init_state(jnp.ones((1, 2, 3)), None), None)
    assert searched
