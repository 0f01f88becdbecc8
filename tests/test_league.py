"""The league: places with ties, layers of as many numbers, and a table of every architecture."""

import json
import math
import pathlib

import jax
import numpy as np
import pytest

from randviz.__main__ import main
from randviz.commands.trials import picture_path
from randviz.experiments import league, league_scores
from randviz.experiments.league import Settings, find_layer, measure_spectrum
from randviz.experiments.league_scores import TRAINED_VGG19
from randviz.experiments.places import find_places
from randviz.host.baselines import average_blocks
from randviz.host.images import crop_square, load_image, resize_image
from randviz.host.quality import compare_images
from randviz.networks.catalog import NETWORKS
from randviz.networks.small import VARIANTS
from randviz.networks.weights import random_weights
from randviz.types import UserError

RNG = np.random.default_rng(11)


def test_places_are_those_of_planted_scores_and_ties_are_ties():
    # Three ranks: one ahead, two alike, one behind; pictures differ more than networks do.
    pictures = RNG.normal(0, 5, size=(12, 1))
    tables = {
        name: pictures + score + RNG.normal(0, 0.1, size=(12, 3))
        for name, score in (("last", -3.0), ("b", 0.0), ("first", 3.0), ("a", 0.0))
    }
    places = find_places(tables)
    assert [*places][::3] == ["first", "last"]
    assert {name: str(place) for name, place in places.items()} == {
        "first": "1", "a": "2–3", "b": "2–3", "last": "4",
    }  # fmt: skip
    assert places["first"].score.n == 15


def test_equal_competitors_are_told_apart_no_more_often_than_allowed():
    """Of the places in thirty leagues of five equals, about one in twenty may be wrong."""
    wrong = 0
    for _ in range(30):
        tables = {name: RNG.normal(size=(10, 3)) for name in "abcde"}
        wrong += sum(str(place) != "1–5" for place in find_places(tables).values())
    assert wrong <= 15  # of a binomial of 150 and 0.05, more has a probability of 1 in 300


def test_one_unit_decides_nothing():
    places = find_places({"a": np.array([1.0]), "b": np.array([2.0])})
    assert [str(place) for place in places.values()] == ["1–2", "1–2"]
    places = find_places({"b": np.empty((0, 2)), "a": np.empty((0, 2))})
    assert {name: str(place) for name, place in places.items()} == {"b": "1–2", "a": "1–2"}


@pytest.mark.parametrize(
    ("columns", "rank", "condition"),
    [
        (np.eye(4), 1.0, 1.0),
        (np.diag([3.0, 3.0, 1e-300, 0.0]), 0.5, math.inf),
        (np.diag([4.0, 1.0]), math.exp(-16 / 17 * math.log(16 / 17) + math.log(17) / 17) / 2, 4.0),
    ],
)
def test_the_spectrum_of_features(columns, rank, condition):
    found = measure_spectrum(columns)
    assert found["rank"] == pytest.approx(rank) and found["condition"] == pytest.approx(condition)


def test_layers_have_about_as_many_numbers():
    settings = Settings(image=("chelsea",), image_size=96)
    layers = {name: find_layer(settings, name) for name in settings.network}
    numbers = {
        name: math.prod(NETWORKS[name].feature_shape((96, 96, 3), layer))
        for name, layer in layers.items()
    }
    assert len(layers) >= 20
    assert layers["vgg19"] == "pool5" and layers["small"] == "pool4"
    # A sixth of the picture's, or about: twice or half where the width is.
    assert all(0.5 <= number / 4608 <= 2 for number in numbers.values()), numbers
    with pytest.raises(UserError, match=r"about 4608 numbers .* nearest, \w+, has \d+"):
        find_layer(Settings(network=("filter_bank",), image=("chelsea",)), "filter_bank")


def test_more_numbers_than_the_picture_has_leave_no_gain():
    """Block means of as many numbers are the picture itself: infinitely near."""
    records = [
        {
            "trial": {"network": name, "draw": 0, "part": "inversion", "image": image},
            "gain": None,
            "distance": 3.0,
        }
        for name in ("b", "a")
        for image in ("chelsea", "coffee")
    ]
    places = league_scores.find_all_places(records)
    table = league_scores.format_league(records, places, {"a": "first", "b": "second"})
    assert "|  | b | second | 3.00 [3.00, 3.00] (1–2) |" in table
    settings = Settings(image=("chelsea",), texture_image=("brick",), style_image=("the_scream",))
    panel = league_scores.draw_panel(settings, records, places, pathlib.Path("nowhere"))
    assert panel.ndim == 3


def test_variants_differ_from_the_small_network_in_one_thing():
    small, *others = VARIANTS
    assert len({network.name for network in VARIANTS}) == len(VARIANTS)
    for network in others:
        conventions = ("pooling", "activation", "padding_mode")
        changed = [name for name in conventions if getattr(network, name) != getattr(small, name)]
        assert len(changed) + (network.layers != small.layers) == 1, network.name


MINE = """
import flax.linen as nn


class Mine(nn.Module):
    @nn.compact
    def __call__(self, x):
        for channels in (4, 8, 16):
            x = nn.avg_pool(nn.relu(nn.Conv(channels, (3, 3))(x)), (2, 2), (2, 2))
        return x
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A league of a single layer and a module of the user's own."""
    folder = tmp_path_factory.mktemp("league")
    (folder / "mine.py").write_text(MINE)
    words = [
        f"--network=pooled_filters,{folder / 'mine.py'}:Mine",
        "--image=chelsea,coffee",
        "--texture_image=brick",
        "--style_image=starry_night",
        *("--num_networks=2", "--image_size=32", "--num_features=512", "--num_steps=3"),
        f"--out_dir={folder / 'out'}",
    ]
    assert main(["league", *words]) == 0
    return folder / "out", words


