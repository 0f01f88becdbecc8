"""Commands over many pictures: which, where to, what is skipped, what fails, what is compiled."""

import functools
import json
import os
import signal

import jax
import numpy as np
import pytest
from pictures import explained
from PIL import Image as Pillow

from randviz.__main__ import main
from randviz.commands import descent, invert
from randviz.commands.pictures import find_pictures, name_folders
from randviz.host.images import load_image
from randviz.host.settings import parse_flags

SMALL = ["--image_size=16", "--num_steps=2"]
INVERT = ["invert", "--layer=conv1_1", *SMALL]
slow = functools.partial(pytest.param, marks=pytest.mark.slow)


def write(path, seed, size=(24, 16)):
    path.parent.mkdir(exist_ok=True, parents=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Pillow.fromarray(pixels).save(path)


@pytest.fixture
def photos(tmp_path):
    """Three pictures of one size, and what is none."""
    for seed, name in enumerate(("b.png", "a.png", "c.jpg")):
        write(tmp_path / "photos" / name, seed)
    (tmp_path / "photos" / "notes.txt").write_text("no picture")
    (tmp_path / "photos" / "album").mkdir()
    return tmp_path / "photos"


def read(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.png")}


def test_a_folder_a_pattern_and_words_name_the_same_pictures(photos, monkeypatch):
    monkeypatch.chdir(photos.parent)
    wanted = ["photos/a.png", "photos/b.png", "photos/c.jpg"]
    assert find_pictures("image", ["photos"]) == wanted
    assert find_pictures("image", ["photos/*.*g"]) == wanted
    assert find_pictures("image", [wanted[2], wanted[0], "./photos/c.jpg"]) == wanted[2::-2]
    assert find_pictures("image", ["chelsea", "photos/[b]*", "no.png"]) == [
        "chelsea",
        "photos/b.png",
        "no.png",
    ]
    with explained("photos/album", "no pictures", "--image"):
        find_pictures("image", ["photos/album"])
    with explained("--image=photos/*.tif"):
        find_pictures("image", ["photos/*.tif"])


def test_brackets_in_a_files_name_are_no_pattern(photos):
    write(photos / "d[1].png", 4)
    write(photos / "e[2]" / "f.png", 5)
    assert find_pictures("image", [f"{photos}/d[1].png"]) == [f"{photos}/d[1].png"]
    assert find_pictures("image", [f"{photos}/e[2]"]) == [f"{photos}/e[2]/f.png"]


@pytest.mark.parametrize(
    ("sources", "folders"),
    [
        (["x/a.png", "x/b.png"], ["a", "b"]),
        (["x/a.png", "x/A.jpg"], ["a.png", "A.jpg"]),
        (["chelsea", "x/chelsea.jpg"], ["chelsea", "chelsea.jpg"]),
        (["x/1/a.png", "y/1/a.png", "x/b.png"], ["x/1/a.png", "y/1/a.png", "b"]),
        (["x/a.png", "x/a.jpg", "y/a.jpg"], ["a.png", "x/a.jpg", "y/a.jpg"]),
    ],
)
def test_each_result_has_a_folder_of_its_own(sources, folders):
    assert list(name_folders(sources).values()) == folders


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ("--image a.png", "a.png"),
        ("--image a.png b.png --seed=3", ("a.png", "b.png")),
        ("--image=a.png b.png --seed=3", ("a.png", "b.png")),
        ("--seed=3 -image a.png b.png c.png", ("a.png", "b.png", "c.png")),
        ("--image a.png b.png --seed=3 --image=c.png", "c.png"),
        ("--image=a.png --image b.png c.png", ("b.png", "c.png")),
        ("--image=photos/*.png", "photos/*.png"),
    ],
)
def test_a_pattern_may_have_been_expanded_by_the_shell(words, value):
    settings = parse_flags(invert.Settings, words.split())
    assert settings.image == value and settings.seed in (0, 3)


@pytest.mark.parametrize("words", ["--layer pool1 b.png", "b.png --image=a.png", "--image"])
def test_words_after_other_flags_are_refused(words):
    with explained("b.png" if "b.png" in words else "image"):
        parse_flags(invert.Settings, words.split())


def count_compilations(events):
    return sum("backend_compile" in name for name in events)


@pytest.mark.parametrize(
    ("command", "flag"),
    [
        slow(["style", "--style_image=coffee", "--method=paper", "--content_layers=conv1_1",
              "--style_layers=conv1_1"], "content_image"),
        (["style", "--style_image=coffee", "--image_size=24"], "content_image"),
        slow(["texture", "--image_size=24"], "texture_image"),
        slow(["invert", "--layer=conv1_1"], "image"),
    ],
)  # fmt: skip
def test_pictures_of_one_size_are_compiled_for_once(photos, tmp_path, capsys, command, flag):
    events, counts = [], []
    listen = lambda name, seconds, **more: events.append(name)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for words in ([f"{photos}/a.png"], [f"{photos}/*.*g"]):
            events.clear()
            out = f"--out_dir={tmp_path / str(len(counts))}"
            assert main([command[0], *SMALL, *command[1:], f"--{flag}", *words, out]) == 0
            counts.append(count_compilations(events))
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    # One picture compiled all that three more take, beside each other and beside the first.
    assert counts[0] > 0 and counts[1] == 0
    many, one = tmp_path / "1", tmp_path / "0"
    assert sorted(read(many)) == ["a/out.png", "b/out.png", "c/out.png"]
    assert read(many)["a/out.png"] == read(one)["out.png"] != read(many)["b/out.png"]
    records = [json.loads((p / "run.json").read_text()) for p in (one, many / "a")]
    assert records[0]["settings"][flag] == records[1]["settings"][flag] == f"{photos}/a.png"
    assert records[0].keys() == records[1].keys()
    assert "3 of 3 pictures are done" in capsys.readouterr().out


