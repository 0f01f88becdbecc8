"""The figures: flag files that fit, results that come out again, and all of them at once."""

import dataclasses
import importlib
import json
import pathlib

import pytest

from randviz.commands.trials import TRAINED, load_pictures, make_inversion
from randviz.descent.descent import minimize
from randviz.experiments import all as every
from randviz.experiments.all import FIGURES, SCALES
from randviz.host.quality import compare_images
from randviz.host.settings import parse_flags
from randviz.host.study import gather

ROOT = pathlib.Path(__file__).parents[1]
FLAGS = ROOT / "experiments"
# Another processor adds in another order, and a descent multiplies the difference.
TOLERANCE = 0.1
# The shallowest and shortest of each figure's trials, none of them the trained network's.
TRIALS = {
    "fig1_inversion": ({"layer": "pool1"}, "distance"),
    "fig2_pools": ({"layer": "pool2", "image": "chelsea"}, "distance"),
    "fig3_variance": ({"layer": "pool3", "weights": "random", "noise": 1}, "distance"),
    "fig4_convergence": ({"image": "beach"}, "distance"),
    "fig5_textures": ({"top": "conv1_1", "texture": "gravel"}, "error"),
    "fig6_style": ({"style": "the_scream"}, "style_error"),
    "fig7_chinese": ({"content": "coffee"}, "style_error"),
    "ablation": ({"part": "offset", "image": "chelsea", "offset": "0"}, "distance"),
    "why_random": (
        {"layer": "pool3", "weights": "gaussian", "activation": "relu", "offset": "0"},
        "distance",
    ),
    "infinite_width": ({"part": "descent", "statistic": "gram", "draw": "fixed"}, "limit"),
    "league": ({"part": "inversion", "network": "small_narrowest"}, "distance"),
    "prediction": ({"part": "training", "network": "small_narrowest"}, "accuracy"),
}


def module_of(name):
    return importlib.import_module(f"randviz.experiments.{name}")


def settings_of(name, scale, **changes):
    settings = parse_flags(module_of(name).Settings, [f"--flagfile={FLAGS / scale / name}.flags"])
    return dataclasses.replace(settings, **changes)


def records_of(name):
    return [json.loads(line) for line in (FLAGS / "laptop" / name / "records.jsonl").open()]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_a_flag_file_for_every_scale(name, scale):
    text = (FLAGS / scale / f"{name}.flags").read_text()
    assert text.startswith("# ")
    settings = settings_of(name, scale)
    assert settings.seed == 0 and settings.out_dir.endswith(f"{scale}/{name}")


@pytest.mark.parametrize("name", FIGURES)
def test_laptop_results_are_of_the_flag_file(name):
    record = json.loads((FLAGS / "laptop" / name / "run.json").read_text())
    settings = settings_of(name, "laptop")
    values = json.loads(json.dumps(dataclasses.asdict(settings)))
    assert record["settings"] == {key: values[key] for key in record["settings"]}
    kept = [record["trial"] for record in records_of(name)]
    assert all(trial in kept for trial in module_of(name).list_trials(settings))


@pytest.mark.parametrize(
    "name",
    [
        # A jackknife over a hundred networks takes half a minute.
        pytest.param(name, marks=[pytest.mark.slow] if name == "infinite_width" else [])
        for name in FIGURES
        if name != "theory_panel"
    ],
)
def test_laptop_claims_are_of_the_laptop_records(name):
    found = module_of(name).judge(settings_of(name, "laptop"), records_of(name))
    kept = json.loads((FLAGS / "laptop" / name / "claims.json").read_text())["claims"]
    table = (FLAGS / "laptop" / "claims.md").read_text()
    assert every.format_claims(kept).split("\n", 2)[2] in table
    for claim, old in zip(found, kept, strict=True):
        assert (claim.statement, claim.verdict, claim.n) == (
            old["statement"], old["verdict"], old["n"],
        )  # fmt: skip
        assert claim.effect == pytest.approx(old["effect"])


@pytest.mark.slow
@pytest.mark.parametrize("name", TRIALS)
def test_a_trial_of_the_laptop_results_comes_out_again(name, tmp_path):
    wanted, measure = TRIALS[name]
    record = next(
        record
        for record in records_of(name)
        if record["trial"].get("weights") != TRAINED and wanted.items() <= record["trial"].items()
    )
    settings, trial = settings_of(name, "laptop", out_dir=str(tmp_path)), record["trial"]
    (found,) = gather(module_of(name)).measure(settings, [trial], [])
    assert found[measure] == pytest.approx(record[measure], rel=TOLERANCE)


