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
from randviz.experiments.claims import Sentence, judge_together, pair_records, tabulate
from randviz.search.intervals import ENOUGH

RNG = np.random.default_rng(3)
WORDS = {"units": "pictures", "measure": "log ratio", "groups": ("a", "b")}
LAYERS = ("pool1", "pool2", "pool3", "pool4")
PICTURES = tuple("abcdefghijkl")


def verdicts(claims):
    return [claim.verdict for claim in claims]


def judge(values, **limits):
    return judge_together("figure 0", [Sentence("a < b", values, **WORDS, **limits)])[0]


def test_a_claim_is_supported_on_its_side_and_contradicted_on_the_other():
    units = RNG.normal(-1, 0.5, size=20)
    assert judge(units, below=0.0).verdict == "supported"
    assert judge(-units, below=0.0).verdict == "contradicted"
    assert judge(-units, above=0.0).verdict == "supported"
    assert judge(units, above=0.0).verdict == "contradicted"
    assert judge(units / 100, below=0.05, above=-0.05).verdict == "supported"
    for side in (1, -1):
        assert judge(side * units, below=0.05, above=-0.05).verdict == "contradicted"


def test_an_interval_that_straddles_the_threshold_decides_nothing():
    units = np.tile([-1.0, 1.01], 8)
    for limits in ({"below": 0.0}, {"above": 0.0}, {"below": 0.3, "above": -0.3}):
        claim = judge(units, **limits)
        assert claim.verdict == "inconclusive" and "Only a part" in claim.why
        assert claim.p > 0.2


def test_too_few_units_decide_nothing_and_say_how_many_there_are():
    units = RNG.normal(-1, 0.01, size=ENOUGH)
    assert judge(units, below=0.0).verdict == "supported"
    claim = judge(units[1:], below=0.0)
    assert claim.verdict == "inconclusive" and claim.interval[1] < 0
    assert claim.why == "Independent units: 9 (pictures); a verdict takes 10."
    claim = judge(units[:1], below=0.0)
    assert (
        claim.verdict == "inconclusive" and claim.interval is claim.p is claim.corrected_p is None
    )
    claim = judge([], below=0.0)
    assert claim.verdict == "not run" and claim.effect is None and "no measurements" in claim.why


def test_a_verdict_survives_the_correction_for_the_claims_of_its_figure():
    rng = np.random.default_rng(0)
    sentence = Sentence("a < b", rng.normal(-0.4, 0.9, size=14), **WORDS, below=0.0)
    (alone,) = judge_together("figure 0", [sentence])
    assert alone.verdict == "supported" and 0.005 < alone.p == alone.corrected_p < 0.05
    others = [sentence._replace(values=rng.normal(size=14)) for _ in range(19)]
    corrected, *_ = judge_together("figure 0", [sentence, *others])
    assert corrected.verdict == "inconclusive"
    assert corrected[:9] == alone[:9]  # effect, interval and p are as they were
    assert corrected.corrected_p == pytest.approx(min(1, 20 * alone.p), rel=0.3)


def test_a_label_says_what_was_chosen_after_results_were_seen():
    settings = fig2_pools.Settings(image=PICTURES)
    found = fig2_pools.judge(settings, make_records("ranvgg", "trained"))
    assert ["grey levels" in claim.statement for claim in found] == [c.post_hoc for c in found]


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


def test_permuting_the_networks_turns_the_verdicts_of_figure_2():
    settings = fig2_pools.Settings(image=PICTURES)
    records = make_records("ranvgg", "trained")
    assert verdicts(fig2_pools.judge(settings, records))[:4] == ["supported"] * 4
    assert verdicts(fig2_pools.judge(settings, swap(records)))[:4] == ["contradicted"] * 4
    untrained = [record for record in records if record["trial"]["weights"] == "ranvgg"]
    assert set(verdicts(fig2_pools.judge(settings, untrained))) == {"not run"}


