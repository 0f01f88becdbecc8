"""Claims: verdicts follow the numbers, and turn with the groups."""

import numpy as np
import pytest

from randviz.experiments import (
    ablation,
    fig1_inversion,
    fig2_pools,
    fig3_variance,
    fig4_convergence,
    fig5_textures,
    stylization,
)
from randviz.experiments.claims import (
    ENOUGH,
    bootstrap,
    bootstrap_crossed,
    judge_units,
    pair_records,
)

RNG = np.random.default_rng(3)
WORDS = {"figure": "figure 0", "measure": "log ratio", "groups": ("a", "b")}
LAYERS = ("pool1", "pool2", "pool3", "pool4")
PICTURES = tuple("abcdefgh")


def verdicts(claims):
    return [claim.verdict for claim in claims]


def test_a_claim_is_supported_on_its_side_only():
    units = RNG.normal(-1, 0.5, size=20)
    assert judge_units("a < b", units, below=0.0, **WORDS).verdict == "supported"
    assert judge_units("a < b", -units, below=0.0, **WORDS).verdict == "not supported"
    assert judge_units("a > b", -units, above=0.0, **WORDS).verdict == "supported"
    assert (
        judge_units("a = b", units / 100, below=0.05, above=-0.05, **WORDS).verdict == "supported"
    )
    assert judge_units("a = b", units, below=0.05, above=-0.05, **WORDS).verdict == "not supported"


def test_an_interval_that_straddles_the_threshold_supports_nothing():
    units = np.tile([-1.0, 1.01], 8)
    assert judge_units("a < b", units, below=0.0, **WORDS).verdict == "not supported"
    assert judge_units("a > b", units, above=0.0, **WORDS).verdict == "not supported"


def test_too_few_samples_give_no_verdict_and_say_so():
    claim = judge_units("a < b", [-1.0] * (ENOUGH - 1), below=0.0, **WORDS)
    assert claim.verdict == "not run" and claim.interval is None and str(ENOUGH) in claim.why
    claim = judge_units("a < b", [], below=0.0, **WORDS)
    assert claim.verdict == "not run" and claim.effect is None and "no measurements" in claim.why


def test_an_interval_covers_the_mean_as_often_as_it_says():
    hits = 0
    for _ in range(100):
        low, high = judge_units("", RNG.normal(size=30), below=0.0, **WORDS).interval
        hits += low < 0 < high
    assert 86 <= hits <= 100


def test_records_are_paired_by_all_else():
    records = [
        {"trial": {"weights": weights, "layer": layer}, "distance": value}
        for weights, layer, value in (("a", "x", 1), ("b", "y", 4), ("a", "y", 3), ("b", "z", 5))
    ]
    assert pair_records(records, "weights", ("a", "b"), measure=lambda r: r["distance"]) == [(3, 4)]


def make_records(better, worse, axis="weights", noise=0.1, **extra):
    """Records in which the group `better` has the smaller numbers, by a factor of about two."""
    records = []
    for picture in PICTURES:
        for number, layer in enumerate(LAYERS):
            base = np.exp(RNG.normal(0, noise)) * 10
            for group in (better, worse):
                gain = 1 + number if group == better else 0
                value = base * np.exp(-0.3 * gain + RNG.normal(0, noise))
                records.append(
                    {
                        "trial": {"image": picture, axis: group, "layer": layer},
                        "distance": value,
                        "contours": 1 / value,
                        **extra,
                    }
                )
    return records


def swap(records, axis="weights"):
    """The same numbers under each other's names."""
    names = list(dict.fromkeys(record["trial"][axis] for record in records))
    other = dict(zip(names, reversed(names), strict=True))
    return [{**r, "trial": {**r["trial"], axis: other[r["trial"][axis]]}} for r in records]


@pytest.mark.parametrize("module", [fig1_inversion, fig2_pools])
def test_permuting_the_networks_turns_the_verdicts_of_figures_1_and_2(module):
    image = PICTURES if module is fig2_pools else PICTURES[0]
    settings = module.Settings(image=image)
    records = make_records("ranvgg", "trained")
    if module is fig1_inversion:
        # One picture: layers are the units, and there must be enough of them.
        records = [
            {**record, "trial": {**record["trial"], "image": "a", "layer": f"{number // 2}"}}
            for number, record in enumerate(records)
        ]
    assert module.judge(settings, records)[0].verdict == "supported"
    assert module.judge(settings, swap(records))[0].verdict == "not supported"
    untrained = [record for record in records if record["trial"]["weights"] == "ranvgg"]
    assert set(verdicts(module.judge(settings, untrained))) == {"not run"}


def test_figure_2_asks_where_the_advantage_lies_and_for_contours():
    settings = fig2_pools.Settings(image=PICTURES)
    records = make_records("ranvgg", "trained")
    assert verdicts(fig2_pools.judge(settings, records))[:4] == ["supported"] * 4
    assert verdicts(fig2_pools.judge(settings, swap(records)))[:4] == ["not supported"] * 4


def make_samples(spreads, centres, count=32):
    return [
        {
            "trial": {
                "image": "i",
                "weights": kind,
                "layer": "pool3",
                "network": sample,
                "noise": sample,
            },
            "distance": centres[kind] + spreads[kind] * RNG.normal(),
        }
        for kind in spreads
        for sample in range(count)
    ]


