"""The comparison of ways to paint: variants, judges, the rival."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import randviz as rv
from randviz.experiments import gatys, painting_methods
from randviz.host.images import load_image
from randviz.tasks import painting as plans
from randviz.tasks.style import STYLE_LAYERS

SMALL = ["--image_size=32", "--content_image=columns", "--style_image=starry_night"]


def test_variants_are_painted_judged_and_tabled(tmp_path, monkeypatch):
    monkeypatch.setattr(plans, "_FEWEST_STEPS", 3)
    monkeypatch.setattr(plans, "_STEPS", 3)
    words = [*SMALL, "--variants=filters,one octave", f"--out_dir={tmp_path}"]
    assert painting_methods.main(words) == 0
    records = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    assert [record["trial"]["variant"] for record in records] == ["filters", "one octave"]
    for record in records:
        assert 0 < record["patches_5"] < 1 and 0 < record["edges"] < 1
    assert records[0]["patches_5"] != records[1]["patches_5"]
    assert "one octave" in (tmp_path / "table.md").read_text()
    assert (tmp_path / "panel_columns.jpg").exists()


def test_an_unknown_variant_is_refused_in_a_sentence(tmp_path, capsys):
    assert painting_methods.main([*SMALL, "--variants=x", f"--out_dir={tmp_path}"]) == 2
    assert "--variants names 'x'; it has filters," in capsys.readouterr().err


def test_the_printed_constants_have_one_painting_for_each_photograph():
    settings = painting_methods.Settings(
        content_image=("columns", "bridge", "beach"),
        style_image=("starry_night", "the_scream"),
        variants=("filters", "paper as printed"),
        image_size=32,
    )
    trials = painting_methods.list_trials(settings)
    printed = [t["style"] for t in trials if t["variant"] == "paper as printed"]
    assert printed == ["starry_night", "the_scream", "starry_night"]
    assert len(trials) == 3 * 2 + 3


def make_records(variant, content, distance):
    """One photograph and one painting; the judges of style agree."""
    trial = {"content": "a", "style": "b", "variant": variant}
    edges = 1 - content
    return {
        "trial": trial,
        "content": content,
        "edges": edges,
        "gram": distance,
        "sliced": distance,
    }


def test_a_rival_is_compared_at_its_own_nearness_to_the_photograph():
    filters = [make_records("filters 0.3", 0.4, 0.5), make_records("filters", 0.8, 0.1)]
    expected = {
        # Half way between the photograph itself, at a distance of 1, and the first of the filters'.
        0.2: np.sqrt(1 * 0.5),
        0.6: np.sqrt(0.5 * 0.1),
        # Farther from the photograph than the filters ever are.
        0.9: 0.1,
    }
    for nearness in ("content", "edges"):
        for content, ours in expected.items():
            records = [*filters, make_records("gatys", content, 0.3)]
            (found,) = painting_methods._compare_at_equal_nearness(
                records, "gatys", "gram", nearness
            ).ravel()
            assert found == pytest.approx(np.log(ours / 0.3))


def test_six_photographs_and_six_paintings_are_enough_for_a_verdict():
    rng = np.random.default_rng(0)

    def judge(count, ours):
        records = []
        for place in np.ndindex(count, count):
            pair = dict(zip(("content", "style"), map(str, place), strict=True))
            for variant, distance in (("filters", ours), ("gatys ×300", 0.3)):
                record = make_records(variant, 0.5, distance * rng.uniform(0.9, 1.1))
                records.append(record | {"trial": {**pair, "variant": variant}})
        return painting_methods.judge(painting_methods.Settings(), records)

    assert {claim.verdict for claim in judge(6, 0.2)} == {"supported"}
    assert {claim.verdict for claim in judge(6, 0.4)} == {"contradicted"}
    assert {claim.verdict for claim in judge(4, 0.2)} == {"inconclusive"}


@pytest.mark.slow
def test_gatys_objective_is_his():
    content, painting = (load_image(name, image_size=32) for name in ("columns", "starry_night"))
    content, painting = content[:20, :20], painting[:20, :20]
    params = rv.random_weights(jax.random.key(0), rv.VGG19, last_layer=STYLE_LAYERS[-1], scale=0.1)
    extractor = rv.VGG19.bind(params)
    objective = gatys.make_objective(extractor, content, painting, factor=3.0)
    image = jnp.asarray(content[::-1])
    layers = (*STYLE_LAYERS, "conv4_2")
    extractor = extractor.with_offset(rv.Style().input_offset)
    found, near, far = (
        {layer: np.asarray(maps, np.float64) for layer, maps in extractor(x, layers).items()}
        for x in (image, content, painting)
    )
    expected = np.mean(np.square(found["conv4_2"] - near["conv4_2"]))
    for layer in STYLE_LAYERS:
        grams = []
        for maps in (found[layer], far[layer]):
            flat = maps.reshape(-1, maps.shape[-1])
            grams.append(flat.T @ flat / len(flat))
        difference = np.mean(np.square(grams[0] - grams[1]))
        expected += 3.0 * 1000 / maps.shape[-1] ** 2 * difference
    assert float(objective(image)) == pytest.approx(expected, rel=1e-3)
