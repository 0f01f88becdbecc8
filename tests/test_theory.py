"""The theory of random networks: closed forms, scaling laws, and networks really drawn."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from randviz.experiments import theory_panel
from randviz.networks import conv
from randviz.networks.alexnet import ALEXNET, CAFFENET
from randviz.networks.layers import Conv, Pool
from randviz.networks.network import Network
from randviz.networks.vgg import VGG19
from randviz.networks.weights import random_weights
from randviz.objectives.layer_weights import layer_weights
from randviz.objectives.statistics.features import Features
from randviz.objectives.statistics.gram import Gram, texture_loss
from randviz.tasks import theory
from randviz.types import UserError

WIDE = Network(
    "wide",
    (Conv("conv1_1", 128), Conv("conv1_2", 128), Pool("pool1"), Conv("conv2_1", 128)),
    input_offset=0.0,
)
DEPTHS = {"conv1_1": 1, "conv1_2": 2, "pool1": 2, "conv2_1": 3}
LAYERS = tuple(DEPTHS)
NARROW = Network("narrow", (Conv("conv1_1", 12), Conv("conv1_2", 12)), input_offset=0.0)
NUM_NETWORKS = 300
SCALE = 0.03
# Lopsided, with detail, and one corner black.
IMAGE = np.random.default_rng(3).uniform(size=(6, 8, 3)) ** 2
IMAGE[:2, :3] = 0


@pytest.fixture(scope="module")
def predicted():
    return theory.predict_layers(WIDE, IMAGE, LAYERS, scale=SCALE)


def draw_networks(network, layers, count):
    """Energy, texture loss, and reciprocal ω and μ of many networks: {name: {layer: [n]}}."""
    image = jnp.asarray(IMAGE, jnp.float32)

    def measure(key):
        params = random_weights(key, network, scale=SCALE, last_layer=layers[-1])
        extractor = network.bind(params)
        maps = extractor(image, layers)

        def weigh(statistic, gradient_reduction):
            statistics = dict.fromkeys(layers, statistic)
            return layer_weights(
                extractor, image, statistics, gradient_reduction=gradient_reduction
            )

        slopes = {
            name: {layer: 1 / weight for layer, weight in weigh(statistic, "abs_mean").items()}
            for name, statistic in (("content_slope", Features()), ("texture_slope", Gram()))
        }
        return {
            "energy": {layer: jnp.mean(maps[layer] ** 2) for layer in layers},
            "texture_loss": {layer: texture_loss(maps[layer], 0.0) for layer in layers},
            "omega": weigh(Features(), "mean_abs"),
            **slopes,
        }

    keys = jax.random.split(jax.random.key(5), count)
    return jax.device_get(jax.jit(lambda keys: jax.lax.map(measure, keys))(keys))


@pytest.fixture(scope="module")
def drawn():
    return draw_networks(WIDE, LAYERS, NUM_NETWORKS)


def check_mean(values, expected, *, bias=0.0):
    values = np.asarray(values, np.float64)
    error = values.std(ddof=1) / len(values) ** 0.5
    assert error < 0.06 * expected  # or the test could not fail
    assert abs(values.mean() - expected) < 3.5 * error + bias * expected


def positions(covariance):
    """[h, w, h, w] as a matrix."""
    height, width = covariance.shape[:2]
    return covariance.reshape(height * width, height * width)


def outer(maps):
    return np.einsum("abc,dec->abde", maps, maps)


def test_the_first_layer_is_half_the_energy_of_the_patches(predicted):
    padded = np.pad(255 * IMAGE, ((1, 1), (1, 1), (0, 0)))
    patches = [np.sum(padded[i : i + 3, j : j + 3] ** 2) for i in range(6) for j in range(8)]
    expected = SCALE**2 * np.mean(patches) / 2
    np.testing.assert_allclose(predicted["conv1_1"].energy, expected, rtol=1e-12)
    np.testing.assert_allclose(predicted["conv1_1"].content_loss, expected / 2, rtol=1e-12)


def test_the_first_layers_mean_gradient_counts_the_windows_over_each_pixel(predicted):
    rows, columns = np.array([2, 3, 3, 3, 3, 2]), np.array([2, 3, 3, 3, 3, 3, 3, 2])
    gradient = SCALE**2 * 255**2 * np.outer(rows, columns)[..., None] * IMAGE / (2 * 6 * 8)
    growth = 1 + predicted["conv1_1"].spread ** 2
    expected = growth / gradient.mean()
    np.testing.assert_allclose(predicted["conv1_1"].content_layer_weight, expected, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("layer", LAYERS)
def test_energy_and_texture_loss_are_those_of_networks_drawn(predicted, drawn, layer):
    check_mean(drawn["energy"][layer], predicted[layer].energy)
    check_mean(drawn["texture_loss"][layer], predicted[layer].texture_loss, bias=0.03)


@pytest.mark.parametrize("layer", LAYERS)
def test_networks_differ_as_much_as_predicted(predicted, drawn, layer):
    energies = drawn["energy"][layer]
    spread = energies.std(ddof=1) / energies.mean()
    # Exact in the first layer; above, changes of shape are left out, and it is somewhat low.
    low, high = (0.9, 1.1) if layer == "conv1_1" else (0.9, 1.3)
    assert low < spread / predicted[layer].spread < high


@pytest.mark.parametrize("layer", LAYERS)
def test_layer_weights_are_reciprocal_slopes_of_networks_drawn(predicted, drawn, layer):
    growth = 1 + predicted[layer].spread ** 2
    slope = growth / predicted[layer].content_layer_weight
    check_mean(drawn["content_slope"][layer], slope)
    slope = growth**4 / predicted[layer].texture_layer_weight
    check_mean(drawn["texture_slope"][layer], slope, bias=0.05)
    # The gradient's mean size is larger than the size of its mean, so the weight is smaller.
    ratio = drawn["omega"][layer].mean() / predicted[layer].content_layer_weight
    assert 0.75 < ratio < 1.05


def test_few_channels_are_corrected_for():
    layers = tuple(layer.name for layer in NARROW.layers)
    found = theory.predict_layers(NARROW, IMAGE, layers, scale=SCALE)
    drawn = draw_networks(NARROW, layers, 1000)
    for layer in layers:
        growth = 1 + found[layer].spread ** 2
        assert growth > 1.15  # or there would be little to correct
        # Relative to the squared energy, which fluctuates along.
        squared = np.mean(drawn["energy"][layer] ** 2) / (growth * found[layer].energy ** 2)
        slope = growth**4 / found[layer].texture_layer_weight
        for name, expected in (
            ("texture_loss", found[layer].texture_loss),
            ("texture_slope", slope),
        ):
            assert np.mean(drawn[name][layer]) / squared == pytest.approx(expected, rel=0.08)


@pytest.mark.parametrize("layer", LAYERS)
def test_twice_the_scale_is_four_times_the_energy_for_each_convolution(predicted, layer):
    twice = theory.predict_layers(WIDE, IMAGE, (layer,), scale=2 * SCALE)[layer]
    once, factor = predicted[layer], 4.0 ** DEPTHS[layer]
    np.testing.assert_allclose(twice.energy, factor * once.energy, rtol=1e-9)
    np.testing.assert_allclose(twice.texture_loss, factor**2 * once.texture_loss, rtol=1e-9)
    np.testing.assert_allclose(twice.spread, once.spread, rtol=1e-9)
    content, texture = twice.content_layer_weight, twice.texture_layer_weight
    np.testing.assert_allclose(content, once.content_layer_weight / factor, rtol=1e-7)
    np.testing.assert_allclose(texture, once.texture_layer_weight / factor**2, rtol=1e-7)


@pytest.mark.parametrize("layer", LAYERS)
def test_losses_are_homogeneous_in_the_image(predicted, layer):
    twice = theory.predict_layers(WIDE, 2 * IMAGE, (layer,), scale=SCALE)[layer]
    once = predicted[layer]
    np.testing.assert_allclose(twice.energy, 4 * once.energy, rtol=1e-9)
    np.testing.assert_allclose(twice.texture_loss, 16 * once.texture_loss, rtol=1e-9)
    content, texture = twice.content_layer_weight, twice.texture_layer_weight
    np.testing.assert_allclose(content, once.content_layer_weight / 2, rtol=1e-4)
    np.testing.assert_allclose(texture, once.texture_layer_weight / 8, rtol=1e-4)


def test_an_input_scale_is_a_scale_of_the_first_kernels(predicted):
    network = dataclasses.replace(WIDE, input_scale=0.5)
    found = theory.predict_layers(network, IMAGE, ("conv2_1",), scale=SCALE)["conv2_1"]
    np.testing.assert_allclose(found.energy, predicted["conv2_1"].energy / 4, rtol=1e-9)


def test_colours_weigh_alike_in_any_order():
    network = dataclasses.replace(WIDE, channel_order="BGR", input_scale=(1.0, 0.5, 0.1))
    found = theory.predict_layers(network, IMAGE, ("conv1_1",))["conv1_1"]
    plain = theory.predict_layers(WIDE, IMAGE * [1, 0.5, 0.1], ("conv1_1",))["conv1_1"]
    np.testing.assert_allclose(found.energy, plain.energy, rtol=1e-12)


@pytest.mark.parametrize(
    "correlation, second, fourth", [(1, 1 / 2, 3 / 2), (0, 1 / (2 * np.pi), 1 / 4), (-1, 0, 0)]
)
def test_the_rectified_moments_where_they_are_known(correlation, second, fourth):
    deviations = np.array([2.0, 3.0])
    covariance = np.outer(deviations, deviations) * np.array([[1, correlation], [correlation, 1]])
    found = theory.rectify_covariance(covariance.reshape(1, 2, 1, 2))
    for moment, expected, power in zip(found, (second, fourth), (1, 2), strict=True):
        np.testing.assert_allclose(moment[0, 0, 0, 1], 6**power * expected, atol=1e-12)


def test_the_rectified_moments_between():
    covariance = np.array([[1.0, 0.6], [0.6, 4.0]])
    sample = np.random.default_rng(0).multivariate_normal([0, 0], covariance, 400_000)
    first, second = np.maximum(sample, 0).T
    moments = theory.rectify_covariance(covariance.reshape(1, 2, 1, 2))
    np.testing.assert_allclose(moments[0][0, 0, 0, 1], np.mean(first * second), rtol=0.02)
    np.testing.assert_allclose(moments[1][0, 0, 0, 1], np.mean((first * second) ** 2), rtol=0.04)


@pytest.mark.parametrize("size, border, stride", [(3, 1, 1), (5, 0, 2), (3, 2, 3)])
def test_a_convolutions_covariance_is_the_product_of_its_patches(size, border, stride):
    maps = np.random.default_rng(1).normal(size=(7, 8, 2))
    padded = np.pad(maps, ((border, border), (border, border), (0, 0)))
    rows, columns = ((side + 2 * border - size) // stride + 1 for side in (7, 8))
    at = lambda i, j: padded[i * stride :, j * stride :][:size, :size].ravel()
    patches = np.array([[at(i, j) for j in range(columns)] for i in range(rows)])
    found = theory.convolve_covariance(outer(maps), kernel_size=size, padding=border, stride=stride)
    np.testing.assert_allclose(found, outer(patches), atol=1e-12)


@pytest.mark.parametrize("size, stride", [(2, 2), (3, 2)])
def test_a_pooled_covariance_is_that_of_pooled_maps(size, stride):
    maps = np.random.default_rng(1).normal(size=(7, 8, 2))
    pooled = np.asarray(conv.pool(jnp.asarray(maps), size=size, stride=stride), np.float64)
    found = theory.pool_covariance(outer(maps), size=size, stride=stride)
    np.testing.assert_allclose(found, outer(pooled), atol=1e-5)


def test_covariances_stay_covariances():
    covariance = outer(IMAGE)
    for _ in range(2):
        covariance, fourth = theory.rectify_covariance(theory.convolve_covariance(covariance))
        # E[F²(p) F²(q)] is no less than E[F(p) F(q)]².
        assert np.all(fourth >= covariance**2 * (1 - 1e-12))
        covariance = theory.pool_covariance(covariance)
        matrix = positions(covariance)
        np.testing.assert_allclose(matrix, matrix.T, rtol=1e-12)
        assert np.linalg.eigvalsh(matrix).min() > -1e-12 * np.trace(matrix)
        assert theory.mean_variance(covariance) == pytest.approx(np.diag(matrix).mean())


@pytest.mark.parametrize(
    "network, layers, shape, said",
    [
        (dataclasses.replace(WIDE, pooling="max"), ("pool1",), (6, 8, 3), "avg pooling"),
        (dataclasses.replace(WIDE, padding_mode="periodic"), ("conv1_1",), (6, 8, 3), "zero pad"),
        (dataclasses.replace(WIDE, activation="elu"), ("conv1_1",), (6, 8, 3), "ReLU"),
        (dataclasses.replace(WIDE, input_offset=(0.0, 1.0, 0.0)), ("conv1_1",), (6, 8, 3), "off"),
        (dataclasses.replace(WIDE, layers=WIDE.layers[2:]), ("pool1",), (6, 8, 3), "begin"),
        (VGG19, ("fc6",), (256, 256, 3), "fc6"),
        (dataclasses.replace(WIDE, initialization="he"), ("conv1_1",), (6, 8, 3), "scale 'he'"),
        (
            dataclasses.replace(WIDE, layers=(WIDE.layers[0], Pool("pool1", padding=1))),
            ("pool1",), (6, 8, 3), "'pool1', which is padded",
        ),
        (
            dataclasses.replace(WIDE, layers=(Conv("conv1_1", 4, activated=False),)),
            ("conv1_1",), (6, 8, 3), "with a ReLU",
        ),
        (ALEXNET, ("norm1",), (64, 64, 3), "norm1"),
        (
            dataclasses.replace(CAFFENET, pooling="avg", layers=tuple(
                layer for layer in CAFFENET.layers if not layer.name.startswith("norm")
            )),
            ("conv2",), (64, 64, 3), "groups",
        ),
        (WIDE, ("conv1_1",), (64, 65, 3), "too large"),
        (WIDE, ("conv9_1",), (6, 8, 3), "not in wide"),
        (WIDE, ("conv2_1",), (1, 8, 3), "too small"),
        (WIDE, ("conv1_1",), (6, 8), "shape"),
    ],
)  # fmt: skip
def test_what_the_theory_does_not_cover_is_refused(network, layers, shape, said):
    with pytest.raises(UserError, match=said):
        theory.predict_layers(network, np.ones(shape), layers)


def test_a_black_image_is_refused():
    with pytest.raises(UserError, match="black"):
        theory.predict_layers(WIDE, np.zeros((6, 8, 3)), ("conv1_1",))


def test_maximum_pooling_does_not_matter_before_it():
    network = dataclasses.replace(WIDE, pooling="max")
    assert theory.predict_layers(network, IMAGE, ("conv1_2",))


def test_the_panel_undoes_the_rescaling_and_writes_its_files(tmp_path, capsys):
    layers = ("conv1_1", "pool1")
    words = [f"--layers={','.join(layers)}", "--image_size=12", "--num_networks=3"]
    assert theory_panel.main([*words, f"--out_dir={tmp_path}"]) == 0
    assert capsys.readouterr().out.count("| conv1_1 |") == 2
    assert (tmp_path / "theory.md").read_text().startswith("Measured")
    assert (tmp_path / "theory.png").exists()
    records = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    settings = theory_panel.Settings(layers=layers, image_size=12)
    for name in theory_panel.POWERS:
        for layer in layers:
            # A wrong power of 2^k would be a factor of hundreds.
            assert 0.4 < theory_panel.compare(settings, records, name, layer)[0] < 2.5
            assert len({record[name][layer] for record in records}) == 3  # networks are independent


def test_the_panel_can_be_estimated_and_refuses_what_theory_does_not_cover(tmp_path, capsys):
    words = ["--layers=conv1_1", "--image_size=12", f"--out_dir={tmp_path}"]
    assert theory_panel.main([*words, "--dry_run"]) == 0
    assert "of memory at the peak" in capsys.readouterr().out
    assert theory_panel.main(["--layers=fc6", "--image_size=12", f"--out_dir={tmp_path}"]) == 2
    assert not list(tmp_path.iterdir())