def test_figure_3_finds_order_and_spread_and_turns_with_the_kinds():
    settings = fig3_variance.Settings()
    spreads = {"random": 1.0, "ranvgg": 0.3, "trained": 3.0}
    centres = {"random": 20.0, "ranvgg": 18.0, "trained": 40.0}
    records = make_samples(spreads, centres)
    assert verdicts(fig3_variance.judge(settings, records)) == ["supported"] * 6
    assert verdicts(fig3_variance.judge(settings, swap(records))) != ["supported"] * 6
    alike = make_samples(dict.fromkeys(spreads, 1.0), dict.fromkeys(spreads, 20.0))
    assert verdicts(fig3_variance.judge(settings, alike)) == ["not supported"] * 6


def make_curves(sooner, later, doubled=1.0):
    records = []
    for picture in PICTURES:
        for label, pace in ((sooner, 40), (later, 400)):
            steps = range(25, (2000 if label == "trained" else 1000) + 1, 25)
            curve = {str(step): 10 * (1 + 5 * np.exp(-step / pace)) for step in steps}
            if label == later:
                curve = {step: 3 * value for step, value in curve.items()}
            last = list(curve.values())[-1] * (doubled if label == "trained" else 1)
            trial = {"image": picture, "weights": label}
            records.append({"trial": trial, "curve": curve, "distance": last})
    return records


def test_figure_4_compares_arrivals_and_ends():
    settings = fig4_convergence.Settings(image=PICTURES, num_steps=1000)
    records = make_curves("ranvgg", "trained", doubled=0.8)
    assert verdicts(fig4_convergence.judge(settings, records)) == [
        "supported", "supported", "not supported",
    ]  # fmt: skip
    records = make_curves("trained", "ranvgg")
    assert verdicts(fig4_convergence.judge(settings, records)) == [
        "not supported", "not supported", "supported",
    ]  # fmt: skip


def test_a_curve_arrives_where_it_stays():
    assert fig4_convergence.arrive({"1": 9.0, "2": 1.0, "3": 4.0, "4": 1.05, "5": 1.0}, 5) == 4
    assert fig4_convergence.arrive({"1": 1.0, "2": 1.0, "9": 0.1}, 2) == 1


def test_figure_5_asks_what_each_layer_adds():
    settings = fig5_textures.Settings(texture_image=PICTURES, layers=LAYERS)
    records = [
        {
            "trial": {"texture": source, "weights": label, "top": top},
            "error": np.exp(-number + RNG.normal(0, 0.02)),
            "patch_distance": np.exp(RNG.normal(0, 0.02)),
        }
        for source in PICTURES
        for label in ("ranvgg", "trained")
        for number, top in enumerate(LAYERS)
        if label == "ranvgg" or top == LAYERS[-1]
    ]
    found = fig5_textures.judge(settings, records)
    assert verdicts(found) == ["supported"] * 4
    backwards = [
        {
            **record,
            "trial": {**record["trial"], "top": LAYERS[::-1][LAYERS.index(record["trial"]["top"])]},
        }
        for record in records
        if record["trial"]["weights"] == "ranvgg"
    ]
    backwards.sort(key=lambda record: LAYERS.index(record["trial"]["top"]))
    assert verdicts(fig5_textures.judge(settings, backwards)[:3]) == ["not supported"] * 3


def test_figure_6_asks_for_style_and_content():
    settings = stylization.StyleSettings(content_image=("c",), style_image=PICTURES)
    records = [
        {
            "trial": {"content": "c", "style": painting, "weights": label},
            "style_error": 0.2 + 0.01 * RNG.normal(),
            "patch_distance": 0.2 + 0.01 * RNG.normal(),
            "style_error_of_photograph": 1.0,
            "content_ssim": 0.5,
        }
        for label in ("ranvgg", "trained")
        for painting in PICTURES
    ]
    found = stylization.judge_styles(settings, records, "figure 6")
    assert verdicts(found) == ["supported"] * 3
    turned = [
        {**r, "style_error": 1.0, "style_error_of_photograph": r["style_error"]} for r in records
    ]
    assert stylization.judge_styles(settings, turned, "figure 6")[0].verdict == "not supported"


def test_the_ablation_turns_with_its_groups():
    settings = ablation.Settings(image=PICTURES, texture_image=PICTURES)

    def records(automatic, uncentred):
        found = [
            {
                "trial": {"part": "mu", "image": p, "mu": mu},
                "error": value * np.exp(RNG.normal() / 9),
            }
            for p in PICTURES
            for mu, value in (("automatic", automatic), ("one", 1.0))
        ]
        found += [
            {"trial": {"part": "offset", "image": p, "offset": o}, "distance": value}
            for p in PICTURES
            for o, value in (("0", uncentred), ("mean", 20.0))
        ]
        return found

    order = [0, 2]
    found = ablation.judge(settings, records(0.1, 10.0))
    assert [found[i].verdict for i in order] == ["supported"] * 2
    found = ablation.judge(settings, records(9.0, 30.0))
    assert [found[i].verdict for i in order] == ["not supported"] * 2
    assert found[1].verdict == "not run"


def test_whole_photographs_and_whole_paintings_are_resampled():
    """Where all that varies are the rows, a table is worth its rows and not its numbers."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(8, 1))
    crossed = bootstrap_crossed(rows + np.zeros((8, 6)))
    alone = bootstrap(rows.ravel())
    assert crossed.value == pytest.approx(alone.value) and crossed.n == 6
    assert crossed.high - crossed.low == pytest.approx(alone.high - alone.low, rel=0.1)
    pairs = bootstrap(np.ravel(rows + np.zeros((8, 6))))
    assert crossed.high - crossed.low > 2 * (pairs.high - pairs.low)
    assert np.isnan(bootstrap_crossed(np.zeros((5, 9))).low)
