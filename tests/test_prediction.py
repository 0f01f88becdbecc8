"""Whether untrained scores foretell accuracy: the data set, the training, proxies, correlations."""

import json
import math

import jax
import numpy as np
import pytest

from randviz.experiments import classification, prediction
from randviz.experiments.classification import (
    Crops,
    make_crops,
    prepare_network,
    train_classifier,
)
from randviz.experiments.league import list_layers
from randviz.experiments.prediction import KNOWN, PUBLISHED, correlate
from randviz.experiments.proxies import (
    count_operations,
    count_weights,
    measure_naswot,
    measure_synflow,
)
from randviz.networks.catalog import NETWORKS
from randviz.networks.network import Network
from randviz.networks.weights import random_weights

RNG = np.random.default_rng(29)


def draw(name, seed=0):
    network = prepare_network(NETWORKS[name])
    layer = list_layers(network)[-1]
    return network, random_weights(jax.random.key(seed), network, last_layer=layer), layer


def test_crops_to_test_on_come_from_elsewhere():
    # A ramp: what a crop shows says where it is from. Brightness is standardised, order is kept.
    ramp = np.linspace(0, 1, 200)[None, :, None] * np.ones((100, 1, 3))
    noisy = np.clip(ramp + RNG.uniform(0, 0.3, ramp.shape), 0, 1)
    train, test = (make_crops([noisy, ramp], 12, test=test) for test in (False, True))
    for crops in (train, test):
        assert crops.images.shape == (24, 24, 24) and list(np.bincount(crops.labels)) == [12, 12]
        np.testing.assert_allclose(crops.images.mean((1, 2)), 0.5, atol=0.02)
        np.testing.assert_allclose(crops.images.std((1, 2)), 0.2, atol=0.02)
    # The left of a picture that is black on the right is all that training sees, and none of it
    # is what the test sees.
    split = np.where(np.arange(200)[None, :, None] < 125, noisy, 0.0)
    assert make_crops([split], 4, test=False).images.std() > 0.19
    assert make_crops([split], 4, test=True).images.std() == 0.0


@pytest.fixture(scope="module")
def stripes():
    """Two classes that no linear classifier of pixels tells apart: fine stripes and coarse ones."""

    def make(count, seed):
        rng = np.random.default_rng(seed)
        labels = np.arange(count) % 2
        places = np.arange(24)[None, None, :] + rng.uniform(0, 24, (count, 1, 1))
        waves = 0.5 + 0.25 * np.sin(2 * np.pi * places / np.where(labels, 4, 12)[:, None, None])
        images = np.broadcast_to(waves, (count, 24, 24))
        return Crops(images.astype(np.float32), labels.astype(np.int32))

    return make(64, 1), make(32, 2)


def test_training_learns_what_pixels_do_not_tell(stripes, monkeypatch):
    train, test = stripes
    key = jax.random.key(3)
    network, params, layer = draw("small_narrowest")
    options = {"train": train, "test": test, "num_steps": 30}
    found = train_classifier(key, network, params, layer, **options)
    assert found["accuracy"] > 0.9 and found["train_loss"] < 0.5
    # The better of both learning rates, which comes out again; the other's loss is higher.
    for rate in classification.LEARNING_RATES:
        monkeypatch.setattr(classification, "LEARNING_RATES", (rate,))
        one = train_classifier(key, network, params, layer, **options)
        assert one == found or one["train_loss"] > found["train_loss"]
        assert (one == found) == (rate == found["learning_rate"])
    pixels = train_classifier(key, None, (), "", **options)
    assert pixels["accuracy"] < 0.8


def test_shuffled_labels_are_not_learned(stripes):
    train, test = stripes
    network, params, layer = draw("small_narrowest")
    shuffled = train._replace(labels=RNG.permutation(train.labels))
    found = train_classifier(
        jax.random.key(3), network, params, layer, shuffled, test, num_steps=30
    )
    assert found["accuracy"] < 0.8


def test_naswot_is_that_of_its_codes():
    network, params, _ = draw("small_narrowest")
    images = RNG.uniform(size=(5, 24, 24)).astype(np.float32)
    layers = ("conv1_1", "conv2_1")
    codes = []
    for image in images:
        features = network.bind(params)(np.repeat(image[..., None], 3, 2), layers)
        codes.append(np.concatenate([np.asarray(features[name]).ravel() > 0 for name in layers]))
    agree = np.array([[np.mean(a == b) for b in codes] for a in codes])
    expected = math.log(np.linalg.det(agree))
    assert measure_naswot(network, params, layers, images) == pytest.approx(expected, rel=1e-4)
    assert measure_naswot(network, params, layers, images[[0, 0, 1]]) == -math.inf


