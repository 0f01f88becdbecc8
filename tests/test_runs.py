"""Long runs: stopped and resumed to the same bits, told about, and recorded."""

import json
import os
import resource
import shutil
import signal
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mixing import MIXING

import randviz as rv
from randviz.descent import descent
from randviz.descent.schedule import minimize_coarse_to_fine
from randviz.host import runs
from randviz.host.images import load_image
from randviz.host.progress import Progress, format_seconds
from randviz.objectives.objective import Part, find_non_finite
from randviz.objectives.regularizers import Regularizer, total_variation
from randviz.types import UserError

NUM_STEPS = 40


@pytest.fixture(autouse=True)
def never_save_by_the_clock(monkeypatch):
    """A busy machine would save states that no test asked for, where compiling takes long."""
    monkeypatch.setattr(runs, "_SAVE_SECONDS", float("inf"))


@pytest.fixture(scope="module")
def problem(tiny, params, image):
    objective = rv.Texture(layers=("conv1_1", "conv2_1")).of(tiny.bind(params), image)
    return objective, jax.random.uniform(jax.random.key(5), (12, 16, 3))


def descend(problem, folder, *, num_steps=NUM_STEPS, metadata=None, **options):
    objective, start = problem
    stages = [runs.Stage(lambda: objective, start.shape[:2], num_steps)]
    metadata = {"seed": 1} if metadata is None else metadata
    return runs.descend(stages, start, folder=folder, metadata=metadata, **options)


def stop_at(step_wanted, number=signal.SIGINT):
    def show(step, image):
        if step == step_wanted:
            os.kill(os.getpid(), number)

    return {"show": show, "save_every": step_wanted}


@pytest.mark.parametrize(
    "solver",
    [
        "jaxopt",
        *(
            pytest.param(other, marks=pytest.mark.slow)
            for other in descent.SOLVERS
            if other != "jaxopt"
        ),
    ],
)
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


def test_other_metadata_neither_resume_nor_touch_an_unfinished_run(problem, tmp_path):
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


def test_a_state_with_one_wrong_bit_is_set_aside_for_the_one_before(problem, tmp_path):
    for step in (5, 9):
        with pytest.raises(runs.Stopped):
            descend(problem, tmp_path, **stop_at(step))
    (state,) = tmp_path.glob(".unfinished-*")
    largest = max((state / "9").rglob("*"), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 4
    largest.write_bytes(data)
    with pytest.warns(UserWarning, match="9 cannot be read.*the run goes on after step 5"):
        run = descend(problem, tmp_path)
    assert len(list(state.glob("damaged-9-*"))) == 1
    assert run.sessions == 2
    np.testing.assert_array_equal(run.image, descend(problem, tmp_path, metadata=2).image)


def test_a_full_disk_is_said_and_the_last_state_stays(problem, tmp_path, monkeypatch):
    with pytest.raises(runs.Stopped):
        descend(problem, tmp_path, **stop_at(5))

    def fail(*arguments, **options):
        raise ValueError("RESOURCE_EXHAUSTED: 'a/0' ... [os_error_code='28']\nand more")

    with monkeypatch.context() as patch:
        patch.setattr(runs.ocp.CheckpointManager, "save", fail)
        said = r"after step 9 cannot be saved.*\(No space left on device\).*goes on after step 5"
        with pytest.raises(UserError, match=said):
            descend(problem, tmp_path, **stop_at(9))
        # Where only the end is left to be saved, the result is worth more than its state.
        assert descend(problem, tmp_path).sessions == 2


def test_orbaxs_names_have_not_moved(problem, tmp_path):
    """What is deleted by name, its notes and its unfinished folders, is no promise of orbax's."""
    with pytest.raises(runs.Stopped):
        descend(problem, tmp_path, **stop_at(5))
    (state,) = tmp_path.glob(".unfinished-*")
    (state / "5" / "_CHECKPOINT_METADATA").write_text("[" * 100_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    stop = stop_at(9)

    def limit_and_stop(step, image):
        if step == 9:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
            stop["show"](step, image)

    try:
        with pytest.raises(UserError, match=r"9 cannot be saved.*goes on after step 5"):
            descend(problem, tmp_path, show=limit_and_stop, save_every=9)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    # Writers that are not done yet may put back what has just been deleted.
    assert {path.name for path in state.iterdir()} - {"9.orbax-checkpoint-tmp"} == {"5"}
    assert descend(problem, tmp_path).sessions == 2


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, 1 MB large."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "randviz", folder]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only a user who may mount file systems can make one")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_disk_that_is_full_in_mid_run_keeps_the_last_state(problem, small_disk):
    with pytest.raises(runs.Stopped):
        descend(problem, small_disk, **stop_at(5))
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free))
    with pytest.raises(UserError, match=r"after step 9 cannot.*No space left.*on after step 5"):
        descend(problem, small_disk, **stop_at(9))
    ballast.unlink()
    run = descend(problem, small_disk)
    assert run.sessions == 2
    np.testing.assert_array_equal(run.image, descend(problem, small_disk, metadata=2).image)


