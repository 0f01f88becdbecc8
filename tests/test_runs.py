"""Long runs: stopped and resumed to the same bits, told about, and recorded."""

import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import randviz as rv
from randviz.descent import lbfgs
from randviz.host import runs
from randviz.types import UserError

NUM_STEPS = 40


@pytest.fixture(scope="module")
def problem(tiny, params, image):
    objective = rv.Texture.of(tiny, params, image, layers=("conv1_1", "conv2_1"))
    return objective, jax.random.uniform(jax.random.key(5), (12, 16, 3))


def descend(problem, folder, **options):
    objective, start = problem
    options = {"num_steps": NUM_STEPS, "metadata": {"seed": 1}, **options}
    return runs.descend(objective, start, folder=folder, **options)


def stop_at(step_wanted, number=signal.SIGINT):
    def show(step, image):
        if step == step_wanted:
            os.kill(os.getpid(), number)

    return {"show": show, "save_every": step_wanted}


@pytest.mark.parametrize("solver", lbfgs.SOLVERS)
def test_a_run_stopped_twice_ends_with_the_same_bits(problem, tmp_path, solver):
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = descend(problem, tmp_path / "whole", solver=solver)
    with pytest.raises(runs.Stopped, match="step 7 of 40"):
        descend(problem, tmp_path / "parts", solver=solver, **stop_at(7))
    with pytest.raises(runs.Stopped, match="step 22 of 40"):
        descend(problem, tmp_path / "parts", solver=solver, **stop_at(22, signal.SIGTERM))
    parts = descend(problem, tmp_path / "parts", solver=solver)
    again = descend(problem, tmp_path / "parts", solver=solver)  # finished, but not in safety yet
    runs.delete_checkpoint(tmp_path / "parts", {"seed": 1})
    np.testing.assert_array_equal(parts.image, whole.image)
    np.testing.assert_array_equal(again.image, whole.image)
    for a, b in zip(parts.trace, whole.trace, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (whole.sessions, parts.sessions) == (1, 3)
    assert list((tmp_path / "parts").iterdir()) == []


def test_other_facts_neither_resume_nor_touch_an_unfinished_run(problem, tmp_path):
    with pytest.raises(runs.Stopped):
        descend(problem, tmp_path, **stop_at(5))
    other = descend(problem, tmp_path, metadata={"seed": 2}, num_steps=6)
    assert other.sessions == 1 and other.trace.loss.shape == (6,)
    assert descend(problem, tmp_path).sessions == 2


def test_a_damaged_state_is_said_and_the_run_begins_anew(problem, tmp_path):
    with pytest.raises(runs.Stopped):
        descend(problem, tmp_path, **stop_at(5))
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.stat().st_size > 2000:
            path.write_bytes(path.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="cannot be read.*begins anew"):
        run = descend(problem, tmp_path)
    assert run.sessions == 1
    np.testing.assert_array_equal(run.image, descend(problem, tmp_path, metadata=2).image)


def test_handlers_of_signals_are_given_back(problem, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    descend(problem, tmp_path, num_steps=2)
    assert signal.getsignal(signal.SIGINT) is before


def test_pictures_on_the_way_come_at_their_steps(problem, tmp_path):
    seen = []
    run = descend(
        problem, tmp_path, save_every=15, show=lambda step, image: seen.append((step, image))
    )
    assert [step for step, _ in seen] == [15, 30]
    objective, start = problem
    expected = lbfgs.minimize(objective, start, num_steps=15)
    # `descend` computes the first evaluation another way; its rounding grows over fifteen steps.
    np.testing.assert_allclose(seen[0][1], expected.image, atol=1e-4)
    assert run.trace.loss.shape == (NUM_STEPS,) and run.trace.loss[-1] < run.trace.loss[0]


def test_progress_says_step_loss_pace_and_time_left(problem, tmp_path, capsys):
    descend(problem, tmp_path, print_every=20, label="texture")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[2] for line in lines if "step" in line] == ["1/40", "20/40", "40/40"]
    assert all(word in lines[-1] for word in ("texture", "loss", "steps/s", "left"))


def test_time_left_is_written_as_a_clock():
    assert [runs.format_seconds(s) for s in (0, 59.6, 61, 3723)] == [
        "0:00",
        "1:00",
        "1:01",
        "1:02:03",
    ]


def test_record_is_json_even_where_numbers_are_not(tmp_path):
    runs.write_record(tmp_path / "run.json", {"psnr": float("inf"), "losses": [1.5, float("nan")]})
    assert json.loads((tmp_path / "run.json").read_text()) == {"psnr": None, "losses": [1.5, None]}


def test_fingerprint_depends_on_facts_alone():
    assert runs.fingerprint({"a": 1, "b": 2}) == runs.fingerprint({"b": 2, "a": 1})
    assert runs.fingerprint({"a": 1}) != runs.fingerprint({"a": 2})


def test_a_folder_that_cannot_be_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file.*out_dir"):
        runs.prepare_folder(tmp_path / "file" / "out")


def test_failed_steps_are_in_the_trace(tmp_path):
    broken = jax.tree_util.Partial(lambda x: jnp.sum(x) * jnp.nan)
    run = runs.descend(broken, jnp.ones((4, 5, 3)), num_steps=3, folder=tmp_path, metadata=0)
    assert run.trace.failed.all() and np.isfinite(run.image).all()
