"""The README's Python, run as it stands at a small size."""

import pathlib
import re

import pytest

README = (pathlib.Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)
# What only makes a block take less time.
SMALLER = (
    (r"image_size=\d+", "image_size=24"),
    (r"num_steps=\d+", "num_steps=3"),
    (r"every=\d+", "every=2"),
    (r"sizes=\(.*?\)", "sizes=(12, 24)"),
    (r"steps=\(.*?\)", "steps=(2, 2)"),
)


@pytest.fixture(scope="module")
def names():
    return {}


@pytest.mark.parametrize("index", range(len(BLOCKS)))
def test_a_block_runs(index, names, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    block = BLOCKS[index]
    if "vgg19.h5" in block:
        pytest.skip("needs a file of trained weights")
    for pattern, smaller in SMALLER:
        block = re.sub(pattern, smaller, block)
    exec(compile(block, f"README block {index}", "exec"), names)  # each goes on with the one before
    if "result" in names:
        assert names["result"].image.shape[2] == 3
        assert (names["result"].image != 0).any()


def test_there_are_blocks_for_each_kind_of_network():
    for name in ("from_function", "from_linen", "from_nnx", "RandomNetwork", "iterate"):
        assert any(f"rv.{name}(" in block for block in BLOCKS)
