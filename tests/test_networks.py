"""Networks as values: names, sizes, features against NumPy, weights from keys."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_conv import convolve_by_taps

from randviz.networks.alexnet import ALEXNET, CAFFENET
from randviz.networks.catalog import NETWORKS
from randviz.networks.filter_bank import RANDOM_FILTERS, filter_bank, single_layer
from randviz.networks.layers import (
    ACTIVATIONS,
    Block,
    Conv,
    Dense,
    InstanceNorm,
    Parallel,
    Pool,
    ResponseNorm,
    walk_layers,
)
from randviz.networks.network import Network, features
from randviz.networks.resnet import RESNET18, RESNET18_PLAIN, RESNET50
from randviz.networks.small import small_network
from randviz.networks.vgg import VGG11, VGG13, VGG16, VGG19
from randviz.networks.weights import random_weights, weight_shapes
from randviz.types import UserError

ACTIVATE = {
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "gelu": lambda x: x / 2 * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))),
    "none": lambda x: x,
}


def forward_by_numpy(network, params, image, offset=0.0, scale=1.0):
    x = (255 * np.asarray(image, np.float64) - offset) * scale
    x = x[..., ::-1] if network.channel_order == "BGR" else x
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    maps = {"image": np.asarray(image)}
    run_by_numpy(network, params, network.layers, x, maps)
    return maps


def run_by_numpy(network, params, layers, x, maps):
    activate = ACTIVATE[network.activation]
    for layer in layers:
        if isinstance(layer, Conv):
            where = {"padding": layer.padding, "stride": layer.stride, "groups": layer.groups}
            x = convolve_by_taps(x, params[layer.name]["kernel"], network.padding_mode, **where)
            x = x + params[layer.name]["bias"]
            x = activate(x) if layer.activated else x
        elif isinstance(layer, Pool):
            x = pool_by_numpy(network, layer, x)
        elif isinstance(layer, InstanceNorm):
            x = (x - x.mean((0, 1))) / np.sqrt(x.var((0, 1)) + layer.epsilon)
        elif isinstance(layer, ResponseNorm):
            reach = layer.window_size // 2
            squares = np.pad(x**2, ((0, 0), (0, 0), (reach, reach)))
            windows = np.lib.stride_tricks.sliding_window_view(squares, layer.window_size, axis=2)
            x = x / (layer.bias + layer.slope * windows.sum(-1)) ** layer.power
        elif isinstance(layer, Block):
            inner = run_by_numpy(network, params, layer.body, x, maps)
            if layer.shortcut is not None:
                inner = inner + run_by_numpy(network, params, layer.shortcut, x, maps)
            x = activate(inner)
        elif isinstance(layer, Parallel):
            parts = [run_by_numpy(network, params, (one,), x, maps) for one in layer.layers]
            x = np.concatenate(parts, axis=2)
        else:
            x = x.reshape(1, 1, -1) @ params[layer.name]["kernel"] + params[layer.name]["bias"]
            x = activate(x) if layer.activated else x
        maps[layer.name] = x
    return x


def pool_by_numpy(network, layer, x):
    side, edge = layer.window_size, layer.padding
    modes = {"zero": "constant", "reflect": "reflect", "periodic": "wrap"}
    values = {}
    if network.padding_mode == "zero" and network.pooling == "max":
        values = {"constant_values": -np.inf}
    mode = modes[network.padding_mode]
    padded = np.pad(x, ((edge, edge), (edge, edge), (0, 0)), mode=mode, **values)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(0, 1))
    windows = windows[:: layer.stride, :: layer.stride]
    if network.pooling == "stride":
        return x[:: layer.stride, :: layer.stride][: windows.shape[0], : windows.shape[1]]
    return windows.mean((3, 4)) if network.pooling == "avg" else windows.max((3, 4))


# Each of AlexNet's kinds of layer, in small.
TINY_ALEXNET = Network(
    "tiny_alexnet",
    (
        Conv("conv1", 8, kernel_size=5, padding=0, stride=2),
        ResponseNorm("norm1", slope=2e-3),
        Pool("pool1", window_size=3),
        Conv("conv2", 12, kernel_size=5, padding=2, groups=2),
        Pool("pool2", window_size=3),
        Dense("fc6", 10, activated=False),
    ),
    fc_image_size=33,
    pooling="max",
    initialization="normal",
)


def test_alexnet_has_its_layers_and_parameters():
    shapes = weight_shapes(ALEXNET, "fc8")
    assert sum(np.prod(shape) for layer in shapes.values() for shape in layer.values()) == 60965224
    assert shapes["conv2"]["kernel"] == (5, 5, 48, 256)
    assert shapes["fc6"]["kernel"] == (9216, 4096)  # 6 × 6 × 256 at 227 pixels
    assert ALEXNET.smallest_side("fc6", positions=6) == 227
    assert {*ALEXNET.layers} == {*CAFFENET.layers}
    assert ALEXNET.layer_names[2:4] == CAFFENET.layer_names[3:1:-1] == ("norm1", "pool1")


def test_alexnets_features_are_those_of_a_numpy_network():
    network = dataclasses.replace(
        TINY_ALEXNET, input_offset=(90, 100, 110), input_scale=(0.5, 1.0, 2.0), channel_order="BGR"
    )
    params = random_weights(jax.random.key(7), network, scale=0.1, bias_scale=0.3, last_layer="fc6")
    image = jax.random.uniform(jax.random.key(3), (33, 33, 3))
    found = features(network, params, image, network.layer_names)
    scale = np.array([0.5, 1.0, 2.0])
    expected = forward_by_numpy(network, params, image, np.array([90, 100, 110]), scale)
    for layer in network.layer_names:
        np.testing.assert_allclose(found[layer], expected[layer], rtol=1e-4, atol=1e-3)
    # The normalisation makes a difference here, or it would not have been tested.
    assert np.max(np.abs(found["norm1"] - found["conv1"])) > 0.1 * np.max(found["conv1"])


@pytest.mark.parametrize("skip", [False, True])
def test_small_networks_are_those_of_numpy(skip):
    network = small_network("s", kernel_size=5, width=3, normalized=not skip, skip=skip)
    params = random_weights(jax.random.key(2), network, bias_scale=0.1)
    image = jax.random.uniform(jax.random.key(3), (19, 16, 3))
    found = features(network, params, image, network.layer_names)
    expected = forward_by_numpy(network, params, image)
    for layer in network.layer_names:
        np.testing.assert_allclose(found[layer], expected[layer], rtol=2e-3, atol=2e-3)
    assert network.layer_names[-1] == "pool4" and found["pool4"].shape == (1, 1, 24)
    assert ("block1" in found, "norm1_1" in found) == (skip, not skip)


@pytest.mark.parametrize(
    ("network", "shape"),
    [(TINY_ALEXNET, (33, 33, 3)), (RESNET18, (64, 51, 3)), (filter_bank((3, 5)), (12, 9, 3))],
)
def test_shapes_of_features_are_found_without_weights(network, shape):
    params = random_weights(jax.random.key(0), network, last_layer=network.layer_names[-1])
    names = network.layer_names
    found = jax.eval_shape(
        lambda image: features(network, params, image, names),
        jax.ShapeDtypeStruct(shape, "float32"),
    )
    assert {name: network.feature_shape(shape, name) for name in names} == {
        name: maps.shape for name, maps in found.items()
    }


def test_vgg19_has_its_layers_and_parameters():
    assert VGG19.layer_names[:5] == ("image", "conv1_1", "conv1_2", "pool1", "conv2_1")
    assert sum(isinstance(layer, Conv) for layer in VGG19.layers) == 16
    assert sum(isinstance(layer, Pool) for layer in VGG19.layers) == 5
    shapes = weight_shapes(VGG19, "fc8")
    count = lambda layer: sum(np.prod(shape) for shape in shapes[layer].values())
    assert sum(count(layer) for layer in shapes if layer.startswith("conv")) == 20_024_384
    assert shapes["fc6"]["kernel"] == (32768, 4096)  # 8 × 8 × 512 at 256 pixels
    assert shapes["fc8"] == {"kernel": (4096, 1000), "bias": (1000,)}


@pytest.mark.parametrize("pooling", ["avg", "max"])
@pytest.mark.parametrize("padding", ["zero", "reflect", "periodic"])
def test_features_are_those_of_a_numpy_network(tiny, pooling, padding):
    network = dataclasses.replace(
        tiny, pooling=pooling, padding_mode=padding, input_offset=(90, 100, 110)
    )
    params = random_weights(jax.random.key(7), network, scale=0.1, bias_scale=0.3, last_layer="fc8")
    image = jax.random.uniform(jax.random.key(3), (12, 12, 3))
    found = features(network, params, image, network.layer_names)
    expected = forward_by_numpy(network, params, image, np.array([90, 100, 110]))
    assert tuple(found) == network.layer_names
    for layer in network.layer_names:
        np.testing.assert_allclose(found[layer], expected[layer], rtol=1e-4, atol=1e-3)


def test_scores_are_not_rectified(tiny, params):
    image = jax.random.uniform(jax.random.key(3), (12, 12, 3))
    maps = features(tiny, params, image, ("fc6", "fc8"))
    assert float(maps["fc6"].min()) >= 0 > float(maps["fc8"].min())
    assert maps["fc6"].shape == (1, 1, 10)


def test_features_go_only_as_deep_as_asked(tiny, params, image):
    shallow = {"conv1_1": params["conv1_1"]}
    maps = features(tiny, shallow, image, "relu1_1")
    assert {name: x.shape for name, x in maps.items()} == {"conv1_1": (12, 16, 8)}
    with pytest.raises(UserError, match="conv1_2"):
        features(tiny, shallow, image, "pool1")


def test_a_deeper_cut_keeps_the_weights_above_it(tiny):
    key = jax.random.key(11)
    shallow = random_weights(key, tiny, last_layer="conv1_2")
    deep = random_weights(key, tiny, last_layer="fc8")
    assert list(shallow) == ["conv1_1", "conv1_2"]
    for layer in shallow:
        np.testing.assert_array_equal(shallow[layer]["kernel"], deep[layer]["kernel"])
    assert not np.array_equal(
        deep["conv1_2"]["kernel"].ravel()[:9], deep["fc6"]["kernel"].ravel()[:9]
    )


def test_weights_have_the_scale_asked_for_and_no_bias():
    params = random_weights(jax.random.key(0), VGG19, last_layer="conv2_1")
    kernel = params["conv2_1"]["kernel"]
    assert float(kernel.std()) == pytest.approx(0.015, rel=0.01)
    assert abs(float(kernel.mean())) < 4 * 0.015 / kernel.size**0.5
    assert not params["conv2_1"]["bias"].any()
    biased = random_weights(
        jax.random.key(0), VGG19, scale=0.03, bias_scale=0.5, last_layer="conv2_1"
    )
    np.testing.assert_array_equal(biased["conv2_1"]["kernel"], 2 * kernel)
    assert float(biased["conv2_1"]["bias"].std()) == pytest.approx(0.5, rel=0.2)


def test_a_random_convolution_has_the_energy_of_its_patches(image):
    # E (w·p)² = σ² ‖p‖² for each patch p, and the ReLU keeps half of it.
    wide = Network("wide", (Conv("conv1_1", 4000),), input_offset=0.0)
    weights = random_weights(jax.random.key(0), wide, scale=0.02, last_layer="conv1_1")
    found = features(wide, weights, image, "conv1_1")["conv1_1"]
    ones = np.ones((3, 3, 3, 1))
    patches = convolve_by_taps((255 * np.asarray(image)) ** 2, ones, "zero")[..., 0]
    energy = np.mean(np.square(np.asarray(found, np.float64)), axis=-1)
    # 4000 independent channels: the relative error of a mean of squares is about 3.5 %.
    np.testing.assert_allclose(energy, 0.02**2 * patches / 2, rtol=0.18)
    assert energy.mean() == pytest.approx(0.02**2 * patches.mean() / 2, rel=0.05)


def test_values_are_static_and_equal_by_content(tiny):
    assert hash(dataclasses.replace(tiny)) == hash(tiny)
    assert dataclasses.replace(tiny) == tiny
    assert VGG19.with_offset(3.0).input_offset == 3.0
    assert VGG19.with_offset(3.0).with_offset(4.0).input_offset == 3.0


@pytest.mark.parametrize(
    ("shape", "layer", "words"),
    [
        ((12, 16, 3), "conv9_9", "conv9_9.*image, conv1_1"),
        ((12, 16, 3), "relu5", "relu5"),
        ((12, 3, 3), "pool2", "3×12.*pool2.*4 a side"),
        ((12, 16), "conv1_1", r"\(height, width, 3\)"),
        ((12, 16, 4), "conv1_1", r"\(height, width, 3\)"),
        ((12, 16, 3), "fc6", "16×12.*fc6.*12×12"),
    ],
)
def test_what_the_network_cannot_take_is_said(tiny, params, shape, layer, words):
    with pytest.raises(UserError, match=words):
        features(tiny, params, jnp.zeros(shape), layer)


@pytest.mark.parametrize(
    ("padding", "layer", "size"),
    [("zero", "conv2_1", 2), ("reflect", "conv2_1", 4), ("reflect", "pool2", 4)],
)
def test_smallest_image_is_really_enough(tiny, params, padding, layer, size):
    network = dataclasses.replace(tiny, padding_mode=padding)
    maps = features(network, params, jnp.ones((size, size + 1, 3)), layer)
    assert min(maps[layer].shape) > 0
    with pytest.raises(UserError, match="too small"):
        network.check_image((size - 1, size, 3), layer)


@pytest.mark.parametrize("names", [(), ("conv1_1", "relu1_1")])
def test_layers_are_named_once_and_at_least_one(tiny, names):
    with pytest.raises(UserError, match="layer"):
        tiny.canonical_names(names)


def test_unknown_words_are_refused():
    with pytest.raises(UserError, match="median"):
        dataclasses.replace(VGG19, pooling="median")
    with pytest.raises(UserError, match="mirror"):
        dataclasses.replace(VGG19, padding_mode="mirror")
    with pytest.raises(UserError, match="activation 'swish'.*relu"):
        dataclasses.replace(VGG19, activation="swish")
    with pytest.raises(UserError, match="initialization 'xavier'"):
        dataclasses.replace(VGG19, initialization="xavier")
    with pytest.raises(UserError, match="GBR"):
        dataclasses.replace(VGG19, channel_order="GBR")


def test_dense_is_the_only_layer_that_fixes_the_size(tiny):
    assert [layer.name for layer in tiny.layers if isinstance(layer, Dense)] == ["fc6", "fc8"]
    tiny.check_image((12, 99, 3), "pool2")


# Each kind of branch in small: parallel filters, a block that widens, one that does not, a plain
# one.
TINY_BRANCHES = Network(
    "tiny_branches",
    (
        Parallel("bank", (Conv("conv3", 4), Conv("conv5", 2, kernel_size=5, padding=2))),
        Pool("pool1", window_size=3, padding=1),
        Block(
            "block1",
            (Conv("block1_conv1", 4, stride=2), Conv("block1_conv2", 8, activated=False)),
            (Conv("block1_shortcut", 8, kernel_size=1, padding=0, stride=2, activated=False),),
        ),
        Block("block2", (Conv("block2_conv1", 8, activated=False),)),
        Block("block3", (Conv("block3_conv1", 4, activated=False),), None),
    ),
    input_offset=0.0,
    aliases=(("last", "block3"),),
)


@pytest.fixture(scope="module")
def branches():
    """Weights of the network of branches."""
    return random_weights(jax.random.key(7), TINY_BRANCHES, bias_scale=0.3)


@pytest.mark.parametrize(
    ("pooling", "padding", "activation"),
    [
        ("avg", "zero", "relu"),
        ("max", "zero", "gelu"),
        ("stride", "reflect", "leaky_relu"),
        ("avg", "periodic", "elu"),
        ("max", "reflect", "none"),
    ],
)
def test_branches_are_those_of_a_numpy_network(image, branches, pooling, padding, activation):
    network = dataclasses.replace(
        TINY_BRANCHES, pooling=pooling, padding_mode=padding, activation=activation
    )
    found = features(network, branches, image, network.layer_names)
    expected = forward_by_numpy(network, branches, image)
    names = (
        *("image", "conv3", "conv5", "bank", "pool1", "block1_conv1", "block1_conv2"),
        *("block1_shortcut", "block1", "block2_conv1", "block2", "block3_conv1", "block3"),
    )
    assert tuple(found) == names
    for layer in names:
        np.testing.assert_allclose(found[layer], expected[layer], rtol=1e-4, atol=1e-4)


def test_layers_inside_others_need_the_weights_of_the_whole(image, branches):
    names = ["conv3", "conv5", "block1_conv1", "block1_conv2", "block1_shortcut"]
    assert list(weight_shapes(TINY_BRANCHES, "block1_conv1")) == names
    params = {name: branches[name] for name in names}
    assert features(TINY_BRANCHES, params, image, "block1_conv1")["block1_conv1"].shape == (3, 4, 4)
    with pytest.raises(UserError, match="block2_conv1"):
        features(TINY_BRANCHES, params, image, "last")
    assert TINY_BRANCHES.canonical_name("last") == "block3"
    assert RESNET50.canonical_names(("stage4", "stage1")) == ("stage1_block3", "stage4_block3")


@pytest.mark.slow
def test_a_hessian_goes_through_every_kind_of_branch(image, branches):
    network = dataclasses.replace(TINY_BRANCHES, activation="gelu")
    bound = network.bind(branches)
    loss = lambda x: jnp.sum(jnp.square(bound(x, "block3")["block3"]))
    step = jnp.asarray(np.random.default_rng(0).normal(size=image.shape), jnp.float32)
    _, product = jax.jvp(jax.grad(loss), (image,), (step,))
    slopes = [jax.grad(loss)(image + sign * 1e-2 * step) for sign in (1, -1)]
    expected = (slopes[0] - slopes[1]) / 2e-2
    scale = float(jnp.abs(expected).max())
    np.testing.assert_allclose(product, expected, rtol=0, atol=0.02 * scale)


def test_the_image_is_a_layer(tiny, params, image):
    found = features(tiny, {}, image, "image")
    np.testing.assert_array_equal(found["image"], image)
    assert random_weights(jax.random.key(0), tiny, last_layer="image") == {}
    bound = tiny.bind(params).prepare(("image", "conv1_1"), (12, 16))
    both = bound(image, ("conv1_1", "image"))
    assert list(both) == ["image", "conv1_1"]
    np.testing.assert_array_equal(both["image"], image)
    assert tiny.bind(params).scale_exponents(bound)["image"] == 0
    assert bound.platform == jax.default_backend()
    assert all(network.layer_names[0] == "image" for network in NETWORKS.values())


def test_a_stride_is_the_stride_of_the_convolution_before(tiny, params, image):
    strided = dataclasses.replace(
        tiny, layers=(tiny.layers[0], dataclasses.replace(tiny.layers[1], stride=2))
    )
    network = dataclasses.replace(tiny, pooling="stride")
    expected = features(strided, params, image, "conv1_2")["conv1_2"]
    found = features(network, params, image, "pool1")["pool1"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gains_keep_the_mean_square(name):
    points, weights = np.polynomial.hermite_e.hermegauss(200)
    values = np.asarray(ACTIVATIONS[name].function(jnp.asarray(points, jnp.float32)), np.float64)
    square = np.sum(weights * values**2) / np.sqrt(2 * np.pi)
    assert ACTIVATIONS[name].gain * square == pytest.approx(1, rel=2e-3)
    doubled = ACTIVATIONS[name].function(2 * jnp.asarray(points, jnp.float32))
    assert ACTIVATIONS[name].homogeneous == np.allclose(doubled, 2 * values, rtol=1e-4, atol=1e-6)


def thinner(layer):
    """The layer with a quarter of its channels."""
    if isinstance(layer, Conv):
        return dataclasses.replace(layer, channels=layer.channels // 4)
    if isinstance(layer, Block):
        parts = {"body": tuple(map(thinner, layer.body))}
        parts |= {"shortcut": tuple(map(thinner, layer.shortcut))} if layer.shortcut else {}
        return dataclasses.replace(layer, **parts)
    if isinstance(layer, Parallel):
        return dataclasses.replace(layer, layers=tuple(map(thinner, layer.layers)))
    return layer


EVERY = [(network, "relu") for network in NETWORKS.values() if network is not RANDOM_FILTERS]
EVERY += [(RANDOM_FILTERS, "none"), (VGG19, "leaky_relu"), (VGG19, "elu"), (VGG19, "none")]
EVERY += [(RESNET50, "gelu"), (RESNET18, "elu")]
SOON_COMPILED = [(RESNET18, "relu"), (RANDOM_FILTERS, "none")]


@pytest.mark.parametrize(
    ("network", "activation"),
    [pytest.param(*pair, marks=[pytest.mark.slow] * (pair not in SOON_COMPILED)) for pair in EVERY],
    ids=lambda value: getattr(value, "name", value),
)
def test_features_of_random_networks_are_of_order_one(network, activation):
    network = dataclasses.replace(
        network.with_offset(0.0),
        layers=tuple(map(thinner, network.layers)),
        activation=activation,
        convolution="direct",
    )
    last_layer = network.last_convolutional()
    params = random_weights(jax.random.key(0), network)
    bound = network.bind(params).prepare((last_layer,), (67, 67))
    image = jax.random.uniform(jax.random.key(3), (67, 67, 3))
    layers = tuple(layer.name for layer in network.layers if not isinstance(layer, Dense))
    squares = lambda bound, image: [jnp.mean(x**2) for x in bound(image, layers).values()]
    # AlexNet's response normalisation wants the features of σ = 0.015, which are larger.
    largest = 100 if "norm1" in layers else 8
    for layer, square in zip(layers, jax.jit(squares)(bound, image), strict=True):
        assert 0.05 < float(square) ** 0.5 < largest, layer


def test_networks_have_their_parameters():
    # Without scores' layers; torchvision's numbers less one of each pair of normalisation factors.
    expected = {
        **{VGG11: 9_220_480, VGG13: 9_404_992, VGG16: 14_714_688},
        **{RESNET18: 11_171_712, RESNET50: 23_481_472},
        # Without the shortcuts of stages 2 to 4.
        RESNET18_PLAIN: 11_171_712 - sum(c * 2 * c + 2 * c for c in (64, 128, 256)),
        # 128 filters of each size, and 32 of 7×7.
        filter_bank(): sum(128 * (3 * s**2 + 1) for s in (3, 5, 7, 11, 15, 23, 37, 55)),
        RANDOM_FILTERS: 32 * (3 * 49 + 1),
    }
    for network, count in expected.items():
        shapes = weight_shapes(network, network.last_convolutional())
        found = sum(np.prod(shape) for parts in shapes.values() for shape in parts.values())
        assert found == count, network.name
    inner = [layer.name for layer in walk_layers(RESNET50.layers)]
    ends = ("_conv1", "_conv2", "_conv3", "_shortcut", "")
    assert inner[2:7] == [f"stage1_block1{end}" for end in ends]


def test_random_filters_have_norm_one_and_see_values_in_0_to_1(image):
    network = single_layer(kernel_size=3, channels=5)
    params = random_weights(jax.random.key(0), network, scale=0.03)
    norms = jnp.sqrt(jnp.sum(params["conv1"]["kernel"] ** 2, axis=(0, 1, 2)))
    np.testing.assert_allclose(norms, 2, rtol=1e-5)  # twice the usual scale
    found = features(network, params, image, "conv1")["conv1"]
    kernel = np.asarray(params["conv1"]["kernel"], np.float64)
    expected = convolve_by_taps(np.asarray(image, np.float64), kernel, "reflect")
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert float(found.min()) < 0


def test_he_initialization_is_its_formula():
    network = dataclasses.replace(TINY_BRANCHES, initialization="normal")
    normal = random_weights(jax.random.key(7), network, scale=1.0)
    found = random_weights(jax.random.key(7), TINY_BRANCHES, scale=0.03)
    for layer, inputs, divisor in (
        ("conv3", 27, 127.5),
        ("conv5", 75, 127.5),
        ("block1_conv1", 54, 1),
        ("block1_conv2", 36, 2**0.5),
        ("block1_shortcut", 6, 1),
        ("block2_conv1", 72, 2**0.5),
        ("block3_conv1", 72, 1),
    ):
        expected = normal[layer]["kernel"] * 2 * (2 / inputs) ** 0.5 / divisor
        np.testing.assert_allclose(found[layer]["kernel"], expected, rtol=1e-5, err_msg=layer)


def test_networks_that_are_not_homogeneous_are_drawn_at_hes_scale():
    std = lambda network: float(
        random_weights(jax.random.key(0), network, last_layer="conv1_2")["conv1_2"]["kernel"].std()
    )
    assert std(VGG19) == pytest.approx(0.015, rel=0.02)
    gelu = dataclasses.replace(VGG19, activation="gelu")
    assert std(gelu) == pytest.approx((2.352 / 576) ** 0.5, rel=0.02)
    assert std(dataclasses.replace(gelu, initialization="normal")) == pytest.approx(0.015, rel=0.02)
