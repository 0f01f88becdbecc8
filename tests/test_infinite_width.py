"""Infinite width: the kernels and losses that are computed, and networks drawn by NumPy."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from randviz.experiments import infinite_width as experiment
from randviz.host.settings import parse_flags
from randviz.networks.layers import Conv, Pool
from randviz.networks.network import Network
from randviz.networks.weights import random_weights
from randviz.tasks import infinite_width as theory
from randviz.types import UserError

OFFSET = (30.0, 60.0, 90.0)
NETWORK = Network(
    "wide",
    (Conv("conv1_1", 5), Conv("conv1_2", 5), Pool("pool1"), Conv("conv2_1", 5)),
    initialization="he",
    input_offset=OFFSET,
)
LAYERS = ("conv1_1", "conv1_2", "pool1", "conv2_1")
RNG = np.random.default_rng(5)
# Lopsided and unlike: a swapped axis or image cannot hide.
IMAGES = [RNG.uniform(size=(4, 6, 3)), RNG.uniform(size=(4, 6, 3)) ** 3]
PAIRS = ((0, 0), (1, 1), (0, 1))


@pytest.fixture(scope="module")
def kernels():
    return theory.compute_kernels(NETWORK, IMAGES, [(0, 1)], LAYERS)


def list_patches(image):
    """[24, 27], what the first layer's filters see, in units of its first kernels' deviation."""
    padded = np.pad(255 * image - OFFSET, ((1, 1), (1, 1), (0, 0)))
    patches = [padded[i : i + 3, j : j + 3].ravel() for i in range(4) for j in range(6)]
    return np.array(patches) * np.sqrt(2 / 27) / (255 / 2)


def draw_features(rng, width, count):
    """[count, 2 images, 24 positions, width] of networks of one layer, by NumPy alone."""
    filters = rng.normal(size=(count, 27, width))
    patches = np.stack([list_patches(image) for image in IMAGES])
    return np.maximum(np.einsum("ipk,nkc->nipc", patches, filters), 0)


def flatten(kernel):
    side = round(kernel.size**0.5)
    return kernel.reshape(side, side)


def check_mean(values, expected):
    values = np.asarray(values)
    error = values.std(ddof=1) / len(values) ** 0.5
    assert error < 0.05 * abs(expected)  # or the test could not fail
    assert abs(values.mean() - expected) < 3.5 * error


@pytest.mark.parametrize("pair", PAIRS)
def test_the_first_layers_kernel_is_the_mean_over_filters(kernels, pair):
    features = draw_features(np.random.default_rng(0), 200_000, 1)[0]
    first, second = (features[i] for i in pair)
    kernel = kernels[pair]["conv1_1"]
    found = flatten(kernel.second)
    np.testing.assert_allclose(first @ second.T / 200_000, found, atol=0.02 * found.max())
    fourth = flatten(kernel.fourth)
    np.testing.assert_allclose(first**2 @ (second**2).T / 200_000, fourth, atol=0.05 * fourth.max())


@pytest.mark.parametrize("width", [1, 4, 64])
def test_a_networks_kernel_is_off_as_expected_and_by_the_root_of_its_width(kernels, width):
    own = draw_features(np.random.default_rng(width), width, 3000)[:, 0]
    limit = flatten(kernels[0, 0]["conv1_1"].second)
    squares = [np.sum((x @ x.T / width - limit) ** 2) / np.sum(limit**2) for x in own]
    error = theory.expect_kernel_error(kernels[0, 0]["conv1_1"], width)
    check_mean(squares, error**2)
    one = theory.expect_kernel_error(kernels[0, 0]["conv1_1"], 1)
    assert error == pytest.approx(one / width**0.5)


@pytest.mark.parametrize("width", [2, 16])
def test_the_mean_texture_loss_of_networks_drawn_is_computed_without_them(kernels, width):
    losses = []
    for features in draw_features(np.random.default_rng(width), width, 8000):
        grams = [x.T @ x / len(x) for x in features]
        losses.append(np.sum((grams[0] - grams[1]) ** 2) / (4 * width**2))
    three = [kernels[pair]["conv1_1"] for pair in PAIRS]
    check_mean(losses, theory.expect_texture_loss(*three, width))
    assert theory.expect_texture_loss(*three, width) > theory.expect_texture_loss(*three)
    wide = theory.expect_texture_loss(*three, 10**9)
    assert wide == pytest.approx(theory.expect_texture_loss(*three))


@pytest.mark.parametrize("width", [1, 16])
def test_means_have_the_limits_loss_at_any_width(kernels, width):
    means = draw_features(np.random.default_rng(9), width, 12_000).mean(2)
    losses = np.mean((means[:, 0] - means[:, 1]) ** 2, -1)
    limit = theory.squared_discrepancy(*(kernels[pair]["conv1_1"].second for pair in PAIRS))
    check_mean(losses, limit)


def test_kernels_of_deep_wide_networks_are_the_limits_on_average(kernels):
    width, count = 256, 24
    layers = tuple(
        dataclasses.replace(layer, channels=width) if isinstance(layer, Conv) else layer
        for layer in NETWORK.layers
    )
    network = dataclasses.replace(NETWORK, layers=layers).for_one_evaluation()

    @jax.jit
    def compare(key):
        extractor = network.bind(random_weights(key, network, last_layer="conv2_1"))
        first, second = (extractor(jnp.asarray(x, "float32"), LAYERS) for x in IMAGES)
        product = lambda x, y: jnp.einsum("abc,dec->abde", x, y) / width
        return jax.tree.map(product, first, second)

    drawn = [compare(jax.random.key(seed)) for seed in range(count)]
    for layer in LAYERS:
        limit = kernels[0, 1][layer].second
        error = np.mean([found[layer] for found in drawn], axis=0, dtype=np.float64) - limit
        # A wrong scale or a wrong kernel would be off by far more than 6144 channels are.
        assert np.linalg.norm(error) < 0.08 * np.linalg.norm(limit), layer


def test_an_image_is_at_no_distance_from_itself(kernels):
    own = kernels[0, 0]["conv2_1"]
    assert theory.expect_texture_loss(own, own, own) == 0


@pytest.mark.parametrize(
    ("network", "images", "said"),
    [
        (NETWORK, [IMAGES[0], IMAGES[1][:, :5]], "5×4 and 6×4"),
        (dataclasses.replace(NETWORK, activation="elu"), IMAGES, "ReLU"),
        (NETWORK, [np.ones((65, 64, 3))] * 2, "too large"),
    ],
)
def test_what_is_not_covered_is_refused(network, images, said):
    with pytest.raises(UserError, match=said):
        theory.compute_kernels(network, images, [(0, 1)], ("conv1_1",))


def test_after_pooling_finite_widths_are_refused(kernels):
    own = kernels[0, 0]["pool1"]
    with pytest.raises(UserError, match="after pooling"):
        theory.expect_texture_loss(own, own, own, 8)
    with pytest.raises(UserError, match="after pooling"):
        theory.expect_kernel_error(own, 8)


SMALL = ["--image=brick,beach", "--image_size=16", "--num_steps=3", "--widths=2,8"]
SMALL += ["--num_networks=3", "--descent_widths=2", "--num_descents=1"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("out")
    assert experiment.main([*SMALL, f"--out_dir={folder}"]) == 0
    return folder


def read_records(folder):
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_networks_descents_and_baselines_are_recorded_and_drawn(finished):
    records = read_records(finished)
    parts = [record["trial"]["part"] for record in records]
    assert [parts.count(part) for part in ("width", "baseline", "descent")] == [6, 12, 8]
    for name in ("width.png", "descents.png", "panel.jpg"):
        assert (finished / name).exists()
    table = (finished / "descents.md").read_text()
    for baseline in experiment.BASELINES.values():
        assert f"| {baseline} |" in table
    assert json.loads((finished / "claims.json").read_text())["claims"]


@pytest.mark.slow
def test_a_network_comes_out_again_and_its_kernel_is_numpys(finished):
    settings = parse_flags(experiment.Settings, [*SMALL, "--out_dir=x"])
    record = read_records(finished)[1]
    found = experiment.measure(settings, record["trial"])
    assert found["loss"]["brick"]["conv2_1"]["gram"]["other"] == pytest.approx(
        record["loss"]["brick"]["conv2_1"]["gram"]["other"], rel=1e-4
    )
    width = record["trial"]["width"]
    key = jax.random.fold_in(jax.random.fold_in(experiment.make_keys(0)[0], 0), width)
    params = random_weights(key, experiment.make_network(width), last_layer="conv1_1")
    picture = np.asarray(experiment.load_pictures(settings, "image")["beach"].image)
    padded = np.pad(255 * picture - experiment.IMAGENET_MEAN, ((1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (0, 1))
    kernel = np.asarray(params["conv1_1"]["kernel"], np.float64)
    maps = np.maximum(np.einsum("abcij,ijcd->abd", windows, kernel), 0).reshape(-1, width)
    limit = flatten(experiment.compute_limits(settings)["beach"].kernels["conv1_1"])
    error = np.linalg.norm(maps @ maps.T / width - limit) / np.linalg.norm(limit)
    assert record["error"]["beach"]["conv1_1"] == pytest.approx(error, rel=1e-3)


def test_a_redrawn_descent_begins_with_the_fixed_filters():
    settings = parse_flags(experiment.Settings, [*SMALL, "--out_dir=x"])
    place = {"image": "brick", "statistic": "gram", "width": 2, "network": 0}
    fixed, redrawn = (
        experiment._make_objective(settings, {**place, "draw": draw}) for draw in experiment.DRAWS
    )
    image = jnp.full((16, 16, 3), 0.3)
    assert redrawn.at(0)(image) == fixed(image)
    assert redrawn.at(1)(image) != fixed(image)


def make_record(width, network, errors):
    trial = {"part": "width", "width": width, "network": network}
    return {"trial": trial, "error": {name: {"conv1_1": x} for name, x in errors.items()}}


def test_slopes_are_those_of_the_errors():
    slopes, sizes = {"a": -0.5, "b": -1.0}, (1.0, 3.0, 0.2)
    records = [
        make_record(w, n, {name: size * w**slope for name, slope in slopes.items()})
        for n, size in enumerate(sizes)
        for w in (4, 8, 32)
    ]
    records.append(make_record(4, 3, {"a": 9.0, "b": 9.0}))  # a stopped run: one width of three
    expected = [[-0.5] * 3, [-1.0] * 3]
    np.testing.assert_allclose(experiment.fit_slopes(records, "conv1_1"), expected)


def test_the_slope_is_of_the_root_mean_square():
    # Narrow networks scatter more, which draws the logarithms' mean down.
    rng = np.random.default_rng(0)
    records = []
    for w in (4, 16, 64):
        squares = rng.gamma(w / 16, size=200)
        squares /= squares.mean() * w
        records += [make_record(w, n, {"a": x**0.5}) for n, x in enumerate(squares)]
    found = experiment.fit_slopes(records, "conv1_1")
    assert found.shape == (1, 200) and found.mean() == pytest.approx(-0.5, abs=0.01)
    logs = np.log(experiment.tabulate_errors(records, "conv1_1")[0])
    assert np.polyfit(np.log([4, 16, 64]), logs.mean(0), 1)[0] > -0.3


def test_redrawn_filters_are_compared_with_as_many_fixed_ones():
    trial = {"part": "descent", "image": "a", "statistic": "gram", "width": 4, "network": 0}
    records = [
        {"trial": {**trial, "draw": draw}, "limit": limit}
        for draw, limit in (("fixed", 0.4), ("redrawn", 0.1))
    ]
    np.testing.assert_allclose(experiment.compare_draws(records, "gram", 4), [[np.log(0.25)]])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--widths=8,4"], "--widths=8,4 must rise"),
        (["--widths=8"], "no slope"),
        (["--image=brick"], "compared with another"),
    ],
)
def test_mistakes_get_a_sentence(words, said, tmp_path, capsys):
    assert experiment.main([*SMALL, *words, f"--out_dir={tmp_path}"]) == 2
    assert said in capsys.readouterr().err
