"""The commands from the outside: what they write, what they say, and what they refuse."""

import dataclasses
import inspect
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from PIL import Image as Pillow

from randviz import __main__ as entry
from randviz.__main__ import COMMANDS, load_command, main
from randviz.commands import demo, descent, select, style
from randviz.commands.network_choice import load_recipe
from randviz.host.folders import lock_folder
from randviz.host.images import load_image
from randviz.host.settings import parse_flags
from randviz.networks.catalog import NETWORKS
from randviz.networks.weights import random_weights, weight_shapes
from randviz.search.recipe import format_recipe
from randviz.types import UserError

ROOT = pathlib.Path(__file__).parents[1]
SMALL = ["--image_size=16", "--num_steps=4"]
INVERT = ["invert", "--image=chelsea", "--layer=conv1_2", *SMALL]
TEXTURE = [
    "texture",
    "--method=paper",
    "--texture_image=gravel",
    "--layers=conv1_1,conv1_2",
    *SMALL,
]
STYLE = [
    "style",
    "--method=paper",
    "--content_image=chelsea",
    "--style_image=coffee",
    "--content_layers=conv1_1",
    "--style_layers=conv1_1,conv1_2",
    *SMALL,
]


@pytest.fixture
def files(tmp_path):
    """Pictures that are wrong, each in its own way."""
    (tmp_path / "text.png").write_text("this is not a picture")
    Pillow.effect_noise((64, 48), 50).convert("RGB").save(tmp_path / "whole.jpg")
    half = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(half[: len(half) // 2])
    Pillow.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    Pillow.new("RGB", (20, 16)).save(tmp_path / "black.png")
    Pillow.effect_noise((400, 8), 50).save(tmp_path / "strip.png")
    (tmp_path / "file").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "weights"),
    [
        (INVERT, {"content": {"conv1_2"}}),
        (TEXTURE, {"style": {"conv1_1", "conv1_2"}}),
        (STYLE, {"content": {"conv1_1"}, "style": {"conv1_1", "conv1_2"}}),
    ],
)
def test_a_command_writes_its_picture_and_its_record(tmp_path, words, weights):
    assert main([*words, f"--out_dir={tmp_path}", "--save_every=2"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "out.png",
        "out_00002.png",
        "run.json",
    ]
    picture = load_image(tmp_path / "out.png")
    record = json.loads((tmp_path / "run.json").read_text())
    assert picture.shape[1] == 16 and picture.std() > 0.01
    assert record["command"] == words[0] and record["settings"]["num_steps"] == 4
    assert {kind: set(values) for kind, values in record["layer_weights"].items()} == weights
    assert len(record["losses"]) == 4 and record["losses"][-1] < record["losses"][0]
    assert record["evaluations"] >= 4 and record["failed_steps"] == 0
    assert {"jax", "randviz"} <= set(record["versions"]) and record["platform"] == "cpu"
    if words is INVERT:
        assert set(record["measures"]) == {"distance", "psnr", "ssim"}


def test_the_same_seed_is_the_same_picture_and_another_is_another(tmp_path):
    pictures = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert main([*TEXTURE, f"--out_dir={tmp_path / name}", f"--seed={seed}"]) == 0
        pictures.append(load_image(tmp_path / name / "out.png"))
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert np.abs(pictures[0] - pictures[2]).mean() > 0.01


def test_layer_weights_are_recorded_at_the_papers_scale(tmp_path):
    values = []
    for name, scale in (("a", 0.015), ("b", 0.03)):
        assert main([*STYLE, f"--out_dir={tmp_path / name}", f"--scale={scale}"]) == 0
        values.append(json.loads((tmp_path / name / "run.json").read_text())["layer_weights"])
    # Doubling σ doubles the features once a layer: ω falls by 4 a layer and μ by 16.
    assert values[0]["content"]["conv1_1"] == pytest.approx(4 * values[1]["content"]["conv1_1"])
    assert values[0]["style"]["conv1_2"] == pytest.approx(256 * values[1]["style"]["conv1_2"])


@pytest.mark.slow
def test_options_reach_the_picture(tmp_path):
    """Each of these changes the result, so none is read and forgotten."""
    plain = None
    for index, option in enumerate(
        [
            "--seed=0", "--pooling=max", "--padding=reflect", "--input_offset=50", "--init=noise",
            "--init=image --init_image=rocket", "--solver=adam", "--memory=1", "--bias_scale=0.5",
            "--content_weight=3", "--style_weight=3", "--tv_weight=9", "--original_colors",
            "--style_image=coffee,rocket", "--style_image=coffee,rocket --style_blend_weights=3,1",
            "--gradient_reduction=abs_mean", "--num_steps=5",
        ]
    ):  # fmt: skip
        words = [*STYLE, "--style_layers=conv1_1,conv2_1", *option.split()]
        assert main([*words, f"--out_dir={tmp_path / str(index)}"]) == 0
        picture = load_image(tmp_path / str(index) / "out.png")
        plain = picture if plain is None else plain
        assert index == 0 or np.abs(picture - plain).max() > 1 / 255, option


def test_drawn_anew_from_coarse_to_fine(tmp_path, monkeypatch, capsys):
    words = [
        *TEXTURE, "--layers=conv1_1", "--statistic=sliced_wasserstein", "--redraw", "--min_size=8",
        "--num_scales=2", "--num_steps=6", "--save_every=2",
    ]  # fmt: skip
    assert main([*words, f"--out_dir={tmp_path / 'whole'}"]) == 0
    record = json.loads((tmp_path / "whole" / "run.json").read_text())
    assert record["schedule"] == {"sizes": [8, 16], "steps": [4, 2]}
    assert len(record["losses"]) == 6 == record["evaluations"]
    sizes = [load_image(tmp_path / "whole" / f"out{name}.png").shape for name in ("_00002", "")]
    assert sizes == [(8, 8, 3), (16, 16, 3)]
    saved = descent.save_image

    def save_and_stop(path, image, **options):
        saved(path, image, **options)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(descent, "save_image", save_and_stop)
        assert main([*words, f"--out_dir={tmp_path / 'parts'}"]) == 130
        assert main([*words, f"--out_dir={tmp_path / 'parts'}"]) == 130
    assert "after step 4 of 6; the same command goes on" in capsys.readouterr().err
    assert main([*words, f"--out_dir={tmp_path / 'parts'}"]) == 0
    whole, parts = ((tmp_path / name / "out.png").read_bytes() for name in ("whole", "parts"))
    assert whole == parts


def test_a_style_keeps_its_colours_at_every_scale(tmp_path):
    words = [*STYLE, "--original_colors", "--scale_sizes=8,16", "--scale_steps=2,1"]
    assert main([*words, "--save_every=2", f"--out_dir={tmp_path}"]) == 0
    assert load_image(tmp_path / "out_00002.png").shape[1] == 8
    assert load_image(tmp_path / "out.png").shape[1] == 16


def test_the_home_folder_is_found_and_inputs_are_not_overwritten(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    photograph = tmp_path / "me.png"
    Pillow.effect_noise((32, 21), 50).convert("RGB").save(photograph)
    before = photograph.read_bytes()
    words = ["invert", "--image=~/me.png", "--layer=conv1_2", *SMALL]
    assert main([*words, "--out_dir=~/out"]) == 0
    assert (tmp_path / "out" / "out.png").exists()
    (tmp_path / "link.png").symlink_to(photograph)
    os.link(photograph, tmp_path / "hard.png")
    for name in ("./me.png", "link.png", "hard.png"):
        assert main([*words, "--out_dir=~/out", f"--output_image=~/{name}"]) == 2
        assert f"{name[-6:]} is a picture that is read here" in capsys.readouterr().err
    assert photograph.read_bytes() == before


def test_flags_under_their_old_names_are_read():
    words = ["--reading=abs_mean", "--style_shares=2,1"]
    settings = parse_flags(style.Settings, words)
    assert settings.gradient_reduction == "abs_mean"
    assert settings.style_blend_weights == ("2", "1")


def test_texture_of_another_size_and_place(tmp_path):
    words = [*TEXTURE, "--output_size=20x12", f"--out_dir={tmp_path}"]
    assert main([*words, f"--output_image={tmp_path / 'deep' / 'wide.jpg'}"]) == 0
    assert load_image(tmp_path / "deep" / "wide.jpg").shape == (12, 20, 3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("invert --image={}/missing.png", "missing.png"),
        ("invert --image={}/text.png", "text.png"),
        ("invert --image={}/half.jpg", "half.jpg"),
        ("invert --image={}/dot.png", "1×1"),
        ("invert", "--image"),
        ("invert --image=chelsea --image_size=8 --layer=pool5", "pool5"),
        ("invert --image=chelsea --layer=conv9_1", "conv9_1"),
        ("invert --image=chelsea --layer=fc6 --image_size=64", "256×256"),
        ("invert --image=chelsea --tv_weight=-1", "tv_weight"),
        ("invert --image=chelsea --input_offset=grey", "grey"),
        ("invert --image=chelsea --init=image", "--init_image"),
        ("invert --image=chelsea --init_image=coffee", "--init=image"),
        ("invert --image=chelsea --input_offset=nan", "nan"),
        ("invert --image=chelsea --tv_weight=nan", "tv_weight"),
        ("invert --image=chelsea --seed=99999999999999999999", "seed"),
        ("invert --image={}/black.png --image_size=16 --layer=conv1_1", "conv1_1"),
        ("invert --image=chelsea --solver=newton", "solver"),
        ("invert --image=chelsea --network=vgg7", "network"),
        ("texture --method=paper --texture_image=gravel --layers=conv1_1,conv1_1", "twice"),
        ("texture --texture_image=gravel --output_size=20", "20"),
        ("texture --method=paper --texture_image=gravel --output_size=4x4", "4×4"),
        ("texture --texture_image=gravel --output_size=99999x99999", "99999x99999"),
        (f"texture --texture_image=gravel --output_size=1x{'9' * 5000}", "is not a size"),
        ("population --reference_size=3000000000", "--reference_size"),
        (
            "invert --image=bridge --image_size=16 --layer=conv1_1"
            " --output_image={}/out.jpg --bits=16",
            "out.jpg cannot hold 16 bits",
        ),
        (
            "invert --image=bridge --image_size=16 --layer=conv1_1 --bits=12",
            "8 or 16 bits a channel, not 12",
        ),
        ("invert --image=bridge --image_size=16 --layer=conv1_1 --quality=0", "quality"),
        (
            "invert --image=bridge --image_size=16 --layer=conv1_1 --animation={}/a.png",
            "use .webp or .gif",
        ),
        (
            "invert --image=bridge --image_size=16 --layer=conv1_1"
            " --output_image={}/a.webp --animation={}/a.webp",
            "both the picture and the animation",
        ),
        ("style --content_image=chelsea", "--style_image"),
        ("style --style_image=chelsea", "--content_image"),
        ("style --content_image=chelsea --style_image=coffee --style_weight=-2", "style_weight"),
        (
            "style --content_image=chelsea --style_image=coffee --style_blend_weights=1,2",
            "style_blend_weights",
        ),
        (
            "style --content_image=chelsea --style_image=coffee --style_blend_weights=a",
            "style_blend_weights",
        ),
        (
            "style --content_image=chelsea --style_image=coffee --style_blend_weights=nan",
            "style_blend_weights",
        ),
        ("texture --texture_image=gravel --image_size=16 --scale_sizes=8,12", "ends at 12"),
        (
            "texture --texture_image=gravel --image_size=16 --scale_sizes=8,16 --min_size=8",
            "--scale_sizes takes the place",
        ),
        ("texture --texture_image=gravel --image_size=16 --scale_sizes=a,16", "whole numbers"),
        ("texture --texture_image=gravel --image_size=16 --min_size=99", "99"),
        (
            "texture --texture_image=gravel --image_size=16 --min_size=8 --scale_steps=1",
            "one number of steps",
        ),
        (
            "invert --image=chelsea --image_size=24 --min_size=2 --layer=pool1",
            "first scale, 2×1, the image is 2×1 pixels, too small for layer 'pool1'",
        ),
        (
            "texture --method=paper --texture_image=gravel --image_size=16 --layers=conv1_1"
            " --redraw --solver=jaxopt",
            "averaged_adam",
        ),
        (
            "style --method=paper --content_image=chelsea --style_image=gravel --image_size=16"
            " --content_layers=conv1_1 --style_layers=conv1_1 --statistic=features",
            "position by position",
        ),
        (
            "invert --image={}/strip.png --image_size=32 --layer=pool4",
            "strip.png (400×8 pixels): as it is resized, the image is 32×1",
        ),
        (
            "style --content_image=chelsea --style_image={}/strip.png --image_size=32",
            "strip.png (400×8 pixels): at the first scale, an image of 32×1 pixels",
        ),
        (
            "texture --texture_image={}/strip.png --image_size=32",
            "strip.png (400×8 pixels): at the first scale, an image of 32×1 pixels",
        ),
        (
            "select --reference_image={}/strip.png --image_size=32",
            "strip.png (400×8 pixels): as it is resized, the image is 32×1",
        ),
        (
            "select --reference_image={}/black.png --image_size=32 --last_layer=conv1_1",
            "black.png is nothing but the input offset",
        ),
        (
            "invert --image=chelsea --image_size=16 --layer=conv1_2 --bias_scale=1e38",
            "features of layer 'conv1_2' are too large for float32",
        ),
        ("invert --image=~/nowhere.png", "/nowhere.png does not exist"),
        ("paint", "there is no command 'paint'"),
        ("stile", "perhaps style is meant"),
    ],
)
def test_mistakes_get_a_sentence_and_leave_nothing(files, capsys, words, said):
    out = files / "out"
    words = words.replace("{}", str(files)).split()
    assert (
        main([*words, *([f"--out_dir={out}"] if len(words) > 1 or words == ["invert"] else [])])
        == 2
    )
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error
    assert error.count("\n") == 1 and error.endswith(".\n")
    assert not out.exists()


def test_a_folder_that_cannot_be_written_is_said_before_the_work(files, capsys):
    assert main([*INVERT, f"--out_dir={files / 'file' / 'out'}"]) == 2
    assert "file/out" in capsys.readouterr().err
    assert main([*INVERT, f"--out_dir={files}", f"--output_image={files / 'a.xyz'}"]) == 2
    error = capsys.readouterr().err
    assert "a.xyz" in error and "step" not in error
    assert main([*INVERT, f"--out_dir={files / 'b'}", f"--output_image={files}.png"]) == 0
    (files / "c.png").mkdir()
    assert main([*INVERT, f"--out_dir={files / 'b'}", f"--output_image={files / 'c.png'}"]) == 2
    assert "c.png is a folder" in capsys.readouterr().err


def test_a_second_command_in_a_folder_is_refused_and_leftovers_are_named(tmp_path, capsys):
    words = [*INVERT, f"--out_dir={tmp_path}"]
    (tmp_path / ".unfinished-old").mkdir()
    with lock_folder(tmp_path):
        assert main(words) == 2
        assert f"process {os.getpid()} is at work in the folder" in capsys.readouterr().err
        assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", ".unfinished-old"]
    assert main(words) == 0
    assert "left .unfinished-old; `randviz clear" in capsys.readouterr().out


def test_a_picture_on_the_way_does_not_overwrite_an_input(tmp_path, capsys):
    start = tmp_path / "out_00002.png"
    Pillow.effect_noise((16, 16), 50).convert("RGB").save(start)
    before = start.read_bytes()
    words = [*INVERT, "--save_every=2", "--init=image", f"--init_image={start}"]
    assert main([*words, f"--out_dir={tmp_path}"]) == 2
    assert "out_00002.png is a picture that is read here" in capsys.readouterr().err
    assert start.read_bytes() == before


def test_numbers_beyond_float32_end_a_command_with_its_last_good_picture(tmp_path, capsys):
    assert main([*INVERT, "--tv_weight=1e38", f"--out_dir={tmp_path}"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "the gradient of the tv term is not finite" in error and "last_good.png" in error
    assert load_image(tmp_path / "last_good.png").shape[1] == 16


@pytest.mark.parametrize(
    ("factor", "said"),
    [
        (1e-38, "conv2_1' answers to the picture with zeros only"),
        (1e-30, "conv2_1' answers to the picture with zeros only"),
        (1e30, "the activations of .*weights.npz are beyond float32"),
        (np.nan, "weights.npz"),
    ],
)
def test_weights_beyond_float32_are_said(tmp_path, capsys, factor, said):
    network = NETWORKS["vgg11"]
    drawn = random_weights(jax.random.key(0), network, last_layer="conv2_1")
    arrays = {}
    for layer, shapes in weight_shapes(network, "conv5_2").items():
        kernel = np.zeros(shapes["kernel"], np.float32)  # the file must be whole
        if layer in drawn:
            kernel = np.asarray(drawn[layer]["kernel"]) * np.float32(factor)
        arrays[f"{layer}.weight"] = kernel.transpose(3, 2, 0, 1)
        arrays[f"{layer}.bias"] = np.zeros(shapes["bias"], np.float32)
    np.savez(tmp_path / "weights.npz", **arrays)
    words = ["invert", "--image=chelsea", "--network=vgg11", "--layer=conv2_1", *SMALL]
    words += ["--input_convention=caffe", f"--trained_weights={tmp_path}/weights.npz"]
    words += [f"--out_dir={tmp_path / 'out'}"]
    assert main(words) == 2
    assert re.search(said, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_a_picture_that_cannot_be_saved_costs_no_step(tmp_path, monkeypatch, capsys):
    def fail(path, image, **options):
        raise UserError("the disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(descent, "save_image", fail)
        assert main([*INVERT, f"--out_dir={tmp_path}"]) == 2
    assert main([*INVERT, f"--out_dir={tmp_path}"]) == 0
    assert "going on after step 4" in capsys.readouterr().err
    assert json.loads((tmp_path / "run.json").read_text())["sessions"] == 2


def test_a_stopped_command_goes_on_to_the_same_picture(tmp_path, monkeypatch, capsys):
    words = [*TEXTURE, "--num_steps=9", "--save_every=3"]
    assert main([*words, f"--out_dir={tmp_path / 'whole'}"]) == 0
    saved = descent.save_image

    def save_and_stop(path, image, **options):
        saved(path, image, **options)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(descent, "save_image", save_and_stop)
        assert main([*words, f"--out_dir={tmp_path / 'parts'}"]) == 130
    assert "after step 3 of 9; the same command goes on" in capsys.readouterr().err
    assert not (tmp_path / "parts" / "out.png").exists()
    assert main([*words, f"--out_dir={tmp_path / 'parts'}"]) == 0
    whole, parts = ((tmp_path / name / "out.png").read_bytes() for name in ("whole", "parts"))
    assert whole == parts


def test_transparency_is_said_and_recorded(tmp_path, capsys):
    Pillow.new("RGBA", (32, 21), (200, 10, 10, 90)).save(tmp_path / "glass.png")
    words = [*INVERT, f"--image={tmp_path / 'glass.png'}", f"--out_dir={tmp_path / 'out'}"]
    assert main(words) == 0
    assert "randviz invert: warning: " in capsys.readouterr().err
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert "white" in record["pictures"]["image"]["warnings"][0]


def test_fully_connected_layers_invert_at_the_size_they_need(tmp_path, monkeypatch, tiny):
    monkeypatch.setitem(NETWORKS, "vgg19", tiny)
    words = ["invert", "--image=astronaut", "--layer=fc6", "--image_size=12", "--num_steps=3"]
    assert main([*words, f"--out_dir={tmp_path}"]) == 0
    assert "fc6" in json.loads((tmp_path / "run.json").read_text())["layer_weights"]["content"]


def test_demo_writes_pictures_panels_and_a_page(tmp_path, monkeypatch):
    # The same shows, shallower and smaller.
    flags = {
        "invert": {"layer": "conv1_2", "image_size": 16},
        "texture": {"layers": ("conv1_1",), "image_size": 16},
        "style": {"content_layers": ("conv1_1",), "style_layers": ("conv1_2",), "image_size": 16},
    }
    small = {"image_size": 32, "scale_sizes": ("32",), "scale_steps": ("2",)}
    shows = [
        dataclasses.replace(show, flags={**show.flags, **flags.get(show.name, small)})
        for show in demo.SHOWS
    ]
    monkeypatch.setattr(demo, "SHOWS", shows)
    for _ in range(2):  # it can be run again
        assert main(["demo", f"--out_dir={tmp_path}", "--num_steps=2"]) == 0
    page = (tmp_path / "index.html").read_text()
    for show in shows:
        name = show.name
        assert (tmp_path / name / "out.png").exists()
        assert f'src="{name}_panel.png"' in page and (tmp_path / f"{name}_panel.png").exists()
        assert f"randviz {name.removeprefix('filters_')} --" in page


def test_help_is_there_without_a_command_and_with_each(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in (*COMMANDS, "chelsea"))
    assert "Exit codes:" in shown and "stopped by Ctrl-C" in shown
    for name in COMMANDS:
        assert main([name, "--help"]) == 0
        short = capsys.readouterr().out
        assert f"Usage: randviz {name} " in short and "Example" in short and "--helpfull" in short
        assert short.count("\n") < 40 and max(map(len, short.splitlines())) <= 100
        assert main(["help", name]) == 0
        assert capsys.readouterr().out == short
        assert main([name, "--helpfull"]) == 0
        full = capsys.readouterr().out
        assert len(full) > len(short)
        for field in dataclasses.fields(load_command(name).Settings):
            assert f"  --{field.name}" in full or f"  --no{field.name}" in full
    assert main([]) == 2


def test_exit_codes_are_the_same_in_the_help_and_the_guide():
    guide = (ROOT / "docs" / "guides" / "own_picture.md").read_text()
    rows = re.findall(r"^\| ([\d, ]+) \|", guide, re.M)
    told = inspect.getdoc(entry).split("Exit codes:")[1]
    assert sorted(re.findall(r"\d+", " ".join(rows))) == sorted(re.findall(r"\d+", told))


# What makes an example small, after its own flags.
SMALLEST = {
    "style": "--image_size=24 --num_steps=2 --square",
    "texture": "--image_size=24 --num_steps=2 --output_size=24x24",
    "invert": "--image_size=16 --num_steps=2 --layer=conv1_1",
    "compare": "--image_size=16 --num_steps=2 --layers=conv1_1",
    "select": "--image_size=16 --num_steps=2 --last_layer=conv1_1 --num_candidates=2",
    "population": "--image_size=16 --num_steps=2 --layers=conv1_1 --num_networks=2 --num_noises=1"
    " --num_candidates=1 --selection_steps=2",
    "league": "--network=small_narrow --image=chelsea --texture_image=brick --image_size=32"
    " --num_features=512 --num_steps=2 --num_networks=1",
}
PAPERS = {
    "style": "--style_layers=conv1_1 --content_layers=conv1_1",
    "texture": "--layers=conv1_1",
}


def list_examples(command):
    """The words of each command line in a command's help."""
    doc = load_command(command).__doc__
    lines = re.findall(r"^  randviz (.*?)(?:   \(.*\))?$", doc, re.M)
    assert lines
    return list(map(shlex.split, lines))


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_of_the_help_are_read(command):
    for name, *words in list_examples(command):
        parse_flags(load_command(name).Settings, words)


@pytest.mark.slow
@pytest.mark.parametrize("command", SMALLEST)
def test_the_examples_of_the_help_work(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    Pillow.effect_noise((24, 24), 50).convert("RGB").save(tmp_path / "photos" / "me.jpg")
    for index, (name, *words) in enumerate(list_examples(command)):
        if any("vgg19.h5" in word for word in words):
            continue  # needs a file of trained weights
        words += SMALLEST[name].split()
        if "--method=paper" in words:
            words += PAPERS[name].split()
        if "--out_dir=out/net" not in words:
            words.append(f"--out_dir=out/{index}")
        assert main([name, *words]) == 0, words


@pytest.mark.slow
def test_a_killed_command_goes_on_to_the_same_picture(tmp_path):
    words = [
        sys.executable, "-m", "randviz", "invert", "--image=chelsea", "--image_size=64",
        "--layer=conv4_1", "--num_steps=1500",
    ]  # fmt: skip
    subprocess.run([*words, f"--out_dir={tmp_path / 'whole'}"], check=True)
    parts = tmp_path / "parts"
    process = subprocess.Popen([*words, f"--out_dir={parts}"])
    # It saves every twenty seconds; a state still being written has a longer name.
    while not any(path.name.isdigit() for path in parts.glob(".unfinished-*/*")):
        assert process.poll() is None, "the run ended before it saved anything"
        time.sleep(0.1)
    process.kill()
    process.wait()
    assert not (parts / "out.png").exists()
    subprocess.run([*words, f"--out_dir={parts}"], check=True)
    assert json.loads((parts / "run.json").read_text())["sessions"] == 2
    assert (tmp_path / "whole" / "out.png").read_bytes() == (parts / "out.png").read_bytes()


def test_programs_are_kept_in_the_users_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = jax.config.jax_compilation_cache_dir
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        main(["invert", "--layer=nowhere", "--image=chelsea"])
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "randviz")
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


SELECT = ["select", "--reference_image=astronaut", "--image_size=16", "--num_steps=5"]


@pytest.mark.slow
def test_a_selected_network_is_a_recipe_that_commands_take(tmp_path, capsys):
    out = tmp_path / "net"
    words = [*SELECT, "--num_candidates=3", "--last_layer=conv2_1", "--seed=4"]
    assert main([*words, f"--out_dir={out}"]) == 0
    shown, progress = capsys.readouterr()
    assert "conv2_1: candidate 3/3" in progress and "left" in progress
    line = (out / "recipe.txt").read_text().strip()
    assert shown.strip().endswith(line)
    records = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    assert [record["trial"]["layer"] for record in records] == ["conv1_1", "conv1_2", "conv2_1"]
    for record in records:
        assert record["losses"].index(min(record["losses"])) == record["draw"]
        assert len(record["distances"]) == len(record["raw_losses"]) == 3
    # The file, the line, and the network they stand for are one picture.
    pictures = []
    for index, network in enumerate((out / "recipe.txt", line)):
        place = tmp_path / str(index)
        assert main([*INVERT, f"--network={network}", f"--out_dir={place}"]) == 0
        pictures.append((place / "out.png").read_bytes())
    assert pictures[0] == pictures[1]
    deeper = [*INVERT, f"--network={line}", "--layer=conv2_2", f"--out_dir={tmp_path / 'x'}"]
    assert main(deeper) == 2
    assert "ends at conv2_1" in capsys.readouterr().err


def test_a_stopped_selection_goes_on_to_the_same_recipe(tmp_path, monkeypatch):
    words = [*SELECT, "--num_candidates=2", "--last_layer=conv1_2"]
    assert main([*words, f"--out_dir={tmp_path / 'whole'}"]) == 0
    tried = select.select_layer

    def stop_in_the_middle(*arguments, **options):
        if options["layer"] == "conv1_2" and options["first_draw"] == 1:
            raise KeyboardInterrupt
        return tried(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(select, "select_layer", stop_in_the_middle)
        assert main([*words, f"--out_dir={tmp_path / 'parts'}"]) == 130
    assert main([*words, f"--out_dir={tmp_path / 'parts'}"]) == 0
    whole, parts = ((tmp_path / name / "recipe.txt").read_text() for name in ("whole", "parts"))
    assert whole == parts


def test_a_selection_among_losses_that_are_not_finite_is_refused(tmp_path, capsys):
    words = [*SELECT, "--num_candidates=1", "--last_layer=conv1_1", "--bias_scale=3e38"]
    assert main([*words, f"--out_dir={tmp_path / 'out'}"]) == 2
    assert "no candidate of layer 'conv1_1' has a finite loss" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_draw_whose_loss_is_not_a_number_is_not_kept(monkeypatch):
    def choose(*args, first_draw, **options):
        loss = np.array([[3.0, np.nan, 1.0, 2.0][first_draw]])
        return select.LayerChoice(first_draw, loss, loss, np.zeros((1, 2, 2, 3)), np.array([1]))

    monkeypatch.setattr(select, "select_layer", choose)
    settings = select.Settings(num_candidates=4)
    found = select._try_candidates(settings, None, {}, None, "conv1_1")
    assert found.draw == 2 and len(found.losses) == 4


def test_one_candidate_is_the_plain_network_of_the_same_seed(tmp_path):
    words = [*SELECT, "--num_candidates=1", "--last_layer=conv1_2", "--seed=6"]
    assert main([*words, f"--out_dir={tmp_path}"]) == 0
    pictures = []
    for name, network in (("a", tmp_path / "recipe.txt"), ("b", "vgg19")):
        words = [*INVERT, f"--network={network}", "--seed=6", f"--out_dir={tmp_path / name}"]
        assert main(words) == 0
        pictures.append((tmp_path / name / "out.png").read_bytes())
    assert pictures[0] == pictures[1]


@pytest.mark.slow
def test_racing_and_batches_select_too(tmp_path):
    for option in ("--racing", "--batch_size=3"):
        words = [*SELECT, "--num_candidates=3", "--last_layer=conv1_1", option]
        assert main([*words, f"--out_dir={tmp_path / option}"]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("select --reference_image=astronaut --num_candidates=0", "num_candidates"),
        ("select --reference_image=astronaut --image_size=8 --last_layer=conv5_1", "too small"),
        ("select --reference_image=astronaut --last_layer=conv9", "conv9"),
        ("select --reference_image=astronaut --last_layer=pool0", "pool0"),
        ("select --reference_image=astronaut --network=ranvgg", "architecture"),
        ("invert --image=chelsea --network=nowhere.txt", "nowhere.txt"),
        ("invert --image=chelsea --network={}/text.png", "not a recipe"),
        ("invert --image=chelsea --network=ranvgg --scale=0.1", "--scale"),
        ("invert --image=chelsea --network=randviz-2", "newer"),
    ],
)
def test_mistakes_about_networks_get_a_sentence(files, capsys, words, said):
    test_mistakes_get_a_sentence_and_leave_nothing(files, capsys, words, said)


def test_a_recipe_whose_check_disagrees_is_refused(tmp_path, capsys):
    line = load_recipe("ranvgg")
    wrong = format_recipe(dataclasses.replace(line, check="0" * 16))
    assert main([*INVERT, f"--network={wrong}", f"--out_dir={tmp_path / 'out'}"]) == 2
    assert "does not agree" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_selection_folder_of_other_settings_is_refused_and_untouched(tmp_path, capsys):
    words = [*SELECT, "--num_candidates=1", "--last_layer=conv1_1", f"--out_dir={tmp_path}"]
    assert main(words) == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert main([*words, "--seed=1"]) == 2
    assert "other settings (seed" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