# Of the results, the one that takes least to compute again; the others are slow.
def test_an_inversion_of_figure_1_comes_out_again():
    settings = settings_of("fig1_inversion", "laptop")
    (record, *_) = (r for r in records_of("fig1_inversion") if r["trial"]["layer"] == "pool1")
    make, start = make_inversion(settings, *record["trial"].values())
    image = minimize(make(), start, num_steps=settings.num_steps).image
    target = load_pictures(settings, "image")[record["trial"]["image"]].image
    found = compare_images(image, target)["distance"]
    assert found == pytest.approx(record["distance"], rel=TOLERANCE)


@pytest.mark.slow
def test_a_network_of_the_theory_panel_comes_out_again():
    panel = module_of("theory_panel")
    record = records_of("theory_panel")[3]
    found = panel.measure(settings_of("theory_panel", "laptop"), record["trial"])
    numbers = {key: value for key, value in record.items() if key != "trial"}
    assert json.loads(json.dumps(found)).keys() == numbers.keys()
    for key, values in numbers.items():
        assert found[key] == pytest.approx(values, rel=1e-3)


def test_figure_3_has_thirty_networks_of_each_kind():
    counts = {}
    for record in records_of("fig3_variance"):
        place = record["trial"]["weights"], record["trial"]["layer"]
        counts[place] = counts.get(place, 0) + 1
    assert len(counts) == 10 and min(counts.values()) >= 30


def test_all_runs_figures_writes_a_page_and_measures_nothing_twice(tmp_path, capsys):
    # As the smoke scale's, with less of everything.
    flags = {
        "fig1_inversion": "--network=ranvgg --image=chelsea --layers=conv1_1 --fc_layers=",
        "fig5_textures": "--network=ranvgg --texture_image=brick,gravel --layers=conv1_1,conv1_2",
    }
    (tmp_path / "smoke").mkdir()
    for name, words in flags.items():
        lines = [*words.split(), "--image_size=32", "--num_steps=3"]
        (tmp_path / "smoke" / f"{name}.flags").write_text("\n".join(lines))
    words = [
        "--scale=smoke",
        f"--flags_dir={tmp_path}",
        "--figures=fig1_inversion,fig5_textures",
        f"--out_dir={tmp_path}/all",
    ]
    assert every.main(words) == 0
    claims = json.loads((tmp_path / "all" / "claims.json").read_text())["claims"]
    assert {claim["experiment"] for claim in claims} == {"fig1_inversion", "fig5_textures"}
    page = (tmp_path / "all" / "index.html").read_text()
    assert page.count("<img") == 2 and "not run" in page
    records = (tmp_path / "all" / "fig1_inversion" / "records.jsonl").read_bytes()
    capsys.readouterr()
    assert every.main(words) == 0
    assert "trial" not in capsys.readouterr().err
    assert (tmp_path / "all" / "fig1_inversion" / "records.jsonl").read_bytes() == records


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--figures=fig9"], "fig9"),
        (["--flags_dir=nowhere"], "nowhere/smoke/fig1_inversion.flags"),
    ],
)
def test_mistakes_get_a_sentence(words, said, capsys):
    assert every.main(words) == 2
    assert said in capsys.readouterr().err


def test_claims_are_a_table_that_keeps_its_columns():
    claim = {"figure": "figure 3", "statement": "|a| < |b|", "measure": "log", "n": 12}
    claim |= {"effect": -0.12345, "interval": [-0.2, -0.1], "verdict": "supported"}
    claim |= {"units": "pictures", "p": 0.001234, "corrected_p": 0.0123, "post_hoc": True}
    unknown = {**claim, "effect": None, "interval": None, "n": 0, "verdict": "not run"}
    unknown |= {"p": None, "corrected_p": None, "post_hoc": False}
    lines = every.format_claims([claim, unknown]).splitlines()
    assert lines[2] == (
        "| figure 3 | \\|a\\| < \\|b\\| | log | 12 (pictures) | -0.123 [-0.2, -0.1] | 0.0012"
        " | 0.012 | **supported**, post hoc |"
    )
    assert lines[3].endswith("| 0 (pictures) |  |  |  | **not run** |")


def test_figure_1_is_estimated_by_its_deepest_vgg_layer_even_beside_alexnet():
    settings = settings_of("fig1_inversion", "smoke", alexnet_weights="alexnet.npz")
    found = module_of("fig1_inversion").workload(settings)
    assert found.make_objective.func.__self__.layer == "conv2_2"
    # Three layers, a fully connected one by both conventions, and two of AlexNet's.
    assert found.num_steps == 7 * settings.num_steps


@pytest.mark.slow
def test_everything_runs_at_smoke_scale(tmp_path):
    assert every.main(["--scale=smoke", f"--flags_dir={FLAGS}", f"--out_dir={tmp_path}"]) == 0
    claims = json.loads((tmp_path / "claims.json").read_text())["claims"]
    assert {claim["experiment"] for claim in claims} >= set(FIGURES) - {"theory_panel"}