def test_every_architecture_is_measured_and_tabled(finished):
    folder, _ = finished
    records = [json.loads(line) for line in (folder / "records.jsonl").open()]
    # Of each: its cost; of each of two networks features, two pictures, one texture, one painting.
    assert len(records) == 2 * (1 + 2 * (1 + 2 + 1 + 1))
    parts = {(r["trial"]["network"], r["trial"]["part"]) for r in records}
    assert len(parts) == 2 * 5
    assert len({r["distance"] for r in records if "distance" in r}) == 2 * 2 * 2
    table = (folder / "league.md").read_text()
    for name in ("pooled_filters", "Mine"):
        assert f"| {name} |" in table
    assert (folder / "places.png").exists() and (folder / "panel.jpg").exists()
    assert len(list((folder / "pictures").glob("*.png"))) == 2 * 2 * 4


def test_a_finished_league_measures_nothing_and_may_get_more_networks(finished):
    folder, words = finished
    before = (folder / "records.jsonl").read_text()
    assert main(["league", *words]) == 0
    assert main(["league", *words, "--num_networks=1"]) == 0  # as if these had been added
    assert (folder / "records.jsonl").read_text() == before


def test_gains_are_over_block_means_of_as_many_numbers(finished):
    folder, _ = finished
    for line in (folder / "records.jsonl").open():
        record = json.loads(line)
        if record["trial"]["part"] != "inversion":
            continue
        picture = np.asarray(crop_square(load_image(record["trial"]["image"])))
        picture = np.asarray(resize_image(picture, 32))
        result = load_image(picture_path(folder, record["trial"]))
        # pool1 of pooled_filters is 2·2·128, the output of Mine 4·4·16.
        count = {"pooled_filters": 512, "Mine": 256}[record["trial"]["network"]]
        blocks = compare_images(average_blocks(picture, count), picture)["psnr"]
        found = compare_images(result, picture)["psnr"]
        assert record["gain"] == pytest.approx(found - blocks, abs=1e-6)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--network=small,small"], "names none, or one twice"),
        (["--network=ranvgg"], "has weights already; name an architecture"),
        (["--network=random_filters"], "no layer of random_filters has about"),
        (["--network=nothing.py:Mine"], "there is no such file"),
    ],
)
def test_what_cannot_compete_is_said(words, said, capsys, tmp_path):
    assert main(["league", *words, f"--out_dir={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("randviz league: ") and said in error


def make_records(part, names, measure, value, images="abcdefghij", draws=2):
    return [
        {
            "trial": {"network": name, "draw": draw, "part": part, "image": image},
            measure: value(name) * np.exp(RNG.normal(0, 0.01)),
        }
        for name in names
        for image in images
        for draw in range(draws)
    ]


def find_claim(records, words):
    [claim] = [c for c in league.judge(Settings(), records) if words in c.statement]
    return claim


def test_claims_turn_with_their_networks():
    for factor, verdict in ((1.3, "supported"), (1 / 1.3, "contradicted")):
        records = make_records(
            "inversion",
            ("small", "small_kernel5"),
            "distance",
            lambda name, factor=factor: 10.0 * (1.0 if name == "small" else factor),
        )
        for record in records:
            record["spikes"] = 0.0
        claim = find_claim(records, "5×5")
        assert (claim.verdict, claim.n) == (verdict, 12)
        assert {c.verdict for c in league.judge(Settings(), records)} == {verdict, "not run"}


def test_residual_networks_are_compared_at_three_depths():
    names = [f"resnet{depth}{end}" for depth in (18, 34, 50) for end in ("", "_plain")]
    records = make_records(
        "texture", names, "contour_distance", lambda name: 1.0 if "plain" in name else 1.5
    )
    claim = find_claim(records, "worse textures")
    assert claim.verdict == "supported"
    assert claim.effect == pytest.approx(-math.log(1.5), abs=0.02)
    # Of two depths there is no answer.
    two = [record for record in records if "50" not in record["trial"]["network"]]
    assert find_claim(two, "worse textures").verdict == "not run"


def test_the_trained_network_stands_for_all_draws():
    records = make_records("texture", ["pooled_bank"], "contour_distance", lambda name: 1.1)
    records += make_records(
        "texture", [TRAINED_VGG19], "contour_distance", lambda name: 1.0, draws=1
    )
    claim = find_claim(records, "rivals the trained")
    assert (claim.verdict, claim.n) == ("supported", 12)


def test_a_softmax_of_features_is_a_distribution():
    network = NETWORKS["small_narrowest"]
    extractor = network.bind(random_weights(jax.random.key(0), network, last_layer="pool2"))
    image, layers = RNG.uniform(size=(16, 24, 3)).astype(np.float32), ("conv1_1", "pool2")
    smoothed = league.smooth(extractor, layers, image)
    raw = extractor(image, layers)
    for layer, maps in smoothed(image, layers).items():
        assert maps.shape == raw[layer].shape
        assert float(maps.mean()) == pytest.approx(1.0, rel=1e-5)
        found = np.asarray(raw[layer], float)
        expected = np.exp(found / np.abs(found).max())
        np.testing.assert_allclose(maps, expected / expected.mean(), rtol=1e-4)
    # Its gradient is one of the image.
    loss = lambda x: smoothed(x, layers)["pool2"].max()
    assert np.isfinite(np.asarray(jax.grad(loss)(image))).all()


def test_spikes_are_lone_pixels():
    image = np.full((20, 30, 3), 0.4)
    assert league.measure_spikes(image) == 0.0
    image[3, 4], image[10:, :] = 1.0, 0.9  # a spike, and an edge, which is none
    assert league.measure_spikes(image) == pytest.approx(1 / 600)