def test_what_was_done_with_the_same_settings_and_pixels_is_skipped(photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert main([*INVERT, f"--image={photos}", f"--out_dir={out}"]) == 0
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.*")}

    def repaint(*flags):
        """The names of the pictures that the command makes again."""
        capsys.readouterr()
        assert main([*INVERT, f"--image={photos}", f"--out_dir={out}", *flags]) == 0
        shown = capsys.readouterr().out
        made = {p.parent.name for p, t in before.items() if p.stat().st_mtime_ns != t}
        before.update({path: path.stat().st_mtime_ns for path in out.rglob("*.*")})
        assert shown.count("was done before") == 3 - len(made)
        return made

    assert repaint() == set() == repaint("--print_every=1")
    write(photos / "b.png", 9)
    assert repaint() == {"b"}
    (out / "c" / "run.json").write_text('{"settings": []}')
    assert repaint() == {"c"}
    before.pop(out / "a" / "out.png")
    (out / "a" / "out.png").unlink()
    assert repaint() == {"a"}  # by its record
    assert repaint("--seed=1") == {"a", "b", "c"}
    # The pictures count, not the way to them.
    photos = photos.rename(tmp_path / "elsewhere")
    assert repaint("--seed=1") == set()


def test_what_fails_is_said_and_the_others_go_on(photos, tmp_path, capsys):
    (photos / "aa.png").write_text("this is not a picture")
    out = tmp_path / "out"
    words = [*INVERT, f"--image={photos}", f"--out_dir={out}"]
    assert main(words) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.endswith(".")]
    assert len(errors) == 2 and errors[0].startswith(f"randviz invert: {photos}/aa.png is not")
    assert "3 of 4 pictures are done" in errors[1] and f"{photos}/aa.png failed" in errors[1]
    assert sorted(read(out)) == ["a/out.png", "b/out.png", "c/out.png"]
    assert not (out / "aa").exists()
    write(photos / "aa.png", 7)
    assert main(words) == 0
    assert "4 of 4 pictures are done, 3 of them before" in capsys.readouterr().out


def test_a_failure_after_the_start_is_of_one_picture(photos, tmp_path, capsys):
    Pillow.new("RGB", (24, 16), (128, 128, 128)).save(photos / "a.png")
    Pillow.new("RGB", (24, 16)).save(photos / "b.png")
    assert main([*INVERT, f"--image={photos}", f"--out_dir={tmp_path / 'out'}"]) == 2
    error = capsys.readouterr().err
    assert f"{photos}/b.png: layer 'conv1_1' answers to the picture with zeros only" in error
    assert "2 of 3 pictures are done" in error


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("style --content_image={}", "--style_image"),
        ("style --content_image={} --style_image=no.png", "no.png does not exist"),
        ("invert --image={} --layer=conv9", "conv9"),
        ("invert --image={} --layer=conv1_1 --output_image=a.png", "--output_image names one file"),
        ("invert --image={} --layer=conv1_1 --animation=a.gif", "--animation names one file"),
        ("invert --image={}/album --layer=conv1_1", "has no pictures"),
        ("texture --texture_image={}/*.tif", "no file fits"),
    ],
)
def test_what_is_wrong_with_all_is_said_once_and_leaves_nothing(photos, capsys, words, said):
    out = photos.parent / "out"
    words = words.replace("{}", str(photos)).split()
    assert main([*words, *SMALL, f"--out_dir={out}"]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not out.exists()


@pytest.mark.parametrize("last_step", [False, True])
def test_a_stopped_folder_goes_on_to_the_same_pictures(
    photos, tmp_path, monkeypatch, capsys, last_step
):
    words = [*INVERT, "--num_steps=4", f"--image={photos}"]
    assert main([*words, f"--out_dir={tmp_path / 'whole'}"]) == 0
    taken, count = descent.runs.take_steps, [0]

    def take_and_stop(*arguments, **options):
        found = taken(*arguments, **options)
        count[0] += options["num_steps"]
        # In the middle of the second picture; or as it ends, when there is nothing to stop.
        if count[0] == (8 if last_step else 6):
            os.kill(os.getpid(), signal.SIGINT)
        return found

    parts = f"--out_dir={tmp_path / 'parts'}"
    with monkeypatch.context() as patch:
        patch.setattr(descent.runs, "take_steps", take_and_stop)
        patch.setattr(descent.runs, "_CHUNK_STEPS", 1)
        assert main([*words, parts]) == 130
    error = capsys.readouterr().err.splitlines()[-1]
    assert ("after 2 of 3 pictures" if last_step else "after step 2 of 4") in error
    assert len(read(tmp_path / "parts")) == 1 + last_step
    assert main([*words, parts]) == 0
    assert f"done, {1 + last_step} of them before" in capsys.readouterr().out
    assert read(tmp_path / "parts") == read(tmp_path / "whole")


@pytest.mark.slow
def test_more_sizes_than_are_kept_are_painted_all_the_same(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("randviz.commands.pictures._MOST_SIZES", 1)
    write(photos / "b.png", 3, size=(16, 24))
    assert main([*INVERT, f"--image={photos}", f"--out_dir={tmp_path / 'out'}"]) == 0
    assert load_image(tmp_path / "out" / "b" / "out.png").shape == (16, 11, 3)


def test_a_dry_run_tries_the_first(photos, tmp_path, capsys):
    words = [*INVERT, f"--image={photos}", f"--out_dir={tmp_path / 'out'}", "--dry_run"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert f"3 pictures; of the first, {photos}/a.png:" in shown and "16×11 pixels" in shown
    assert not (tmp_path / "out").exists()
