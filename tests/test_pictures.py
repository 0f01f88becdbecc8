"""Many pictures by one command: which, where to, compiled once, skipped, and failing alone."""

import json
import logging
import os
import signal

import jax
import pytest
from PIL import Image as Pillow

from randviz.__main__ import main
from randviz.commands import pictures
from randviz.commands.pictures import find_pictures, name_folders
from randviz.types import UserError

INVERT = ["invert", "--layer=conv1_1", "--image_size=16", "--num_steps=3"]


@pytest.fixture
def photos(tmp_path):
    """Three pictures of one shape and a file that is none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("c.png", "a.jpg", "b.PNG"):
        Pillow.effect_noise((32, 24), 50).convert("RGB").save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    return folder


def read_records(folder):
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/run.json")}


@pytest.mark.parametrize("kind", ["folder", "pattern", "words", "words after ="])
def test_many_pictures_each_have_a_folder(photos, tmp_path, capsys, kind):
    files = sorted(str(path) for path in photos.glob("*.[jpP]*"))
    words = {
        "folder": [f"--image={photos}"],
        "pattern": [f"--image={photos}/*.[jpP]*"],
        "words": ["--image", *files],
        "words after =": [f"--image={files[0]}", *files[1:]],
    }[kind]
    out = tmp_path / "out"
    assert main([*INVERT, *words, f"--out_dir={out}"]) == 0
    assert sorted(read_records(out)) == ["a", "b", "c"]
    assert all((out / name / "out.png").exists() for name in "abc")
    assert f"3 of 3 pictures are done, see the folders in {out}" in capsys.readouterr().out


def test_a_picture_of_many_is_what_it_is_alone(photos, tmp_path):
    assert main([*INVERT, f"--image={photos}", f"--out_dir={tmp_path / 'many'}"]) == 0
    assert main([*INVERT, f"--image={photos}/b.PNG", f"--out_dir={tmp_path / 'one'}"]) == 0
    one, many = (tmp_path / name / "out.png" for name in ("one", "many/b"))
    assert one.read_bytes() == many.read_bytes()


def test_pictures_of_one_size_are_compiled_once(photos, tmp_path, caplog):
    words = [*INVERT, f"--image={photos}", f"--out_dir={tmp_path / 'out'}"]
    compiled, names = [], []
    finish = pictures.run_task

    def count(*arguments, **options):
        caplog.clear()
        finish(*arguments, **options)
        found = [m.split(" with ")[0] for m in caplog.messages if m.startswith("Compiling")]
        compiled.append(len(found))
        names.append(found)

    with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.WARNING, "jax"):
        patch.setattr(pictures, "run_task", count)
        jax.clear_caches()
        with jax.log_compiles():
            assert main(words) == 0
    assert compiled[0] > 2 and compiled[1:] == [0, 0], names


def test_what_was_done_is_skipped_and_what_failed_is_said(photos, tmp_path, capsys):
    out = tmp_path / "out"
    words = [*INVERT, f"--image={photos}", f"--out_dir={out}"]
    whole = (photos / "b.PNG").read_bytes()
    (photos / "b.PNG").write_bytes(whole[:60])
    assert main(words) == 2
    said = capsys.readouterr().err.splitlines()
    assert sum(line.startswith(f"randviz invert: {photos}/b.PNG ") for line in said) == 1
    assert "2 of 3 pictures are done" in said[-1]
    assert f"{photos}/b.PNG failed" in said[-1]
    times = {name: (out / name / "out.png").stat().st_mtime_ns for name in "ac"}
    (photos / "b.PNG").write_bytes(whole)
    assert main(words) == 0
    assert "3 of 3 pictures are done, 2 of them before" in capsys.readouterr().out
    assert times == {name: (out / name / "out.png").stat().st_mtime_ns for name in "ac"}
    # Another picture under the same name, or other settings, are not done.
    (photos / "a.jpg").write_bytes((photos / "c.png").read_bytes())
    assert main(words) == 0
    assert "2 of them before" in capsys.readouterr().out
    assert main([*words, "--seed=1"]) == 0
    assert "before" not in capsys.readouterr().out


def test_a_signal_ends_all_and_the_same_command_goes_on(photos, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    words = [*INVERT, f"--image={photos}", f"--out_dir={out}"]
    finish = pictures.run_task

    def stop_after_second(task, **options):
        finish(task, **options)
        if task.settings.out_dir.endswith("b"):
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(pictures, "run_task", stop_after_second)
        assert main(words) == 130
    assert sorted(read_records(out)) == ["a", "b"]
    assert main(words) == 0
    assert "3 of 3 pictures are done, 2 of them before" in capsys.readouterr().out


def test_settings_that_fit_no_picture_are_said_once(photos, tmp_path, capsys):
    words = ["invert", f"--image={photos}", "--layer=nowhere", f"--out_dir={tmp_path / 'out'}"]
    assert main(words) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    for flag in ("output_image", "animation"):
        more = f"--{flag}={tmp_path}/x.webp"
        assert main([*INVERT, f"--image={photos}", more, f"--out_dir={tmp_path / 'out'}"]) == 2
        assert f"--{flag} names one file and --image names 3" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_pictures_are_found_once_each(photos):
    assert find_pictures("image", [str(photos)]) == [
        f"{photos}/{n}" for n in ("a.jpg", "b.PNG", "c.png")
    ]
    assert find_pictures("image", [f"{photos}/c.png", f"{photos}/*.png", "chelsea"]) == [
        f"{photos}/c.png",
        "chelsea",
    ]
    with pytest.raises(UserError, match=r"no file fits --image=.*\*\.webp"):
        find_pictures("image", [f"{photos}/*.webp"])
    (photos / "empty").mkdir()
    with pytest.raises(UserError, match="empty has no pictures"):
        find_pictures("image", [f"{photos}/empty"])


def test_folders_of_pictures_with_one_name_differ():
    sources = ["x/a.png", "y/a.png", "y/A.jpg", "z/b.png", "chelsea"]
    folders = name_folders(sources)
    assert len({name.casefold() for name in folders.values()}) == len(sources)
    assert folders["z/b.png"] == "b" and folders["chelsea"] == "chelsea"


@pytest.mark.parametrize("words", [["style", "--style_image=coffee"], ["texture"]])
def test_other_tasks_take_many_too(photos, tmp_path, words):
    flag = {"style": "content_image", "texture": "texture_image"}[words[0]]
    small = ["--image_size=32", "--num_steps=2", f"--out_dir={tmp_path / 'out'}"]
    assert main([*words, *small, f"--{flag}={photos}/[ab]*"]) == 0
    assert sorted(read_records(tmp_path / "out")) == ["a", "b"]
