"""The same seed is the same picture: under other settings of JAX, other chunks, other caches."""

import functools
import os
import subprocess
import sys

import numpy as np
import pytest

from randviz.host.images import load_image

COMMANDS = [
    ["invert", "--image=chelsea", "--layer=conv1_2", "--image_size=16", "--num_steps=6"],
    [
        "style", "--content_image=chelsea", "--style_image=coffee", "--image_size=34",
        "--min_size=28", "--num_steps=6",
    ],
]  # fmt: skip
# {setting: (changes of the environment, flags)}
EXACT = {
    "threefry": ({"JAX_THREEFRY_PARTITIONABLE": "0"}, []),
    "chunks of one step": ({}, ["--print_every=1"]),
}
COLD = {"no programs cached": ({"XDG_CACHE_HOME": "new"}, [])}  # compiles everything anew
# Sums are split over as many threads as there are devices, and optax corrects Adam's bias, and
# jaxopt scales its direction, with double precision where it is on: the last bits differ.
ROUNDED = {
    "eight devices": ({"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}, []),
    "x64": ({"JAX_ENABLE_X64": "1"}, []),
}
RUN = "import sys; from randviz.__main__ import main; sys.exit(main(sys.argv[1:]))"


def paint(folder, words, changes=None, flags=()):
    """The bytes of the picture of a command in a process of its own, with 16 bits a channel."""
    changes = dict(changes or {})
    if "XLA_FLAGS" in changes:  # beside those of the tests, which change the last bits
        changes["XLA_FLAGS"] = f"{os.environ['XLA_FLAGS']} {changes['XLA_FLAGS']}"
    if "XDG_CACHE_HOME" in changes:
        changes["XDG_CACHE_HOME"] = str(folder / "cache")
    env = {**os.environ, **changes}
    place = [f"--out_dir={folder}", f"--output_image={folder}/out.png", "--bits=16"]
    subprocess.run([sys.executable, "-c", RUN, *words, *place, *flags], env=env, check=True)
    return (folder / "out.png").read_bytes()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """The bytes of each command's picture, made when they are first asked for."""
    return functools.cache(lambda number: paint(tmp_path_factory.mktemp("plain"), COMMANDS[number]))


def combine(settings):
    """All changes and all flags of some settings."""
    changes = {name: value for part, _ in settings.values() for name, value in part.items()}
    return changes, [flag for _, part in settings.values() for flag in part]


@pytest.mark.slow
def test_settings_of_draws_and_chunks_change_no_bit(tmp_path, pictures):
    assert paint(tmp_path, COMMANDS[1], *combine(EXACT)) == pictures(1)
    assert load_image(tmp_path / "out.png").std() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(COMMANDS)))
def test_devices_and_double_precision_change_the_last_bits_only(tmp_path, pictures, number):
    (tmp_path / "plain.png").write_bytes(pictures(number))
    paint(tmp_path, COMMANDS[number], *combine(ROUNDED))
    found, plain = (load_image(tmp_path / name) for name in ("out.png", "plain.png"))
    # A different draw, or a step more or less, changes levels by thousands.
    np.testing.assert_allclose(found, plain, atol=20 / 65535)


@pytest.mark.slow
@pytest.mark.parametrize("setting", [*EXACT, *COLD])
@pytest.mark.parametrize("number", range(len(COMMANDS)))
def test_no_setting_changes_a_bit(tmp_path, pictures, setting, number):
    assert paint(tmp_path, COMMANDS[number], *(EXACT | COLD)[setting]) == pictures(number)
