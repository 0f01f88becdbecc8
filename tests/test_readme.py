"""The README's Python, run as it stands at a small size."""

import pathlib
import re

README = (pathlib.Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)
# What only makes a block take less time.
SMALLER = (
    (r"image_size=\d+", "image_size=24"),
    (r"num_steps=\d+", "num_steps=3"),
    (r"_weights\(weights_key, rv.VGG19", "_weights(weights_key, rv.VGG19, last_layer='conv2_1'"),
    (r'layer="pool4"', 'layer="pool1"'),
    (r"every=\d+", "every=2"),
    (r"rv\.Style\(", "rv.Style(content_layers='conv1_1', style_layers=('conv1_1', 'conv2_1'), "),
    (r"sizes=\(.*?\)", "sizes=(24,)"),
    (r"steps=\(.*?\)", "steps=(3,)"),
    (r"strength=0.6", "strength=0.6, num_steps=3"),
    (r"shape=\(64, 96\)", "shape=(20, 24), num_steps=3"),
)


def test_the_blocks_run_one_after_another(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    for index, block in enumerate(BLOCKS):
        if "vgg19.h5" in block:
            continue  # needs a file of trained weights
        for pattern, smaller in SMALLER:
            block = re.sub(pattern, smaller, block)
        names.pop("result", None)
        exec(compile(block, f"README block {index}", "exec"), names)
        if "result" in names:
            image = names["result"].image
            assert image.shape[2] == 3 and bool((image != 0).any())


def test_there_are_blocks_for_each_kind_of_network():
    for name in ("from_function", "from_linen", "from_nnx", "RandomNetwork", "iterate"):
        assert any(f"rv.{name}(" in block for block in BLOCKS)
