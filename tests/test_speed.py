"""The comparison with PyTorch: the same functions on both sides, and ratios read from rows."""

import dataclasses
import json
import sys

import jax
import numpy as np
import pytest

from benchmarks import speed, torch_reference
from randviz.tasks.inversion import Inversion
from randviz.tasks.style import Style
from randviz.tasks.texture import Texture
from randviz.types import UserError

ROWS = [
    {
        "trial": {"kind": "evaluation", "size": 64},
        "threads": 2,
        "pixels": "64x64",
        "evaluations": 20,
        "difference": 1e-5,
        "others": 0.0,
        "compile_failure": "no compiler",
        "milliseconds": {"randviz": 10.0, "eager": 30.0, "channels_last": 25.0, "compile": None},
    },
    {
        "trial": {"kind": "evaluation", "size": 256},
        "threads": 2,
        "pixels": "256x256",
        "evaluations": 4,
        "difference": 2e-5,
        "others": 0.25,
        "compile_failure": None,
        "milliseconds": {"randviz": 200.0, "eager": 300, "channels_last": 250, "compile": 100.0},
    },
    {
        "trial": {"kind": "descent", "problem": "texture"},
        "threads": 2,
        "pixels": "128x128",
        "difference": 1e-4,
        "others": 0.1,
        "torch_backend": "eager",
        "target": 0.5,
        "seconds": {"randviz": 4.0, "lbfgs": None, "strong_wolfe": 8.0, "scipy": 6.0},
        "curves": {
            "randviz": [[2, 1.0], [4, 0.5]],
            "lbfgs": [],
            "strong_wolfe": [[8, 0.4]],
            "scipy": [[6, 0.5]],
        },
    },
    {"trial": {"kind": "start"}, "threads": 2, "others": 0.0, "cold_s": 9.0, "warm_s": 3.0},
]


def draw(rows, folder, capsys):
    speed.plot(speed.Settings(), rows, folder)
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert json.loads((folder / "result.json").read_text()) == result
    assert (folder / "speed.png").stat().st_size > 0
    return result


def test_ratios_are_against_the_best_of_the_others(tmp_path, capsys):
    assert draw(ROWS, tmp_path, capsys) == {
        "evaluation_ratio_256": 0.5,
        "evaluation_ratio": {"64": 2.5, "128": None, "256": 0.5, "512": None},
        "time_to_loss_ratio": {"inversion": None, "texture": 1.5, "style": None},
        "cold_start_s": 9.0,
        "warm_start_s": 3.0,
        "threads": 2,
        "largest_difference": 1e-4,
        "other_processes_cores": 0.25,
    }
    table = (tmp_path / "table.md").read_text()
    assert "| 64x64 | 10 | 30 | 25 | - | 2.5 | 1.0e-05 |" in table
    assert "| texture | 4 | - | 8 | 6 | 1.5 | 1.0e-04 | 0.5 | eager |" in table
    assert "torch.compile failed: no compiler" in table


@pytest.mark.parametrize("rows", [[], ROWS[3:]])
def test_what_was_not_measured_is_null(tmp_path, capsys, rows):
    result = draw(rows, tmp_path, capsys)
    assert result["evaluation_ratio_256"] is None
    assert set(result["evaluation_ratio"].values()) == {None}
    assert result["time_to_loss_ratio"] == dict.fromkeys(("inversion", "texture", "style"))
    assert result["cold_start_s"] == (9.0 if rows else None)


def test_a_ratio_needs_both_sides():
    assert speed.find_ratio({"randviz": 2.0, "eager": None}) is None
    assert speed.find_ratio({"randviz": None, "eager": 2.0}) is None


def test_parts_choose_the_trials():
    settings = speed.Settings(parts=("start", "evaluation"), sizes=("64",))
    assert speed.list_trials(settings) == [{"kind": "evaluation", "size": 64}, {"kind": "start"}]
    for wrong in (speed.Settings(parts=("end",)), speed.Settings(sizes=("big",))):
        with pytest.raises(UserError):
            speed.list_trials(wrong)


@pytest.fixture(scope="module")
def objectives(tiny, params, image, other_image):
    layers, network = ("conv1_1", "conv2_1"), tiny.bind(params)
    return {
        "inversion": Inversion(layer="conv2_1", tv_weight=0.3).of(network, image),
        "blue first": Inversion(layer="conv2_1").of(
            dataclasses.replace(tiny, channel_order="BGR").bind(params), image
        ),
        "texture": Texture(layers=layers).of(network, image),
        "style": Style(content_layers=("conv1_2",), style_layers=layers).of(
            network, image, other_image
        ),
    }


@pytest.mark.parametrize("problem", ["inversion", "blue first", "texture", "style"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_reference_is_the_same_function(objectives, other_image, problem, channels_last):
    torch = pytest.importorskip("torch")
    objective = objectives[problem]
    loss, gradient = jax.jit(jax.value_and_grad(objective))(other_image)
    tensor = torch.tensor(np.asarray(other_image)).permute(2, 0, 1)[None].requires_grad_()
    found = torch_reference.make_reference(objective, channels_last=channels_last)(tensor)
    found.backward()
    np.testing.assert_allclose(found.item(), loss, rtol=1e-5)
    slope = tensor.grad[0].permute(1, 2, 0).numpy()
    assert np.linalg.norm(slope - gradient) < 1e-5 * np.linalg.norm(gradient)


@pytest.mark.parametrize("part", ["evaluation", "descent"])
def test_without_torch_the_user_is_told_what_to_install(monkeypatch, tiny, objectives, part):
    monkeypatch.setitem(sys.modules, "torch", None)
    problem = (lambda: objectives["inversion"], np.zeros((12, 16, 3)))
    monkeypatch.setattr(speed.solvers, "make_problem", lambda *_: problem)
    trial = speed.list_trials(speed.Settings(parts=(part,)))[0]
    with pytest.raises(UserError, match=r"randviz\[bench\]"):
        speed.measure(speed.Settings(), trial)