def test_synflow_is_that_of_absolute_weights():
    """R is linear in each layer's weights where they are not negative: Σ θ ∂R/∂θ is R each time."""
    network, params, _ = draw("small_narrowest")
    bare = Network("bare", network.layers, input_offset=0.0, input_scale=1 / 255)
    extractor = bare.bind(jax.tree.map(abs, params))
    total = float(extractor(np.ones((16, 16, 3), np.float32), "conv2_1")["conv2_1"].sum())
    found = measure_synflow(network, params, "conv2_1", 16)
    assert found == pytest.approx(math.log(3 * total), rel=1e-4)  # of three layers


def test_synflow_leaves_normalisation_out():
    plain, params, layer = draw("small")
    normalized, _, last = draw("small_normalized")
    assert measure_synflow(normalized, params, last, 24) == pytest.approx(
        measure_synflow(plain, params, layer, 24), rel=1e-5
    )


def test_operations_and_weights_are_counted():
    network, params, _ = draw("small_narrowest")
    # Two 3×3 convolutions of 4 channels: twice as many operations as products.
    products = 16 * 16 * 9 * (3 * 4 + 4 * 4)
    found = count_operations(network, params, "conv1_2", (16, 16, 3))
    assert 1.8 * products < found < 2.6 * products  # edges are not counted, activations are
    assert count_weights({"a": np.ones((3, 4)), "b": {"c": np.ones(5)}}) == 17


def make_scores(gains):
    """Records of a league whose inversions have these gains."""
    return [
        {
            "trial": {"network": name, "draw": draw, "part": "inversion", "image": image},
            "gain": gain + RNG.normal(0, 0.05),
            "distance": 10.0,
        }
        for name, gain in gains.items()
        for draw in range(2)
        for image in "abc"
    ]


def make_trainings(accuracies):
    return [
        {
            "trial": {"network": name, "draw": draw, "part": "training"},
            "accuracy": accuracy + RNG.normal(0, 0.002),
        }
        for name, accuracy in accuracies.items()
        for draw in range(3)
    ]


def test_a_planted_correlation_is_found_and_a_shuffled_one_is_not(tmp_path):
    names = [f"net{k:02d}" for k in range(18)]
    gains = dict(zip(names, np.linspace(-3, 3, 18), strict=True))
    planted = {name: 0.5 + 0.05 * gain + RNG.normal(0, 0.02) for name, gain in gains.items()}
    shuffled = dict(zip(names, RNG.permutation(list(planted.values())), strict=True))
    (tmp_path / "records.jsonl").write_text(
        "".join(json.dumps(record) + "\n" for record in make_scores(gains))
    )
    settings = prediction.Settings(league=str(tmp_path))
    for accuracies, verdict in ((planted, "supported"), (shuffled, "inconclusive")):
        claims = prediction.judge(settings, make_trainings(accuracies))
        # Both of inversions, with all architectures and with those that have an activation.
        first, last = (claim for claim in claims if "inverted" in claim.statement and claim.n)
        assert (first.verdict, first.n, first.post_hoc) == (verdict, 18, False), first
        assert (last.effect, last.post_hoc) == (first.effect, True)
        assert {claim.verdict for claim in claims if not claim.n} == {"not run"}


def test_networks_without_an_activation_are_left_out_of_the_last_claim(tmp_path):
    names = [f"net{k:02d}" for k in range(18)]
    gains = dict(zip(names, np.linspace(-3, 3, 18), strict=True)) | {"small_linear": 9.0}
    (tmp_path / "records.jsonl").write_text(
        "".join(json.dumps(record) + "\n" for record in make_scores(gains))
    )
    accuracies = {name: 0.5 + 0.05 * gains[name] for name in names} | {"small_linear": 0.0}
    settings = prediction.Settings(league=str(tmp_path))
    first, last = (c for c in prediction.judge(settings, make_trainings(accuracies)) if c.n)
    assert (first.n, last.n) == (19, 18) and first.effect < last.effect > 0.95


def test_intervals_of_correlations_hold_them():
    """Of a hundred samples of 18 with a rank correlation of 0.6, nine tenths hold it, or about."""
    held = 0
    for _ in range(100):
        # Spearman's of a normal pair with Pearson's r is 6/π asin(r/2).
        r = 2 * math.sin(0.6 * math.pi / 6)
        x = RNG.normal(size=18)
        y = r * x + math.sqrt(1 - r**2) * RNG.normal(size=18)
        found = correlate(dict(enumerate(x)), dict(enumerate(y))).estimate
        held += found.low <= 0.6 <= found.high
    assert held >= 85  # of 95 %, fewer have a probability of 1 in 10,000


