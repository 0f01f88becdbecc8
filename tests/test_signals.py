"""Signals from the outside: a sentence, and a process that ends by the signal."""

import pathlib
import signal
import subprocess
import sys

import pytest

SCRIPT = str(pathlib.Path(sys.executable).with_name("randviz"))
STOPPED = "randviz: stopped; the same command goes on after what it has saved."


@pytest.mark.parametrize(
    ("entry", "number"),
    [
        (["-m", "randviz", "invert"], signal.SIGINT),
        ([SCRIPT, "invert"], signal.SIGTERM),
        (["-m", "randviz.experiments.fig1_inversion"], signal.SIGHUP),
    ],
)
def test_a_signal_during_imports_ends_the_process_with_a_sentence(entry, number):
    words = [sys.executable, "-X", "importtime", *entry]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        # Python tells each import as soon as it is done: this is before jax.
        assert any("numpy" in line for line in process.stderr)
        process.send_signal(number)
        lines = [line for line in process.stderr if not line.startswith("import time:")]
    assert lines == [STOPPED + "\n"]
    assert process.returncode == -number


def test_a_signal_during_a_descent_saves_it_and_ends_the_process(tmp_path):
    words = [sys.executable, "-m", "randviz", "invert", "--image=chelsea", "--layer=conv1_1"]
    words += ["--image_size=16", "--num_steps=300000", "--print_every=1", f"--out_dir={tmp_path}"]
    words = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *words]  # as nohup does
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert any("step 3/" in line for line in process.stderr)
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        *_, last = process.stderr
    assert "stopped after step" in last and last.endswith("the same command goes on there.\n")
    assert process.returncode == -signal.SIGTERM
    (state,) = tmp_path.glob(".unfinished-*")
    assert any(path.name.isdigit() for path in state.iterdir())