def test_the_layers_of_figure_1_are_no_units():
    settings = fig1_inversion.Settings(image="a")
    records = [r for r in make_records("ranvgg", "trained") if r["trial"]["image"] == "a"]
    (claim,) = fig1_inversion.judge(settings, records)
    assert claim.n == 1 and claim.effect < 0 and claim.verdict == "inconclusive"
    untrained = [record for record in records if record["trial"]["weights"] == "ranvgg"]
    assert verdicts(fig1_inversion.judge(settings, untrained)) == ["not run"]


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
    assert verdicts(fig3_variance.judge(settings, alike)) == ["inconclusive"] * 6


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
        "supported", "supported", "contradicted",
    ]  # fmt: skip
    records = make_curves("trained", "ranvgg")
    assert verdicts(fig4_convergence.judge(settings, records)) == [
        "contradicted", "contradicted", "supported",
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
            "patch_distance": np.exp(0.1 * RNG.normal()) if label == "ranvgg" else 1.0,
        }
        for source in PICTURES
        for label in ("ranvgg", "trained")
        for number, top in enumerate(LAYERS)
        if label == "ranvgg" or top == LAYERS[-1]
    ]
    found = fig5_textures.judge(settings, records)
    # By patches nothing is added.
    assert verdicts(found) == ["supported"] * 3 + ["inconclusive"] * 3 + ["supported"]
    backwards = [
        {
            **record,
            "trial": {**record["trial"], "top": LAYERS[::-1][LAYERS.index(record["trial"]["top"])]},
        }
        for record in records
        if record["trial"]["weights"] == "ranvgg"
    ]
    backwards.sort(key=lambda record: LAYERS.index(record["trial"]["top"]))
    assert verdicts(fig5_textures.judge(settings, backwards)[:3]) == ["contradicted"] * 3


def make_styles(contents, paintings):
    return [
        {
            "trial": {"content": content, "style": painting, "weights": label},
            "style_error": 0.2 + 0.01 * RNG.normal(),
            "patch_distance": 0.2 + 0.01 * RNG.normal(),
            "style_error_of_photograph": 1.0,
            "content_contours": 0.5 + 0.01 * RNG.normal(),
        }
        for label in ("ranvgg", "trained")
        for content in contents
        for painting in paintings
    ]


def test_figure_6_asks_for_style_and_content():
    settings = stylization.StyleSettings(content_image=("c",), style_image=PICTURES)
    records = make_styles("c", PICTURES)
    found = stylization.judge_styles(settings, records, "figure 6")
    assert verdicts(found) == ["supported"] * 3
    assert {(claim.n, claim.units) for claim in found} == {(len(PICTURES), "paintings")}
    turned = [
        {**r, "style_error": r["style_error_of_photograph"], "style_error_of_photograph": 0.2}
        for r in records
    ]
    turned = [{**r, "content_contours": r["content_contours"] - 0.4} for r in turned]
    assert verdicts(stylization.judge_styles(settings, turned, "figure 6"))[:2] == [
        "contradicted", "contradicted",
    ]  # fmt: skip


def test_figure_7_counts_photographs_and_paintings_and_no_pairs():
    settings = stylization.StyleSettings()
    found = stylization.judge_styles(settings, make_styles("abc", "de"), "figure 7")
    assert {claim.units for claim in found} == {"photographs and paintings"}
    assert [claim.n for claim in found] == [5] * 3 and set(verdicts(found)) == {"inconclusive"}
    records = make_styles("abcdef", "ghijk")
    found = stylization.judge_styles(settings, records, "figure 7")
    assert [claim.n for claim in found] == [11] * 3 and set(verdicts(found)) == {"supported"}
    # A photograph that lacks a painting of the trained network's is left out there.
    found = stylization.judge_styles(settings, records[:-1], "figure 7")
    assert [claim.n for claim in found] == [11, 11, 10]


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
    assert [found[i].verdict for i in order] == ["contradicted"] * 2
    assert found[1].verdict == "not run"


def test_the_ablation_asks_for_the_scale_that_differs_most():
    distances = {0.001: 1.0, 0.015: 1.0, 0.1: 1.0, 1.0: 1.2}
    records = [
        {"trial": {"part": "scale", "image": p, "scale": scale}, "distance": value}
        for p in PICTURES
        for scale, value in distances.items()
    ]
    claim = ablation.judge(ablation.Settings(), records)[-1]
    assert claim.n == len(PICTURES) and claim.effect == pytest.approx(np.log(1.2))
    assert claim.verdict == "contradicted"


def test_a_table_has_a_place_for_each_pair():
    records = [
        {"trial": {"row": row, "column": column, "other": "x"}, "value": value}
        for row, column, value in (("b", "d", 2), ("a", "c", 3), ("a", "d", None), ("b", "c", 1))
    ]
    table = tabulate(records, ("row", "column"), measure=lambda record: record["value"])
    assert table.tolist() == [[2, 1]]
