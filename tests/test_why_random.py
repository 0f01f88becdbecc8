"""Why random: frozen masks, shuffled kernels, baselines, and the division into steps."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from randviz.experiments import why_random
from randviz.experiments.frozen_masks import freeze_masks, measure_flips
from randviz.host.baselines import average_blocks, fill_with_mean
from randviz.host.quality import compare_images
from randviz.host.settings import parse_flags
from randviz.networks.catalog import NETWORKS
from randviz.networks.weights import random_weights
from randviz.tasks.inversion import Inversion

LAYER = "pool2"


@pytest.fixture(autouse=True, scope="module")
def only_tiny(tiny):
    """The commands' architecture is the small one, and leaves the offset open."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, "tiny", dataclasses.replace(tiny, input_offset=None))
        yield


@pytest.fixture(scope="module")
def extractor(tiny):
    """Centred, with biases, so that they cannot be forgotten."""
    network = dataclasses.replace(tiny, input_offset=100.0)
    params = random_weights(
        jax.random.key(3), network, scale=0.2, bias_scale=3.0, last_layer="conv2_1"
    )
    return network.bind(params)


def convolve(maps, weights):
    kernel, bias = (np.asarray(weights[name], np.float64) for name in ("kernel", "bias"))
    padded = np.pad(maps, ((1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (0, 1))
    return np.einsum("abcij,ijcd->abd", windows, kernel) + bias


def compute(params, image, picture):
    """pool2 of the network whose masks are the picture's, and all masks, by NumPy alone."""
    maps, theirs, masks = 255 * image - 100.0, 255 * picture - 100.0, {}
    for layer in ("conv1_1", "conv1_2", "pool1", "conv2_1", "pool2"):
        if layer.startswith("conv"):
            theirs = convolve(theirs, params[layer])
            masks[layer] = theirs > 0
            maps = convolve(maps, params[layer]) * masks[layer]
            theirs = theirs * masks[layer]
        else:
            halve = lambda x: x.reshape(x.shape[0] // 2, 2, x.shape[1] // 2, 2, -1).mean((1, 3))
            maps, theirs = halve(maps), halve(theirs)
    return maps, masks


def test_frozen_masks_are_the_pictures_whatever_the_input(extractor, image, other_image):
    frozen = freeze_masks(extractor, image, LAYER)
    for x in (image, other_image):
        expected, _ = compute(extractor.params, np.float64(x), np.float64(image))
        found = np.asarray(frozen(x, LAYER)[LAYER], np.float64)
        # Weights were rescaled, by a power of two in all.
        factor = np.vdot(found, expected) / np.vdot(expected, expected)
        assert np.log2(factor) == pytest.approx(round(np.log2(factor)), abs=1e-4)
        np.testing.assert_allclose(found, factor * expected, atol=1e-4 * np.abs(found).max())


def test_at_the_picture_weight_and_gradient_are_the_relu_networks(extractor, image, other_image):
    objectives = [
        Inversion(LAYER).of(x, image) for x in (extractor, freeze_masks(extractor, image, LAYER))
    ]
    weights = [objective.parts["content"].terms[0].weight for objective in objectives]
    np.testing.assert_allclose(*weights, rtol=1e-4)
    for objective in objectives:
        assert objective(image) < 1e-9
        # Over the energy a loss is the share of the features that is missing.
        term = objective.parts["content"].terms[0]
        features = objective.extractor(other_image, LAYER)[LAYER]
        share = np.sum((features - term.target) ** 2) / np.sum(term.target**2)
        energy = why_random._measure_energy(objective)
        np.testing.assert_allclose(objective(other_image) / energy, share, rtol=1e-4)
    # Elsewhere they differ, or there would be nothing to compare.
    relu, frozen = (float(objective(other_image)) for objective in objectives)
    assert abs(relu / frozen - 1) > 0.01


def test_without_relu_neither_offset_nor_bias_matters(extractor, image, other_image):
    trial = {"activation": "none", "layer": LAYER}
    others = (
        extractor,
        dataclasses.replace(
            extractor, network=dataclasses.replace(extractor.network, input_offset=0.0)
        ),
        extractor.network.bind(why_random.drop_biases(extractor.params)),
    )
    gradients = []
    for other in others:
        objective = why_random._make_objective(trial, other, image)
        gradient = np.asarray(jax.grad(objective)(other_image))
        gradients.append(gradient / np.linalg.norm(gradient))
    for gradient in gradients[1:]:
        np.testing.assert_allclose(gradient, gradients[0], atol=1e-5)


def test_flips_are_shares_of_masks(extractor, image, other_image):
    masks = [
        compute(extractor.params, np.float64(x), np.float64(x))[1] for x in (image, other_image)
    ]
    found = measure_flips(extractor, image, other_image, LAYER)
    assert set(found) == set(masks[0])
    for layer, share in found.items():
        assert share == pytest.approx(np.mean(masks[0][layer] != masks[1][layer]), abs=2e-3)
        assert share > 0.01
    assert not any(measure_flips(extractor, image, image, LAYER).values())


def test_shuffled_kernels_are_the_same_numbers_in_another_order(params):
    first, second = (why_random.shuffle_kernels(jax.random.key(seed), params) for seed in (0, 1))
    for layer, weights in params.items():
        kernel = np.asarray(weights["kernel"])
        np.testing.assert_array_equal(
            np.sort(kernel, axis=None), np.sort(np.asarray(first[layer]["kernel"]), axis=None)
        )
        same = np.mean(kernel == first[layer]["kernel"])
        assert same < 0.1 and np.any(first[layer]["kernel"] != second[layer]["kernel"])
        assert not np.any(first[layer]["bias"])


def test_block_means_are_means_of_blocks():
    picture = np.random.default_rng(0).uniform(size=(8, 12, 3))
    found = average_blocks(picture, 3 * 2 * 3)
    for i in range(2):
        for j in range(3):
            place = np.s_[4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
            expected = np.broadcast_to(picture[place].mean((0, 1)), (4, 4, 3))
            np.testing.assert_allclose(found[place], expected)


@pytest.mark.parametrize("count", [3, 25, 100, 287])
def test_block_means_are_no_more_numbers_than_allowed(count):
    picture = np.random.default_rng(0).uniform(size=(8, 12, 3))
    found = average_blocks(picture, count)
    numbers = len(np.unique(found.round(12)))
    assert count / 3 < numbers <= count
    np.testing.assert_allclose(found.mean(), picture.mean(), rtol=0.05)


def test_enough_block_means_are_the_picture_and_one_is_its_mean():
    picture = np.random.default_rng(0).uniform(size=(8, 12, 3))
    np.testing.assert_array_equal(average_blocks(picture, picture.size), picture)
    np.testing.assert_array_equal(average_blocks(picture, 10**6), picture)
    np.testing.assert_allclose(average_blocks(picture, 3), fill_with_mean(picture))
    np.testing.assert_allclose(fill_with_mean(picture)[3, 4], picture.mean((0, 1)))


def make_records(logs, images=8, networks=3, noise=0.0):
    """Records whose log distances are functions of weights, offset and activation."""
    rng = np.random.default_rng(0)
    return [
        {
            "trial": {
                "image": f"p{image}", "layer": LAYER, "weights": weights, "offset": offset,
                "activation": activation, "network": network, "num_steps": 9,
            },
            "distance": float(np.exp(logs(weights, offset, activation) + noise * rng.normal())),
        }
        for image in range(images)
        for weights in why_random.WEIGHTS
        for network in range(networks if weights in ("gaussian", "trained-shuffled") else 1)
        for activation in ("relu", "frozen")
        for offset in why_random.OFFSETS
    ]  # fmt: skip


def score(weights, offset, activation):
    """Different in all cells."""
    rank = why_random.WEIGHTS.index(weights)
    return 1 + rank**2 / 10 + (offset == "mean") / (3 + rank) + (activation == "relu") * rank / 7


def test_the_steps_add_up_to_the_whole_and_the_parts_to_the_steps():
    steps = why_random.divide_steps(make_records(score), LAYER)
    for relu, frozen, masks in steps.values():
        np.testing.assert_allclose(frozen + masks, relu)
    value = lambda name: steps[name][0].mean()
    way = [f"offset mean: {step}" for step in why_random.STEPS]
    whole = "Gaussian at offset {} to trained at offset mean, all in all"
    assert sum(map(value, way)) == pytest.approx(value(whole.format("mean")))
    way.append("Gaussian: the mean subtracted")
    assert sum(map(value, way)) == pytest.approx(value(whole.format("0")))
    total = score("trained", "mean", "relu") - score("gaussian", "0", "relu")
    assert value(whole.format("0")) == pytest.approx(total)
    assert steps[whole.format("0")][0].shape == (8, 3)


def test_pictures_of_a_stopped_run_are_left_out_whole():
    records = make_records(score, images=2)
    kept = why_random.complete(records[:-1])
    assert {record["trial"]["image"] for record in kept} == {"p0"}
    longer = {**records[0], "trial": {**records[0]["trial"], "num_steps": 99}}
    assert len(why_random.complete([*records, longer])) == len(records)


def test_verdicts_go_with_the_sign_and_wait_for_ten_units():
    verdicts = lambda records: {
        claim.statement.partition(", ")[2]: claim.verdict
        for claim in why_random.judge(why_random.Settings(), records)
    }
    found = verdicts(make_records(score, noise=0.01))
    nearer = next(name for name in found if name.startswith("each with its own"))
    assert found[nearer] == "supported"
    turned = verdicts(make_records(lambda *cell: -score(*cell), noise=0.01))
    assert turned[nearer] == "contradicted"
    assert set(verdicts(make_records(score, images=6, noise=0.01)).values()) == {"inconclusive"}
    untrained = [r for r in make_records(score) if r["trial"]["weights"] == "gaussian"]
    run = [name for name, verdict in verdicts(untrained).items() if verdict != "not run"]
    assert run == ["on centred input Gaussian weights lose distance among the masks."]


SMALL = ["--network=tiny", "--image=beach,coffee", "--image_size=24", "--layers=pool2"]
SMALL += ["--num_steps=3", "--long_layer=pool2", "--long_steps=6", "--num_long_images=1"]
SMALL += ["--num_networks=2"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, params):
    """A file of weights with biases."""
    path = tmp_path_factory.mktemp("weights") / "tiny.npz"
    arrays = {}
    for layer in ("conv1_1", "conv1_2", "conv2_1"):
        kernel = np.asarray(params[layer]["kernel"])
        arrays[f"{layer}_weight"] = kernel[..., ::-1] ** 3 / 1e-4
        arrays[f"{layer}_bias"] = np.linspace(-0.1, 0.2, kernel.shape[-1], dtype=np.float32)
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory, trained):
    folder = tmp_path_factory.mktemp("out")
    words = [*SMALL, f"--trained_weights={trained}", f"--out_dir={folder}"]
    assert why_random.main(words) == 0
    return folder, words


def read_records(folder):
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_all_cells_and_baselines_are_measured_tabled_and_come_out_again(finished):
    folder, words = finished
    records = read_records(folder)
    # Of a picture: 4 baselines; 2 + 2 networks of five cells, one of four, one of five. Of the
    # first picture six longer ones.
    assert len(records) == 2 * (4 + 4 * 5 + 4 + 5) + 3 * 2
    for record in records:
        own = record["trial"].get("weights", "").startswith("trained")
        assert ("weights_sha256" in record) == own
        if record["trial"].get("activation") == "relu":
            assert 0 < record["flips_start"]["conv1_1"] < 1
    table = (folder / "table.md").read_text()
    for name in why_random.BASELINES.values():
        assert f"| {name} |" in table
    assert "not run" not in table
    for name in ("convergence.md", "steps.md"):
        assert all(each in (folder / name).read_text() for each in why_random.BASELINES.values())
    for name in ("distances.png", "flips.png", "panel.jpg", "steps.md"):
        assert (folder / name).exists()
    settings = parse_flags(why_random.Settings, words)
    for weights in ("gaussian", "trained-shuffled"):
        record = next(
            r
            for r in records
            if r["trial"].get("weights") == weights and r["trial"]["activation"] == "frozen"
        )
        again = why_random.measure(settings, record["trial"])
        assert again["distance"] == pytest.approx(record["distance"], rel=1e-4)
    start = next(r for r in records if r["trial"].get("baseline") == "start")
    picture = why_random.load_pictures(settings, "image")["beach"].image
    noise = why_random.make_noise(settings, picture, why_random.NOISE_STD)
    assert start["distance"] == compare_images(noise, picture)["distance"]
    before = (folder / "records.jsonl").read_bytes()
    assert why_random.main(words) == 0
    assert (folder / "records.jsonl").read_bytes() == before


@pytest.mark.slow
def test_the_frozen_loss_falls_and_networks_differ(finished):
    records = read_records(finished[0])
    place = {"image": "beach", "layer": "pool2", "weights": "gaussian", "offset": "mean"}
    chosen = [
        record
        for record in records
        if place.items() <= record["trial"].items() and record["trial"]["activation"] == "frozen"
    ]
    distances = {
        (record["trial"]["network"], record["trial"]["num_steps"]): record for record in chosen
    }
    assert distances[0, 3]["distance"] != distances[1, 3]["distance"]
    assert distances[0, 6]["final_loss"] < distances[0, 3]["final_loss"]


def test_without_weights_the_trained_cells_are_not_run(tmp_path):
    assert why_random.main([*SMALL, f"--out_dir={tmp_path}"]) == 0
    weights = {record["trial"].get("weights") for record in read_records(tmp_path)}
    assert weights == {None, "gaussian"}
    assert "not run" in (tmp_path / "steps.md").read_text()
    claims = json.loads((tmp_path / "claims.json").read_text())["claims"]
    assert {claim["verdict"] for claim in claims} == {"not run", "inconclusive"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--long_layer=conv1_1"], "--long_layer=conv1_1 is not among --layers=pool2"),
        (["--trained_weights={}", "--image=brick,beach"], "--image=brick is among"),
        (["--image=beach,beach"], "twice"),
    ],
)
def test_mistakes_get_a_sentence(words, said, tmp_path, capsys, trained):
    words = [word.format(trained) for word in words]
    assert why_random.main([*SMALL, *words, f"--out_dir={tmp_path}"]) == 2
    assert said in capsys.readouterr().err


def test_by_default_no_picture_is_one_that_filters_are_normalised_on():
    settings = why_random.Settings()
    assert len(settings.image) >= 10 and len(settings.normalization_images) >= 13
    assert not set(settings.image) & set(settings.normalization_images)


def test_cells_of_different_activations_are_different_functions(extractor, image, other_image):
    values = [
        float(
            why_random._make_objective({"activation": name, "layer": LAYER}, extractor, image)(
                jnp.asarray(other_image)
            )
        )
        for name in why_random.ACTIVATIONS
    ]
    assert len(set(np.round(values, 6))) == 3


def test_baselines_are_compared_picture_by_picture():
    cell = {"weights": "gaussian", "offset": "0", "activation": "relu"}
    made = make_records(score, images=2)
    records = [record for record in made if cell.items() <= record["trial"].items()]
    baselines = [
        {"trial": {"image": f"p{i}", "layer": LAYER, "baseline": "mean"}, "distance": distance}
        for i, distance in enumerate((10.0, 0.0, 5.0))
    ]
    found = why_random.compare_with_baseline(records, baselines)
    # The second picture is its own baseline, at no distance.
    expected = np.full((1, 3), np.log(10.0) - score("gaussian", "0", "relu"))
    np.testing.assert_allclose(found, expected, atol=1e-8)