def test_a_disk_that_turns_read_only_in_mid_run_keeps_the_last_state(problem, small_disk):
    remount = lambda kind: subprocess.run(
        ["mount", "-o", f"remount,{kind}", small_disk], check=True
    )
    stop = stop_at(9)

    def turn_and_stop(step, image):
        if step == 9:
            remount("ro")
            stop["show"](step, image)

    with pytest.raises(runs.Stopped):
        descend(problem, small_disk, **stop_at(5))
    with pytest.raises(UserError, match=r"9 cannot.*Read-only file system.*on after step 5"):
        descend(problem, small_disk, show=turn_and_stop, save_every=9)
    with pytest.raises(UserError, match=r"Read-only file system.*choose another --out_dir"):
        runs.prepare_folder(small_disk)
    remount("rw")
    run = descend(problem, small_disk)
    assert run.sessions == 2
    np.testing.assert_array_equal(run.image, descend(problem, small_disk, metadata=2).image)


def test_a_folder_that_vanishes_costs_the_state_but_not_the_run(problem, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    vanish = lambda step, image: shutil.rmtree(folder, ignore_errors=True)
    run = descend(problem, folder, show=vanish, save_every=15)
    assert run.trace.loss.shape == (NUM_STEPS,)


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
    expected = rv.minimize(objective, start, num_steps=15)
    # `descend` computes the first evaluation another way; its rounding grows over fifteen steps.
    np.testing.assert_allclose(seen[0][1], expected.image, atol=1e-4)
    assert run.trace.loss.shape == (NUM_STEPS,) and run.trace.loss[-1] < run.trace.loss[0]


def test_progress_says_step_loss_pace_and_time_left(problem, tmp_path, capsys):
    descend(problem, tmp_path, print_every=20, label="texture")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[2] for line in lines if "step" in line] == ["1/40", "20/40", "40/40"]
    assert all(word in lines[-1] for word in ("texture", "loss", "steps/s", "left"))


def test_pace_leaves_compilation_out(monkeypatch, capsys):
    clock = iter([10.0, 20.0, 100.0, 105.0])
    monkeypatch.setattr("randviz.host.progress.time.monotonic", lambda: next(clock))
    with Progress("style", 100, print_every=1) as progress:
        progress.report(1)
        progress.report(11)
        progress.restart()
        progress.report(12)
        progress.report(22)
    lines = [line.split("  ")[1:] for line in capsys.readouterr().err.splitlines()]
    assert [line[-2:] for line in lines] == [
        [""], ["1.00 steps/s", "1:29 left"], [""], ["2.00 steps/s", "0:39 left"],
    ]  # fmt: skip


def test_time_left_is_written_as_a_clock():
    assert [format_seconds(s) for s in (0, 59.6, 61, 3723)] == [
        "0:00",
        "1:00",
        "1:01",
        "1:02:03",
    ]


def test_record_is_json_even_where_numbers_are_not(tmp_path):
    runs.write_record(tmp_path / "run.json", {"psnr": float("inf"), "losses": [1.5, float("nan")]})
    assert json.loads((tmp_path / "run.json").read_text()) == {"psnr": None, "losses": [1.5, None]}


def test_fingerprint_depends_on_metadata_alone():
    assert runs.fingerprint({"a": 1, "b": 2}) == runs.fingerprint({"b": 2, "a": 1})
    assert runs.fingerprint({"a": 1}) != runs.fingerprint({"a": 2})


def test_a_folder_that_cannot_be_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file.*out_dir"):
        runs.prepare_folder(tmp_path / "file" / "out")


def test_failed_steps_are_in_the_trace(tmp_path):
    flat = jax.tree_util.Partial(lambda x: 0 * jnp.sum(x))
    run = descend((flat, jnp.ones((4, 5, 3))), tmp_path, num_steps=3)
    assert run.trace.failed.all() and np.isfinite(run.image).all()


def test_a_loss_that_is_not_finite_ends_the_run_and_names_its_term(problem, tmp_path):
    objective, start = problem
    part = objective.parts["style"]
    first, second = part.terms
    large = second.replace(weight=jnp.float32(jnp.inf))
    broken = objective.replace(parts={"style": part.replace(terms=(first, large))})
    with pytest.raises(UserError, match=r"style term of layer 'conv2_1' is inf.*last_good\.png"):
        descend((broken, start), tmp_path)
    np.testing.assert_allclose(load_image(tmp_path / "last_good.png"), start, atol=1 / 255)


def test_a_gradient_that_is_not_finite_is_told_from_a_loss(problem):
    objective, start = problem
    assert find_non_finite(objective, start) == ""
    rough = Regularizer(total_variation, 1.0)
    parts = {"tv": Part(jnp.float32(3e38), (rough,))}
    flat = jnp.full_like(start, 0.5).at[0, 0].set(0.6)
    found = find_non_finite(objective.replace(parts=parts), flat)
    assert found == "the gradient of the tv term is not finite"