def test_what_cannot_be_correlated_is_not():
    three, six = ({name: k for k, name in enumerate(names)} for names in ("abc", "abcdef"))
    assert correlate(three, three).estimate.n == correlate({}, {}).estimate.n == 0
    assert correlate(dict.fromkeys("abcdef", 1.0), six).estimate.n == 0
    found = correlate(six, six)
    assert found.estimate[0] == pytest.approx(1) and found.estimate.low > 0.9
    assert found.p == pytest.approx(2 / math.factorial(6))


def test_all_weights_are_those_that_papers_count():
    million = {"alexnet": 60.97, "vgg16": 138.36, "vgg19": 143.67, "resnet18": 11.69 - 0.513}
    for name, count in million.items():
        drawn = prediction._draw(prediction.Settings(), {"network": name, "draw": 0})
        assert prediction._count_all_weights(drawn) / 1e6 == pytest.approx(count, rel=2e-3), name


def test_published_accuracies_are_of_known_networks():
    assert set(PUBLISHED) <= set(NETWORKS)
    assert all(50 < accuracy < 80 and source for accuracy, source in PUBLISHED.values())
    assert len(prediction.gather_accuracies([])[KNOWN]) == len(PUBLISHED) >= 10


def test_a_small_comparison_runs_from_end_to_end(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(prediction, "PUBLISHED", {"small_stride": (50.0, "nowhere")})
    league = tmp_path / "league"
    league.mkdir()
    names = ("small_narrowest",)
    (league / "records.jsonl").write_text(
        "".join(json.dumps(r) + "\n" for r in make_scores(dict.fromkeys(names, 1.0)))
    )
    words = [
        f"--network={','.join(names)}",
        "--known_network=small_stride",
        "--image=chelsea,coffee,brick",
        *("--num_networks=1", "--num_crops=8", "--num_steps=2"),
        f"--league={league}",
        f"--out_dir={tmp_path / 'out'}",
    ]
    assert prediction.main(words) == 0
    records = [json.loads(line) for line in (tmp_path / "out" / "records.jsonl").open()]
    assert len(records) == 2 + 2  # with the known one, not trained; with pixels, which are
    proxies = {r["trial"]["network"]: r for r in records if r["trial"]["part"] == "proxies"}
    assert all(math.isfinite(proxies["small_stride"][name]) for name in prediction.PROXIES)
    table = (tmp_path / "out" / "prediction.md").read_text()
    assert "| small_narrowest |" in table and "| pixels |" in table
    assert (tmp_path / "out" / "correlations.png").exists()
    before = (tmp_path / "out" / "records.jsonl").read_text()
    assert prediction.main(words) == 0
    assert (tmp_path / "out" / "records.jsonl").read_text() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--league={empty}"], "holds no records.jsonl; run randviz league"),
        (["--league={damaged}"], "records.jsonl is damaged; run the same league again"),
        (["--network=small,alexnet"], "alexnet cannot be trained on crops of 24×24 pixels"),
        (["--network=small,small"], "names none, or one twice"),
        (["--known_network=small"], "small has no published accuracy here; use some of alexnet,"),
    ],
)
def test_what_is_missing_is_said(words, said, capsys, tmp_path):
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "records.jsonl").write_text('{"trial": {"part": "inv')
    words = [word.format(empty=tmp_path, damaged=damaged) for word in words]
    (tmp_path / "league").mkdir()
    (tmp_path / "league" / "records.jsonl").write_text("")
    options = [
        f"--league={tmp_path / 'league'}",
        "--image=chelsea,coffee",
        "--num_crops=4",
        "--num_steps=1",
        "--num_networks=1",
    ]
    assert prediction.main([*options, f"--out_dir={tmp_path / 'out'}", *words]) == 2
    assert said in capsys.readouterr().err


def test_before_the_league_is_run_the_prediction_can_be_tried(tmp_path, capsys):
    words = ["--network=small_narrowest", "--known_network=vgg11", "--num_networks=2"]
    words += ["--dry_run", f"--out_dir={tmp_path / 'all/prediction'}"]
    assert prediction.main(words) == 0
    # Proxies of both networks, trainings of the first one and of pixels, twice each.
    assert "prediction: 8 trials;" in capsys.readouterr().out
