"""Results as pictures in a notebook, progress on the way, and the documentation's notebook."""

import base64
import importlib.util
import io
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from PIL import Image as Pillow

import randviz as rv
from randviz.descent.schedule import minimize_coarse_to_fine

ROOT = pathlib.Path(__file__).parents[1]
BOWL = Partial(lambda image: jnp.sum(jnp.square(image - 0.25)))


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def decode(png):
    return np.asarray(Pillow.open(io.BytesIO(png)))


def test_results_show_themselves_as_pictures(image):
    result = rv.Result(image, None)
    np.testing.assert_array_equal(decode(result._repr_png_()), np.floor(255 * image + 0.5))
    outside = rv.Iterate(3, 3 * image - 1, 0.5)
    assert decode(outside._repr_png_()).min() == 0 and decode(outside._repr_png_()).max() == 255


def test_what_is_no_picture_shows_itself_as_text(image):
    for wrong in (image[None], image * jnp.nan, image[..., :2], None):
        assert rv.Result(wrong, None)._repr_png_() is None
    seen = []
    jax.jit(lambda image: seen.append(rv.Result(image, None)._repr_png_()) or image)(image)
    assert seen == [None]


@pytest.mark.parametrize("num_steps", [0, 3, 100])
def test_progress_is_told_often_and_changes_nothing(image, num_steps):
    told = []
    watched = rv.minimize(BOWL, image, num_steps=num_steps, solver="adam", progress=told.append)
    plain = rv.minimize(BOWL, image, num_steps=num_steps, solver="adam")
    jax.tree.map(np.testing.assert_array_equal, watched, plain)
    steps = [found.step for found in told]
    assert steps == {0: [], 3: [1, 2, 3], 100: [*range(5, 101, 5)]}[num_steps]
    if told:
        np.testing.assert_array_equal(told[-1].image, plain.image)
        assert told[-1].loss == plain.trace.loss[-1]


def test_progress_counts_steps_over_all_sizes(image):
    told = []
    schedule = rv.Schedule((8, 16), (2, 3))
    minimize_coarse_to_fine(
        lambda scale: BOWL, image, (12, 16), schedule, solver="adam", progress=told.append
    )
    assert [found.step for found in told] == [1, 2, 3, 4, 5]
    assert [found.image.shape for found in told] == [(6, 8, 3)] * 2 + [(12, 16, 3)] * 3


def test_every_verb_takes_progress(image, tiny, params):
    key, network, told = jax.random.key(0), tiny.bind(params), []
    more = {"progress": told.append, "num_steps": 2}
    results = [
        rv.invert(key, network, image, layer="conv1_1", **more),
        rv.synthesize(key, network, image, layers="conv1_1", **more),
        rv.transfer(
            key, network, image, image, content_layers="conv1_1", style_layers="conv1_1", **more
        ),
    ]
    assert [found.step for found in told] == [1, 2] * 3
    for found, result in zip(told[1::2], results, strict=True):
        np.testing.assert_array_equal(found.image, result.image)


def test_a_paintings_progress_has_no_margins():
    picture = jax.random.uniform(jax.random.key(1), (24, 24, 3))
    for verb in (lambda **more: rv.paint(jax.random.key(0), picture, picture, **more),
                 lambda **more: rv.paint_texture(jax.random.key(0), picture, **more)):  # fmt: skip
        told = []
        result = verb(num_steps=2, progress=told.append)
        assert told[-1].image.shape == (24, 24, 3) and told[-1].step == 2
        np.testing.assert_array_equal(told[-1].image, result.image)


def test_progress_is_a_line_outside_of_notebooks(image, capsys):
    rv.show_progress()(rv.Iterate(20, image, 0.25))
    assert capsys.readouterr() == ("", "step 20  loss 0.25\n")


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The documentation's notebook, executed again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        patch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
        return load("notebook").execute()


@pytest.mark.slow
def test_the_notebook_of_the_documentation_runs_and_shows_what_it_showed(executed):
    stored = json.loads((ROOT / "docs" / "guides" / "notebook.ipynb").read_text())
    pictures = []
    for before, after in zip(stored["cells"], executed["cells"], strict=True):
        assert "".join(before["source"]) == after["source"]
        kinds = [
            [(output["output_type"], *sorted(output["data"])) for output in cell.get("outputs", [])]
            for cell in (before, after)
        ]
        assert kinds[0] == kinds[1]
        for output in zip(before.get("outputs", []), after.get("outputs", []), strict=True):
            if "image/png" in output[0]["data"]:
                pngs = ["".join(each["data"]["image/png"]) for each in output]
                pictures.append([decode(base64.b64decode(png)) for png in pngs])
    assert len(pictures) == 5
    results = [pair for pair in pictures if pair[0].shape[2] == 3]  # the others are charts
    assert len(results) == 3
    for before, after in results:
        assert before.shape == after.shape
        # Other versions round otherwise; it is the same picture all the same.
        assert np.abs(np.float32(before) - after).mean() < 4
    lines = [o["data"]["text/plain"] for cell in executed["cells"] for o in cell.get("outputs", [])]
    assert any(line.startswith("step 60  loss") for line in lines)


def test_the_notebook_is_small_and_becomes_a_page():
    path = ROOT / "docs" / "guides" / "notebook.ipynb"
    assert path.stat().st_size < 300_000
    text, pictures = load("hooks").show_notebook(json.loads(path.read_text()))
    assert len(pictures) == 5 and all(f"({name})" in text for name in pictures)
    assert "step 60  loss" in text and "rv.show_progress()" in text
    assert all(decode(content).ndim == 3 for content in pictures.values())
