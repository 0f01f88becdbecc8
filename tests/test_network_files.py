"""Networks of the user's own, from a file: in every command, or one sentence."""

import json
import re

import jax
import numpy as np
import pytest

from randviz.commands import compare, invert, population, select, style, texture
from randviz.commands.network_choice import NetworkSettings, choose_all, choose_network
from randviz.commands.network_files import load_network_file, names_file
from randviz.host.settings import parse_flags
from randviz.networks.extractor import Extractor

SOURCE = """
import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from flax import nnx

import beside
import randviz as rv


class TwoLayers(nn.Module):
    width: int = 6

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(self.width, (5, 5), name="first")(x))
        return nn.relu(nn.Conv(8, (3, 3), strides=2, name="second")(x))


wide = TwoLayers(beside.WIDTH)


class Branches(nnx.Module):
    def __init__(self, rngs):
        self.small = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.noise = nnx.Dropout(0.5, rngs=rngs)
        self.large = nnx.Conv(4, 5, (7, 7), strides=2, rngs=rngs)

    def __call__(self, x):
        return nnx.relu(self.large(self.noise(nnx.relu(self.small(x)))))


ready = Branches(nnx.Rngs(0))
shallow = dataclasses.replace(rv.NETWORKS["vgg11"], name="shallow", channel_order="BGR")
number = 3


class Flat(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(x.mean((1, 2)))


class Wants(nn.Module):
    width: int

    def __call__(self, x):
        return x


class Larger(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Conv(2, (3, 3))(jnp.reshape(x, (1, 96, 96, 3)))


class Named(nnx.Module):
    def __init__(self, width, rngs):
        self.conv = nnx.Conv(3, width, (3, 3), rngs=rngs)
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nets")
    (folder / "beside.py").write_text("WIDTH = 9\n")
    (folder / "my_nets.py").write_text(SOURCE)
    return folder / "my_nets.py"


def choose(path, name, **settings):
    return choose_network(NetworkSettings(network=f"{path}:{name}", **settings))


def test_a_file_is_told_from_a_recipe():
    assert names_file("nets.py:Mine") and names_file("a b/nets.py") and names_file("~/n.py:m")
    assert not any(map(names_file, ("vgg19", "ranvgg", "recipe.txt", "randviz-1 vgg19 seed=1")))


@pytest.mark.parametrize(
    ("name", "layers", "channels"),
    [
        ("TwoLayers", ("image", "first", "second", "output"), 6),
        ("wide", ("image", "first", "second", "output"), 9),
        ("Branches", ("image", "small", "noise", "large", "output"), 4),
    ],
)
def test_modules_draw_their_weights_from_the_seed(path, name, layers, channels):
    choice = choose(path, name)
    assert choice.network.layer_names == layers
    first, last = choice.network.scale_layers
    assert (first, last) == (layers[1], layers[-2])
    image = np.linspace(0, 1, 20 * 24 * 3, dtype=np.float32).reshape(20, 24, 3)

    def draw(**settings):
        again = choose(path, name, **settings)
        extractor = again.network.bind(again.sample(last))
        assert isinstance(extractor, Extractor)
        return extractor(image, (first, last))

    found = draw()
    assert found[first].shape == (20, 24, channels) and found[last].shape[:2] == (10, 12)
    assert np.array_equal(found[last], draw()[last])
    assert not np.array_equal(found[last], draw(seed=1)[last])


def test_a_network_of_this_package_takes_every_flag(path):
    choice = choose(path, "shallow", pooling="max", scale=0.1)
    assert choice.network.name == "shallow"
    assert (choice.network.channel_order, choice.network.pooling) == ("BGR", "max")
    kernel = choice.sample("conv1_1")["conv1_1"]["kernel"]
    assert np.std(kernel) == pytest.approx(0.1, rel=0.1)
    assert choice.metadata["name"] == "shallow" and len(choice.metadata["file_sha256"]) == 16


def test_a_file_is_run_once_and_networks_compare(path):
    first, second = (load_network_file(f"{path}:TwoLayers").architecture for _ in range(2))
    assert first.function == second.function
    networks = tuple(f"{path}:{name}" for name in ("TwoLayers", "wide"))
    assert list(choose_all(NetworkSettings(network=networks))) == ["TwoLayers", "TwoLayers_2"]


@pytest.mark.parametrize(
    ("name", "command", "words"),
    [
        ("TwoLayers", invert, ["--image=chelsea", "--layer=second"]),
        ("Branches", texture, ["--texture_image=brick", "--method=paper"]),
        ("wide", style, ["--content_image=coffee", "--style_image=brick", "--method=paper"]),
        ("shallow", invert, ["--image=chelsea", "--layer=pool1"]),
    ],
)
def test_commands_take_them_and_the_record_names_the_file(path, tmp_path, name, command, words):
    network = f"--network={path}:{name}"
    sizes = ["--image_size=32", "--num_steps=3", f"--out_dir={tmp_path}"]
    assert command.main([network, *words, *sizes]) == 0
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["network"]["file"] == str(path) and (tmp_path / "out.png").exists()
    assert record["losses"][-1] < record["losses"][0]


def test_a_modules_weights_are_redrawn_too(path, tmp_path):
    words = [f"--network={path}:TwoLayers", "--method=paper", "--texture_image=brick", "--redraw"]
    sizes = ["--image_size=32", "--num_steps=3", f"--out_dir={tmp_path}", "--layers=first"]
    settings = parse_flags(texture.Settings, [*words, *sizes])
    redrawn = texture.plan(settings).descent.objective()
    first, second = (redrawn.extractor_at(step).params for step in (0, 1))
    leaves = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    assert any(np.any(a != b) for a, b in leaves)
    assert texture.main([*words, *sizes]) == 0


def test_studies_take_them(path, tmp_path):
    sizes = ["--image_size=32", "--num_steps=3", f"--out_dir={tmp_path}"]
    words = [f"--network={path}:TwoLayers", "--image=chelsea", "--layers=first,second"]
    assert compare.main([*words, *sizes]) == 0
    lines = (tmp_path / "records.jsonl").read_text().splitlines()
    labels = {json.loads(line)["trial"].get("weights") for line in lines}
    assert labels == {"TwoLayers", None}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (":Nothing", "has no Nothing; write .*:NAME, NAME one of TwoLayers, wide, Branches"),
        ("", "names no network; write .*:NAME, NAME one of TwoLayers"),
        (":number", "a int is no Flax module"),
        (":ready", "has weights already; name its class"),
        (":Wants", "needs arguments .*width.*; name a value of it"),
        (":Named", "cannot be made of rngs alone .*width.*; give its other arguments defaults"),
        (":Flat", "Flat has no feature maps"),
        (":Larger", "Larger cannot draw its weights .*reshape.*1, 64, 64, 3"),
    ],
)
def test_what_is_no_network_is_said_in_a_sentence(path, tmp_path, capsys, name, said):
    words = [f"--network={path}{name}", "--image=chelsea", "--layer=first", "--image_size=32"]
    assert invert.main([*words, f"--out_dir={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert re.search(said, error) and len(error.splitlines()) == 1, error


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import nothing_of_the_kind", "ModuleNotFoundError: No module named"),
        ("def f(:", "SyntaxError: invalid syntax"),
        ("raise SystemExit", r"\(SystemExit\)"),
        ("", "names no network; define one"),
        (None, "there is no such file"),
    ],
)
def test_a_file_that_cannot_be_run_is_said_in_a_sentence(tmp_path, capsys, text, said):
    path = tmp_path / "broken.py"
    if text is not None:
        path.write_text(text)
    words = [f"--network={path}", "--image=chelsea", f"--out_dir={tmp_path / 'out'}"]
    assert invert.main(words) == 2
    error = capsys.readouterr().err
    assert re.search(said, error) and len(error.splitlines()) == 1, error


@pytest.mark.parametrize(
    ("command", "words", "said"),
    [
        (select, ["--reference_image=chelsea"], "selected from an architecture"),
        (population, ["--image=chelsea", "--layers=first"], "is a Flax module"),
        (invert, ["--image=chelsea", "--trained_weights=x.h5"], "is a Flax module; leave one"),
        (invert, ["--image=chelsea", "--layer=first", "--scale=0.1"], "decides --scale"),
    ],
)
def test_what_modules_cannot_do_is_said(path, tmp_path, capsys, command, words, said):
    assert command.main([f"--network={path}:TwoLayers", *words, f"--out_dir={tmp_path}"]) == 2
    assert said in capsys.readouterr().err