def test_the_last_good_image_is_the_one_before_the_step_that_failed(tmp_path):
    # Adam's first step leads to where the root is not real.
    root = jax.tree_util.Partial(lambda x: jnp.sum(jnp.sqrt(x - 0.99)))
    with pytest.raises(UserError, match="the loss is not finite, so the run ends"):
        descend((root, jnp.ones((4, 5, 3))), tmp_path, num_steps=30, solver="adam")
    assert load_image(tmp_path / "last_good.png").min() == 1


# From coarse to fine: three scales, the shape of the last the one that everything else has.
SHAPES, STEPS = [(4, 6), (8, 11), (12, 16)], [4, 7, 5]
METHODS = ("jaxopt", "optax", "averaged_adam", "redrawn")


@pytest.fixture(scope="module")
def scales(image):
    """{method: (stages, solver)}, whose objectives are made once and kept."""
    fixed = rv.Texture(layers="first").of(MIXING, image)
    statistic = rv.SlicedWasserstein(num_directions=4)
    task = rv.Texture(layers="first", statistic=statistic)
    drawn = rv.Redrawn(jax.random.key(3), MIXING, task, (image,))

    def make(objective):
        stages = zip(SHAPES, STEPS, strict=True)
        return [runs.Stage(lambda: objective, shape, steps) for shape, steps in stages]

    found = {method: (make(fixed), method) for method in METHODS}
    return {**found, "redrawn": (make(drawn), "averaged_adam")}


def descend_scales(scales, method, folder, **options):
    stages, solver = scales[method]
    start = jnp.full((4, 6, 3), 0.5).at[0, 0].set(0.7)
    return runs.descend(stages, start, folder=folder, metadata=method, solver=solver, **options)


@pytest.mark.parametrize(
    "method",
    [
        "jaxopt",
        *(pytest.param(other, marks=pytest.mark.slow) for other in ("optax", "averaged_adam")),
        "redrawn",
    ],
)
def test_a_run_stopped_in_each_scale_ends_with_the_same_bits(scales, method, tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = descend_scales(scales, method, tmp_path / "whole")
    assert whole.image.shape == (12, 16, 3) and whole.trace.loss.shape == (16,)
    # In the first scale, at its last step, in the middle of the second, at the end of the second.
    for step in (2, 4, 9, 11):
        with pytest.raises(runs.Stopped, match=f"step {step} of 16"):
            descend_scales(scales, method, tmp_path / "parts", **stop_at(step))

    # Killed in the second scale of a further session: nothing was saved since.
    class Killed(Exception):
        pass

    def kill(step, image):
        raise Killed

    with pytest.raises(Killed):
        descend_scales(scales, method, tmp_path / "parts", show=kill, save_every=1)
    parts = descend_scales(scales, method, tmp_path / "parts")
    again = descend_scales(scales, method, tmp_path / "parts")
    for run in (parts, again):
        np.testing.assert_array_equal(run.image, whole.image)
        for a, b in zip(run.trace, whole.trace, strict=True):
            np.testing.assert_array_equal(a, b)


def test_scales_on_the_host_are_those_of_the_core(scales, tmp_path):
    stages, solver = scales["jaxopt"]
    schedule = rv.Schedule((6, 11, 16), tuple(STEPS))
    start = jnp.full((4, 6, 3), 0.5).at[0, 0].set(0.7)
    made = lambda scale: stages[0].make_objective()
    expected = minimize_coarse_to_fine(made, start, (12, 16), schedule, solver=solver)
    run = descend_scales(scales, "jaxopt", tmp_path)
    # `descend` computes the first evaluation another way.
    np.testing.assert_allclose(run.image, expected.image, atol=1e-3)
    np.testing.assert_allclose(run.trace.loss, expected.trace.loss, rtol=1e-3)


def test_progress_and_pictures_go_through_the_scales(scales, tmp_path, capsys):
    seen = []
    descend_scales(
        scales, "jaxopt", tmp_path, save_every=3, print_every=8,
        show=lambda step, image: seen.append((step, image.shape[:2])),
    )  # fmt: skip
    sizes = [SHAPES[0], *[SHAPES[1]] * 2, *[SHAPES[2]] * 2]
    assert seen == [*zip((3, 6, 9, 12, 15), sizes, strict=True)]
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[2] for line in lines] == ["1/16", "8/16", "16/16"]


def test_scales_without_steps_only_change_the_size(scales, tmp_path):
    stages = [
        stage._replace(num_steps=steps)
        for stage, steps in zip(scales["jaxopt"][0], (0, 4, 0), strict=True)
    ]
    start = jnp.full((4, 6, 3), 0.5).at[0, 0].set(0.7)
    for _ in range(2):
        run = runs.descend(stages, start, folder=tmp_path, metadata=0)
        assert run.image.shape == (12, 16, 3) and run.trace.loss.shape == (4,)
