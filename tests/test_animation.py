"""Animations: frames kept one by one, put together at the end, the same after a stop."""

import os
import signal

import numpy as np
import pytest
from pictures import BLUE, GREEN, PIXELS, RED, explained, plain
from PIL import Image as Pillow

from randviz.__main__ import main
from randviz.commands import descent
from randviz.host.animation import check_animation, choose_interval, keep_frame, write_animation


def read_frames(path):
    """All frames as arrays, and how long each is seen, in milliseconds."""
    frames, durations = [], []
    with Pillow.open(path) as picture:
        for index in range(picture.n_frames):
            picture.seek(index)
            frames.append(np.asarray(picture.convert("RGB")))
            durations.append(picture.info["duration"])
    return frames, durations


@pytest.mark.parametrize("name", ["a.webp", "a.gif"])
def test_frames_come_in_order_at_the_size_of_the_last(tmp_path, name):
    keep_frame(tmp_path / "frames", 100, plain(GREEN, 6, 8))
    keep_frame(tmp_path / "frames", 20, plain(BLUE))
    keep_frame(tmp_path / "frames", 20, plain(RED))
    write_animation(tmp_path / name, tmp_path / "frames", plain(BLUE))
    frames, durations = read_frames(tmp_path / name)
    assert [frame.shape for frame in frames] == [(12, 16, 3)] * 3
    for frame, colour in zip(frames, (RED, GREEN, BLUE), strict=True):
        np.testing.assert_allclose(frame / 255, plain(colour), atol=0.05)
    assert durations[0] == durations[1] < durations[2]


def test_quality_is_that_of_webp(tmp_path):
    sizes = []
    for quality in (95, 10):
        keep_frame(tmp_path / "frames", 0, PIXELS[::-1] / 255)
        write_animation(tmp_path / "a.webp", tmp_path / "frames", PIXELS / 255, quality=quality)
        sizes.append((tmp_path / "a.webp").stat().st_size)
    assert sizes[0] > sizes[1]


def test_names_that_do_not_fit_are_explained(tmp_path):
    with explained("a.png", ".webp or .gif"):
        check_animation(tmp_path / "a.png", tmp_path / "out.png")
    with explained("both the picture and the animation"):
        check_animation(tmp_path / "a.webp", tmp_path / "a.webp")


@pytest.mark.parametrize("num_steps", [1, 39, 300, 500, 2000])
def test_about_forty_frames_are_chosen(num_steps):
    count = num_steps // choose_interval(num_steps)
    assert count == num_steps if num_steps < 40 else 35 <= count <= 45


TEXTURE = [
    "texture", "--method=paper", "--texture_image=starry_night", "--layers=conv1_1",
    "--scale_sizes=8,16", "--scale_steps=5,4", "--image_size=16",
]  # fmt: skip


def test_a_stopped_run_has_the_frames_of_a_whole_one(tmp_path, monkeypatch):
    run = lambda name: main(
        [*TEXTURE, f"--animation={tmp_path / name / 'a.webp'}", f"--out_dir={tmp_path / name}"]
    )
    assert run("whole") == 0
    kept = descent.keep_frame

    def keep_and_stop(folder, step, image):
        kept(folder, step, image)
        if step in (3, 7):
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(descent, "keep_frame", keep_and_stop)
        assert run("parts") == 130
        assert not (tmp_path / "parts" / "a.webp").exists()
        assert run("parts") == 130
    assert run("parts") == 0
    frames, _ = read_frames(tmp_path / "whole" / "a.webp")
    assert len(frames) == 10  # the start, after each of eight steps, and the result
    assert {frame.shape for frame in frames} == {(13, 16, 3)}
    whole, parts = ((tmp_path / name / "a.webp").read_bytes() for name in ("whole", "parts"))
    assert whole == parts
    names = sorted(path.name for path in (tmp_path / "parts").iterdir())
    assert names == ["a.webp", "out.png", "run.json"]  # and no frames


def test_save_every_is_the_interval_of_frames_too(tmp_path):
    words = [*TEXTURE, "--save_every=4", "--bits=16", f"--out_dir={tmp_path}"]
    assert main([*words, f"--animation={tmp_path / 'a.gif'}"]) == 0
    frames, _ = read_frames(tmp_path / "a.gif")
    assert len(frames) == 4  # of steps 0, 4, 8 and 9
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["a.gif", "out.png", "out_00004.png", "out_00008.png", "run.json"]
