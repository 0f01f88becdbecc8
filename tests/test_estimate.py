"""What is said beforehand about memory and time."""

import functools
import re
import types

import jax
import numpy as np
import pytest

from benchmarks import solvers, speed
from randviz.__main__ import main
from randviz.descent import descent
from randviz.experiments import selection_audit
from randviz.host import estimate
from randviz.host.estimate import check_memory, estimate_descent
from randviz.networks.vgg import VGG19
from randviz.networks.weights import random_weights
from randviz.tasks.inversion import Inversion
from randviz.types import UserError

SHAPE = (40, 48, 3)


def make_inversion(shape):
    params = random_weights(jax.random.key(0), VGG19, last_layer="conv1_2")
    image = jax.random.uniform(jax.random.key(1), shape)
    return Inversion(layer="conv1_2").of(VGG19.bind(params), image)


@functools.cache
def estimate_at(shape):
    start = jax.ShapeDtypeStruct(shape, np.float32)
    return estimate_descent(functools.partial(make_inversion, shape), start)


def test_an_estimate_counts_what_a_descent_holds():
    found = estimate_at(SHAPE)
    objective = make_inversion(SHAPE)
    state = descent.init(objective, np.zeros(SHAPE, np.float32))
    held = sum(leaf.nbytes for leaf in jax.tree.leaves((objective, state)))
    features = 2 * np.prod(SHAPE[:2]) * 64 * 4  # the activations that a gradient cannot do without
    assert found.growing > held - 10**6 + features
    assert found.growing < found.more < found.peak


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"memory.max": "900", "memory.current": "700", "memory.stat": "inactive_file 300"}, 500),
        ({"memory.max": "max", "memory.current": "700", "memory.stat": "inactive_file 300"}, 10**6),
        (
            {
                "memory/memory.limit_in_bytes": "900",
                "memory/memory.usage_in_bytes": "700",
                "memory/memory.stat": "cache 400\ntotal_inactive_file 100",
            },
            300,
        ),
        ({}, 10**6),
    ],
)
def test_files_that_a_container_has_read_leave_their_memory(tmp_path, monkeypatch, files, expected):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    monkeypatch.setattr(estimate, "_GROUPS", tmp_path)
    machine = types.SimpleNamespace(available=10**6)
    monkeypatch.setattr(estimate.psutil, "virtual_memory", lambda: machine)
    assert estimate._read_free_memory() == expected


def test_what_grows_grows_with_the_number_of_pixels():
    small, large = estimate_at(SHAPE), estimate_at((80, 96, 3))
    assert large.growing == pytest.approx(4 * small.growing, rel=0.1)
    assert large.more - large.growing == pytest.approx(small.more - small.growing, rel=0.01)


def test_the_size_that_is_said_to_fit_fits():
    found = estimate_at((80, 96, 3))
    short = found._replace(free=int(found.more - 0.6 * found.growing))
    with pytest.raises(UserError, match="would fit") as refusal:
        check_memory(short, 96)
    side = int(re.search(r"longest side of (\d+)", str(refusal.value))[1])
    assert 48 < side < 96
    smaller = estimate_at((side * 5 // 6, side, 3))
    assert smaller.more <= short.free * 1.03


def test_nothing_fits_into_nothing():
    found = estimate_at(SHAPE)._replace(free=10**6)
    with pytest.raises(UserError, match="no picture would fit"):
        check_memory(found, max(SHAPE))


def test_a_command_refuses_a_picture_before_it_makes_anything(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(estimate, "_read_free_memory", lambda: 10**6)
    flags = ["--image=chelsea", "--image_size=48", "--layer=conv1_1", f"--out_dir={tmp_path}/out"]
    assert main(["invert", *flags]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "more memory" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["invert", "--image=chelsea", "--layer=conv1_1", "--image_size=48", "--min_size=24"],
        [
            *("texture", "--method=paper", "--texture_image=coffee", "--layers=conv1_1"),
            *("--image_size=48", "--redraw"),
        ],
        # What descends is larger by a margin.
        ["texture", "--texture_image=coffee", "--image_size=48", "--num_steps=8"],
        ["compare", "--image=chelsea", "--layers=conv1_1", "--image_size=48"],
        ["select", "--reference_image=chelsea", "--last_layer=conv1_1", "--image_size=48"],
        ["population", "--image=chelsea", "--layers=conv1_1", "--image_size=48"],
    ],
)
def test_a_dry_run_tells_and_leaves_nothing(words, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(estimate, "_PACE_SECONDS", 0.0)
    assert main([*words, "--dry_run", f"--out_dir={tmp_path}/out"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"48×32 pixels take about [\d.]+ [MG]B of memory .* about \d+:\d\d at", said)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "words"),
    [
        (solvers, ["--image_size=32"]),
        (speed, ["--parts=evaluation", "--sizes=32", "--descent_size=16"]),
        (selection_audit, ["--layers=conv1_1", "--image_size=32"]),
    ],
)
def test_benchmarks_tell_too(module, words, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(estimate, "_PACE_SECONDS", 0.0)
    assert module.main([*words, "--dry_run", f"--out_dir={tmp_path}/out"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"32×\d+ pixels take about [\d.]+ [MG]B of memory .* about [\d:]+ at", said)
    assert not (tmp_path / "out").exists()
