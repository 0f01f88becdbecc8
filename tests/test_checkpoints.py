"""Weights from files: every format gives the same network, and a bad file one sentence."""

import dataclasses
import hashlib
import pathlib
import pickle
import sys

import h5py
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import scipy.io
import skimage.data
from pictures import explained
from test_conv import convolve_by_taps

from randviz.host.checkpoints import INPUT_CONVENTIONS, load_checkpoint
from randviz.networks.alexnet import ALEXNET, CAFFENET
from randviz.networks.layers import Block, Conv, Dense
from randviz.networks.network import features
from randviz.networks.resnet import RESNET18, RESNET18_PLAIN, RESNET50
from randviz.networks.vgg import VGG11, VGG13, VGG16, VGG19
from randviz.networks.weights import random_weights, weight_shapes
from randviz.types import UserError

ROOT = pathlib.Path(__file__).parents[1]
VGG19_FILE = ROOT.parent / "shared" / "weights" / "vgg19_oxford_notop.h5"
MEAN = np.array([123.68, 116.779, 103.939])
OTHER_MEAN = np.array([120.0, 110.0, 90.0])

# The tiny network's layers in other people's words.
KERAS = {
    "conv1_1": "block1_conv1",
    "conv1_2": "block1_conv2",
    "conv2_1": "block2_conv1",
    "fc6": "fc1",
    "fc8": "predictions",
}
TORCHVISION = {
    "conv1_1": "features.0",
    "conv1_2": "features.2",
    "conv2_1": "features.5",
    "fc6": "classifier.0",
    "fc8": "classifier.3",
}
TIMM = TORCHVISION | {"fc6": "pre_logits.fc1", "fc8": "head.fc"}


@pytest.fixture(scope="module")
def weights(tiny):
    """With biases, which the shared ones lack."""
    drawn = random_weights(jax.random.key(3), tiny, scale=0.1, bias_scale=0.5, last_layer="fc8")
    return jax.tree.map(np.asarray, drawn)


@pytest.fixture(scope="module")
def square():
    return np.random.default_rng(5).uniform(size=(12, 12, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def as_torch(kernel, *, dense_axes=2, channels=12):
    """[s, s, C_in, C] → [C, C_in, s, s]; dense layers' first, then flattened again."""
    dense = kernel.ndim == 2
    if dense:
        inputs, outputs = kernel.shape
        channels = channels if inputs % channels == 0 else inputs
        side = round((inputs // channels) ** 0.5)
        kernel = kernel.reshape(side, side, channels, outputs)
    # Contiguous, as safetensors writes memory as it lies.
    turned = np.ascontiguousarray(np.einsum("hwio->oihw", kernel))
    return turned.reshape(len(turned), -1) if dense and dense_axes == 2 else turned


def torch_state(weights, names, dense_axes=2):
    state = {}
    for layer, stem in names.items():
        state[f"{stem}.weight"] = as_torch(weights[layer]["kernel"], dense_axes=dense_axes)
        state[f"{stem}.bias"] = weights[layer]["bias"]
    return state


def timm_state(weights):
    """Of timm's dense layers only the last is not written as a convolution."""
    state = torch_state(weights, TIMM, dense_axes=4)
    return state | {"head.fc.weight": weights["fc8"]["kernel"].T.copy()}


def write_h5(path, weights, pattern="{0}/{0}_{1}_1:0", parts=("W", "b")):
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = np.array([*KERAS.values(), "block1_pool"], "S")
        file.create_group(pattern.format("block1_pool", "").rsplit("/", 1)[0])
        for layer, tensors in weights.items():
            for part, tensor in zip(parts, (tensors["kernel"], tensors["bias"]), strict=True):
                file[pattern.format(KERAS[layer], part)] = tensor
    return path


def write_new_h5(path, weights):
    return write_h5(path, weights, "{0}/{0}/{1}:0", ("kernel", "bias"))


def write_whole_h5(path, weights):
    write_h5(path, weights, "model_weights/{0}/{0}/{1}:0", ("kernel", "bias"))
    with h5py.File(path, "a") as file:
        file["optimizer_weights/SGD/block1_conv1/kernel_momentum:0"] = np.ones((3, 3, 3, 8))
        file["optimizer_weights/SGD/iter:0"] = 7
        file["model_weights/dropout/seed_generator_state:0"] = np.array([1, 2], np.uint32)
    return path


def write_keras3_h5(path, weights):
    """Keras 3's save_weights: layers of a kind are numbered, whatever their names."""
    counts = {}
    with h5py.File(path, "w") as file:
        for tensors in weights.values():
            kind = "conv2d" if tensors["kernel"].ndim == 4 else "dense"
            number = counts[kind] = counts.get(kind, -1) + 1
            stem = f"layers/{kind}_{number}" if number else f"layers/{kind}"
            file[f"{stem}/vars/0"], file[f"{stem}/vars/1"] = tensors["kernel"], tensors["bias"]
        file.create_group("layers/max_pooling2d/vars")
        file["layers/dropout/seed_generator/vars/0"] = np.array([1, 2], np.uint32)
        file["optimizer/vars/2"] = np.ones((3, 3, 3, 8))
    return path


def write_safetensors(path, state):
    safetensors.numpy.save_file(state, path)
    return path


def write_torchvision_safetensors(path, weights):
    return write_safetensors(path, torch_state(weights, TORCHVISION))


def write_timm_safetensors(path, weights):
    return write_safetensors(path, timm_state(weights))


def write_torchvision_pth(path, weights):
    torch = pytest.importorskip("torch")
    state = torch_state(weights, TORCHVISION)
    state = {f"module.{name}": torch.tensor(tensor) for name, tensor in state.items()}
    state["module.features.0.num_batches_tracked"] = torch.tensor(3)
    torch.save({"state_dict": state, "epoch": 90, "arch": "tiny"}, path)
    return path


def write_timm_pth(path, weights):
    torch = pytest.importorskip("torch")
    torch.save({name: torch.tensor(t) for name, t in timm_state(weights).items()}, path)
    return path


def write_gatys_pth(path, weights):
    torch = pytest.importorskip("torch")
    state = torch_state(weights, {layer: layer for layer in weights})
    torch.save({n: torch.nn.Parameter(torch.tensor(t)) for n, t in state.items()}, path)
    return path


def write_mxnet_npz(path, weights):
    state = torch_state(weights, {layer: layer for layer in weights})
    np.savez(path, **{name.replace(".", "_"): tensor for name, tensor in state.items()})
    return path


def write_plain_npz(path, weights):
    """In our own axes."""
    words = (("weight", "kernel"), ("bias", "bias"))
    np.savez(path, **{f"{n}.{word}": t[part] for n, t in weights.items() for word, part in words})
    return path


def cell(*items):
    array = np.empty(len(items), object)
    array[:] = items
    return array


def mat_layers(weights, network, old=False):
    layers = []
    for layer in network.layers:
        kind = type(layer).__name__.lower()
        entry = {"name": layer.name, "type": {"responsenorm": "lrn", "pool": "pool"}.get(kind, "")}
        if layer.name in weights:
            kernel, bias = weights[layer.name]["kernel"], weights[layer.name]["bias"]
            if kernel.ndim == 2:  # dense layers are convolutions there
                side = {108: 3}.get(len(kernel), 1)
                kernel = kernel.reshape(side, side, -1, kernel.shape[1])
            # A list of one row, as MATLAB has no vectors.
            pair = (kernel, bias[None])
            entry |= {"type": "conv"} | (
                {"filters": pair[0], "biases": pair[1]} if old else {"weights": cell(*pair)}
            )
        layers += [entry, {"name": f"relu_{layer.name}", "type": "relu", "weights": cell()}]
    return cell(*layers)


def write_mat(path, weights, network):
    mean = np.broadcast_to(OTHER_MEAN, (12, 12, 3)) + np.linspace(-1, 1, 12)[:, None, None]
    meta = {"normalization": {"averageImage": mean}, "classes": {"name": cell("a", "b")}}
    scipy.io.savemat(path, {"layers": mat_layers(weights, network), "meta": meta})
    return path


def write_old_mat(path, weights, network):
    mean = {"averageImage": np.float32(OTHER_MEAN).reshape(1, 1, 3)}
    layers = mat_layers(weights, network, old=True)
    scipy.io.savemat(path, {"layers": layers, "normalization": mean}, do_compression=True)
    return path


def write_mat_without_mean(path, weights, network):
    scipy.io.savemat(path, {"layers": mat_layers(weights, network)})
    return path


def convert_pixels(image, word):
    """What the first layer is to get, from each convention's own description."""
    if word == "caffe":
        return 255 * image[..., ::-1] - np.array([103.939, 116.779, 123.68])
    if word == "torch":
        return (image - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    return 255 * image - (OTHER_MEAN if word == "the file's own" else MEAN)


FORMATS = {
    "old.h5": (write_h5, "caffe", "Keras"),
    "new.hdf5": (write_new_h5, "caffe", "Keras"),
    "whole.H5": (write_whole_h5, "caffe", "Keras"),
    "keras3.weights.h5": (write_keras3_h5, "caffe", "Keras 3"),
    "torchvision.safetensors": (write_torchvision_safetensors, "torch", "torchvision"),
    "timm.safetensors": (write_timm_safetensors, "torch", "timm"),
    "torchvision.pth": (write_torchvision_pth, "torch", "torchvision"),
    "timm.pt": (write_timm_pth, "torch", "timm"),
    "gatys.pth": (write_gatys_pth, "caffe", "Caffe-named"),
    "mxnet.npz": (write_mxnet_npz, "matconvnet", "MXNet"),
    "plain.npz": (write_plain_npz, "caffe", "Caffe-named"),
    "new.mat": (write_mat, "the file's own", "MatConvNet"),
    "old.mat": (write_old_mat, "the file's own", "MatConvNet"),
    "without_mean.mat": (write_mat_without_mean, "matconvnet", "MatConvNet"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_network(tmp_path, tiny, weights, square, name):
    write, word, scheme = FORMATS[name]
    path = write(tmp_path / name, weights, *[tiny] * name.endswith(".mat"))
    network, params, metadata = load_checkpoint(path, dataclasses.replace(tiny, fc_image_size=99))
    assert list(params) == list(weights)
    for layer, tensors in weights.items():
        for part, tensor in tensors.items():
            assert params[layer][part].dtype == np.float32
            np.testing.assert_array_equal(params[layer][part], tensor, err_msg=f"{layer} {part}")
    layers = tiny.layer_names[1:]  # the image itself comes as it was given
    found = features(network, params, square, layers)
    # The tiny network itself subtracts nothing and multiplies its input by 255.
    pixels = jnp.asarray(convert_pixels(square.astype(np.float64), word) / 255, jnp.float32)
    expected = features(tiny, weights, pixels, layers)
    for layer in layers:
        largest = float(jnp.abs(expected[layer]).max())
        assert largest > 0
        np.testing.assert_allclose(found[layer], expected[layer], rtol=0, atol=1e-5 * largest)
    assert metadata == {
        "source": str(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest()[:16],
        "format": f"{scheme} {path.suffix.lower()}",
        "input_convention": "matconvnet" if word == "the file's own" else word,
    }
    assert dataclasses.replace(network, input_offset=0.0, input_scale=1.0, channel_order="RGB") == (
        tiny
    )


def test_dense_layers_of_torch_see_channels_before_rows(tmp_path, tiny, weights, square):
    """The file's own product, in the file's own order, over a map of 3×3 positions."""
    path = write_torchvision_safetensors(tmp_path / "a.safetensors", weights)
    network, params, _ = load_checkpoint(path, tiny)
    maps = features(network, params, square, ("pool2", "fc6"))
    state = safetensors.numpy.load_file(path)
    assert maps["pool2"].shape == (3, 3, 12)
    flat = np.transpose(np.asarray(maps["pool2"], np.float64), (2, 0, 1)).ravel()
    scores = state["classifier.0.weight"] @ flat + state["classifier.0.bias"]
    assert (scores > 0).sum() > 2
    np.testing.assert_allclose(maps["fc6"][0, 0], np.maximum(scores, 0), rtol=1e-4)


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_precisions_become_float32(tmp_path, tiny, weights, kind):
    state = {name: t.astype(kind) for name, t in torch_state(weights, TORCHVISION).items()}
    params = load_checkpoint(write_safetensors(tmp_path / "a.safetensors", state), tiny).params
    for layer in weights:
        rounded = weights[layer]["kernel"].astype(kind).astype(np.float32)
        np.testing.assert_array_equal(params[layer]["kernel"], rounded)
        assert params[layer]["kernel"].dtype == np.float32


def test_bfloat16_of_torch_becomes_float32(tmp_path, tiny, weights, torch):
    state = torch_state(weights, TORCHVISION)
    torch.save({n: torch.tensor(t).bfloat16() for n, t in state.items()}, tmp_path / "a.pth")
    params = load_checkpoint(tmp_path / "a.pth", tiny).params
    rounded = weights["conv2_1"]["kernel"].astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(params["conv2_1"]["kernel"], rounded)


def convolutions(weights):
    return {layer: tensors for layer, tensors in weights.items() if layer.startswith("conv")}


def test_a_file_without_dense_layers(tmp_path, tiny, weights, monkeypatch):
    write_h5(tmp_path / "a.h5", convolutions(weights))
    monkeypatch.setenv("HOME", str(tmp_path))
    network, params, _ = load_checkpoint("~/a.h5", dataclasses.replace(tiny, fc_image_size=20))
    assert list(params) == ["conv1_1", "conv1_2", "conv2_1"] and network.fc_image_size == 20


def test_a_convention_given_overrides_the_files(tmp_path, tiny, weights):
    path = write_mat(tmp_path / "a.mat", weights, tiny)
    own = load_checkpoint(path, tiny, input_convention="matconvnet").network
    np.testing.assert_allclose(own.input_offset, OTHER_MEAN, atol=1e-9)
    for word in ("caffe", "torch"):
        network, _, metadata = load_checkpoint(path, tiny, input_convention=word)
        assert metadata["input_convention"] == word
        for field, value in INPUT_CONVENTIONS[word].items():
            assert getattr(network, field) == value
    path = write_h5(tmp_path / "a.h5", weights)
    network = load_checkpoint(path, tiny, input_convention="matconvnet").network
    assert network.input_offset == tuple(MEAN) and network.channel_order == "RGB"


def thinner(network, channels=4):
    """The same layers with few channels: the geometry of a large network at no cost."""
    layers = [
        dataclasses.replace(layer, channels=channels) if isinstance(layer, Conv | Dense) else layer
        for layer in network.layers
    ]
    return dataclasses.replace(network, layers=tuple(layers))


def draw(network, side):
    """Weights for dense layers that see side × side positions."""
    rng = np.random.default_rng(0)
    shapes = weight_shapes(network, network.last_convolutional())
    drawn = {
        layer: {part: rng.normal(size=shape).astype(np.float32) for part, shape in parts.items()}
        for layer, parts in shapes.items()
    }
    inputs = 4 * side**2
    for layer in ("fc6", "fc7", "fc8"):
        kernel = rng.normal(size=(inputs, 4)).astype(np.float32)
        drawn[layer] = {"kernel": kernel, "bias": np.zeros(4, np.float32)}
        inputs = 4
    return drawn


def test_axes_of_one_that_matlab_drops(tmp_path):
    network = thinner(VGG19, channels=1)
    shapes = weight_shapes(network, "pool5")
    rng = np.random.default_rng(0)
    drawn = {
        layer: {part: rng.normal(size=shape).astype(np.float32) for part, shape in parts.items()}
        for layer, parts in shapes.items()
    }
    params = load_checkpoint(write_mat(tmp_path / "a.mat", drawn, network), network).params
    for layer, parts in drawn.items():
        for part, tensor in parts.items():
            np.testing.assert_array_equal(params[layer][part], tensor, strict=True)


@pytest.mark.parametrize("side", [7, 8])
def test_vgg19_by_torchvisions_numbers(tmp_path, side):
    network = thinner(VGG19)
    drawn = draw(network, side)
    places = [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34]
    stems = [f"features.{place}" for place in places]
    stems += ["classifier.0", "classifier.3", "classifier.6"]
    names = dict(zip(drawn, stems, strict=True))
    state = {}
    for layer, stem in names.items():
        state[f"{stem}.weight"] = as_torch(drawn[layer]["kernel"], channels=4)
        state[f"{stem}.bias"] = drawn[layer]["bias"]
    path = write_safetensors(tmp_path / "a.safetensors", state)
    loaded = load_checkpoint(path, network)
    for layer in drawn:
        np.testing.assert_array_equal(loaded.params[layer]["kernel"], drawn[layer]["kernel"])
    assert loaded.network.fc_image_size == 32 * side


# torchvision's vgg11, vgg13 and vgg16: places of their convolutions among ReLU and pooling.
PLACES = {
    VGG11: [0, 3, 6, 8, 11, 13, 16, 18],
    VGG13: [0, 2, 5, 7, 10, 12, 15, 17, 20, 22],
    VGG16: [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28],
}


@pytest.mark.parametrize("network", PLACES, ids=lambda network: network.name)
def test_other_vggs_by_everybodys_names(tmp_path, network):
    thin = thinner(network)
    drawn = {name: t for name, t in draw(thin, 7).items() if name.startswith("conv")}
    stems = [f"features.{place}" for place in PLACES[network]]
    state = torch_state(drawn, dict(zip(drawn, stems, strict=True)))
    keras = {layer: f"block{layer[4]}_conv{layer[6]}" for layer in drawn}
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for layer, stem in keras.items():
            file[f"{stem}/{stem}/kernel:0"] = drawn[layer]["kernel"]
            file[f"{stem}/{stem}/bias:0"] = drawn[layer]["bias"]
    paths = [
        tmp_path / "a.h5",
        write_keras3_h5(tmp_path / "a.weights.h5", drawn),
        write_safetensors(tmp_path / "a.safetensors", state),
        write_mxnet_npz(tmp_path / "a.npz", drawn),
        write_mat_without_mean(tmp_path / "a.mat", drawn, thin),
    ]
    for path in paths:
        params = load_checkpoint(path, thin).params
        assert list(params) == list(drawn)
        for layer in drawn:
            np.testing.assert_array_equal(params[layer]["kernel"], drawn[layer]["kernel"])
    for path in paths[1:3]:  # those whose names are numbers
        with explained(path, f"looks like {network.name}", "whole file of vgg19"):
            load_checkpoint(path, VGG19)


def residual_state(network, rng):
    """A torchvision state_dict of a residual network, in NumPy."""
    state = {}
    for layer, parts in weight_shapes(network, network.layer_names[-1]).items():
        shape = parts["kernel"]
        stem = TORCH_STEMS.get(layer) or "layer{}.{}.{}".format(
            layer[5], int(layer[12]) - 1, layer[14:].replace("shortcut", "downsample.0")
        )
        norm = stem.replace("conv", "bn").replace("downsample.0", "downsample.1")
        kernel = rng.normal(size=(shape[3], shape[2], *shape[:2]))
        state[f"{stem}.weight"] = kernel * (2 / np.prod(shape[:3])) ** 0.5
        state[f"{norm}.weight"] = rng.uniform(0.5, 1.5, shape[3])
        state[f"{norm}.bias"] = 0.3 * rng.normal(size=shape[3])
        state[f"{norm}.running_mean"] = 0.3 * rng.normal(size=shape[3])
        state[f"{norm}.running_var"] = rng.uniform(0.5, 2, shape[3])
        state[f"{norm}.num_batches_tracked"] = np.array(7)
    state = {n: t.astype("f4") if t.dtype.kind == "f" else t for n, t in state.items()}
    return state | {"fc.weight": np.ones((10, 32), "f4"), "fc.bias": np.ones(10, "f4")}


TORCH_STEMS = {"conv1": "conv1"}


def residual_forward(state, x, kernels, depths):
    """torchvision's forward pass up to the last stage, in float64: {stage and block: features}."""

    def convolve(x, stem, norm, stride=1):
        kernel = np.einsum("oihw->hwio", np.asarray(state[f"{stem}.weight"], np.float64))
        maps = convolve_by_taps(x, kernel, stride=stride)
        scale, shift, mean, variance = (
            np.asarray(state[f"{norm}.{part}"], np.float64)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        return scale * (maps - mean) / np.sqrt(variance + 1e-5) + shift

    x = np.maximum(convolve(x, "conv1", "bn1", 2), 0)
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))
    x = windows[::2, ::2].max((3, 4))
    maps = {"pool1": x}
    for stage, depth in enumerate(depths, 1):
        for block in range(depth):
            stem = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            inner = x
            for number, size in enumerate(kernels, 1):
                own = stride if number == kernels.index(3) + 1 else 1
                inner = convolve(inner, f"{stem}.conv{number}", f"{stem}.bn{number}", own)
                inner = inner if number == len(kernels) else np.maximum(inner, 0)
                assert state[f"{stem}.conv{number}.weight"].shape[2] == size
            if f"{stem}.downsample.0.weight" in state:
                x = convolve(x, f"{stem}.downsample.0", f"{stem}.downsample.1", stride)
            x = np.maximum(inner + x, 0)
            maps[f"stage{stage}_block{block + 1}"] = x
    return maps


def thinner_residual(network, divisor):
    """The same network with fewer channels."""

    def thin(layer):
        if isinstance(layer, Conv):
            return dataclasses.replace(layer, channels=layer.channels // divisor)
        if isinstance(layer, Block):
            parts = {"body": tuple(map(thin, layer.body))}
            parts |= {"shortcut": tuple(map(thin, layer.shortcut))} if layer.shortcut else {}
            return dataclasses.replace(layer, **parts)
        return layer

    return dataclasses.replace(network, layers=tuple(map(thin, network.layers)))


@pytest.mark.parametrize(
    ("network", "kernels", "depths"),
    [(RESNET18, (3, 3), (2, 2, 2, 2)), (RESNET50, (1, 3, 1), (3, 4, 6, 3))],
    ids=["resnet18", "resnet50"],
)
def test_residual_networks_are_torchvisions(tmp_path, network, kernels, depths):
    thin = thinner_residual(network, 16)
    state = residual_state(thin, np.random.default_rng(0))
    path = write_safetensors(
        tmp_path / "a.safetensors", {f"module.{n}": t for n, t in state.items()}
    )
    loaded = load_checkpoint(path, thin)
    assert loaded.metadata["input_convention"] == "torch"
    image = np.random.default_rng(1).uniform(size=(40, 56, 3)).astype(np.float32)
    pixels = convert_pixels(image.astype(np.float64), "torch")
    expected = residual_forward(state, pixels, kernels, depths)
    run = jax.jit(features, static_argnames=("network", "layers"))
    found = run(loaded.network, loaded.params, image, layers=tuple(expected))
    for layer, maps in expected.items():
        assert maps.max() > 0.1
        np.testing.assert_allclose(
            found[layer], maps, rtol=0, atol=1e-5 * maps.max(), err_msg=layer
        )


def test_residual_files_that_do_not_fit(tmp_path):
    thin = thinner_residual(RESNET18, 16)
    state = residual_state(thin, np.random.default_rng(0))
    path = write_safetensors(tmp_path / "a.safetensors", state)
    with explained(path, "'layer2.0.downsample.0.weight'", "looks like resnet18", "resnet18_plain"):
        load_checkpoint(path, thinner_residual(RESNET18_PLAIN, 16))
    missing = {n: t for n, t in state.items() if n != "layer3.0.bn2.running_mean"}
    path = write_safetensors(tmp_path / "b.safetensors", missing)
    with explained(path, "'layer3.0.bn2.running_mean'"):
        load_checkpoint(path, thin)
    wide = state | {"bn1.weight": np.ones(5, "f4")}
    path = write_safetensors(tmp_path / "c.safetensors", wide)
    with explained(path, "'bn1'", "'conv1.weight'"):
        load_checkpoint(path, thin)
    path = write_safetensors(
        tmp_path / "d.safetensors", state | {"bn1.running_var": -np.ones(4, "f4")}
    )
    with explained(path, "conv1", "not finite"):
        load_checkpoint(path, thin)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["conv1_conv/kernel:0"] = np.zeros((7, 7, 3, 4))
    with explained("a.h5", "conv1_conv", "resnet18", ".safetensors"):
        load_checkpoint(tmp_path / "a.h5", thin)


def test_alexnet_and_caffenet_are_told_apart(tmp_path):
    alexnet = thinner(ALEXNET)
    drawn = draw(alexnet, 6)
    assert drawn["conv2"]["kernel"].shape == (5, 5, 2, 4)  # two groups
    kernel = drawn["fc6"]["kernel"].reshape(6, 6, 4, 4)
    boxed = drawn | {"fc6": {"kernel": kernel, "bias": drawn["fc6"]["bias"]}}
    path = write_mat(tmp_path / "a.mat", boxed, alexnet)
    loaded = load_checkpoint(path, alexnet)
    for layer in drawn:
        np.testing.assert_array_equal(loaded.params[layer]["kernel"], drawn[layer]["kernel"])
    assert loaded.network.fc_image_size == 227
    with explained(path, "norm, pool", "use alexnet"):
        load_checkpoint(path, thinner(CAFFENET))
    path = write_mat(tmp_path / "c.mat", boxed, thinner(CAFFENET))
    with explained(path, "pool, norm", "use caffenet"):
        load_checkpoint(path, alexnet)


def test_alexnet_by_plain_names_only(tmp_path):
    alexnet = thinner(ALEXNET)
    drawn = {n: t for n, t in draw(alexnet, 6).items() if n.startswith("conv")}
    state = torch_state(drawn, {layer: layer for layer in drawn})
    path = write_safetensors(tmp_path / "a.safetensors", state)
    params = load_checkpoint(path, alexnet).params
    for layer in drawn:
        np.testing.assert_array_equal(params[layer]["kernel"], drawn[layer]["kernel"])
    names = dict(zip(drawn, (f"features.{place}" for place in (0, 3, 6, 8, 10)), strict=True))
    path = write_safetensors(tmp_path / "b.safetensors", torch_state(drawn, names))
    with explained(path, "features.0", "alexnet", "Caffe's"):
        load_checkpoint(path, alexnet)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["conv1/kernel:0"] = drawn["conv1"]["kernel"]
    with explained("a.h5", "conv1/kernel:0", "alexnet"):
        load_checkpoint(tmp_path / "a.h5", alexnet)


# What is refused.


def test_missing_files_folders_suffixes_and_words(tmp_path, tiny, weights):
    with explained("nowhere.h5", "does not exist"):
        load_checkpoint(tmp_path / "nowhere.h5", tiny)
    (tmp_path / "folder.npz").mkdir()
    with explained("folder.npz", "is a folder"):
        load_checkpoint(tmp_path / "folder.npz", tiny)
    path = write_h5(tmp_path / "a.h5", weights)
    with explained("a.h5/b.h5", "part of the path is a file"):
        load_checkpoint(path / "b.h5", tiny)
    (tmp_path / "a.onnx").write_text("")
    with explained("a.onnx", ".h5", ".hdf5", ".safetensors", ".pth", ".pt", ".npz", ".mat"):
        load_checkpoint(tmp_path / "a.onnx", tiny)
    with explained("'keras'", "caffe", "torch", "matconvnet", "auto"):
        load_checkpoint(path, tiny, input_convention="keras")


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("damage", ["half", "text", "empty"])
def test_damaged_files(tmp_path, tiny, weights, name, damage):
    write, *_ = FORMATS[name]
    path = write(tmp_path / name, weights, *[tiny] * name.endswith(".mat"))
    whole = path.read_bytes()
    path.write_bytes(
        {"half": whole[: len(whole) // 2], "text": b"hello\n" * 99, "empty": b""}[damage]
    )
    with explained(path, "damaged"):
        load_checkpoint(path, tiny)


def write_vgg16(path):
    """Nothing is stored of data sets that are never written."""
    with h5py.File(path, "w") as file:
        inputs = 3
        channels = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
        for block, (depth, outputs) in enumerate(channels, 1):
            for index in range(1, depth + 1):
                stem = f"block{block}_conv{index}"
                file.create_dataset(f"{stem}/{stem}_W_1:0", (3, 3, inputs, outputs), "f4")
                file.create_dataset(f"{stem}/{stem}_b_1:0", (outputs,), "f4")
                inputs = outputs
    return path


def refusal(path, network):
    with pytest.raises(UserError) as error:
        load_checkpoint(path, network)
    return str(error.value)


def test_vgg16_is_recognised(tmp_path):
    path = write_vgg16(tmp_path / "a.h5")
    with explained("a.h5", "block3_conv4", "conv3_4", "looks like vgg16", "vgg19"):
        load_checkpoint(path, VGG19)
    vgg16 = VGG16
    assert len(load_checkpoint(path, vgg16).params) == 13
    with h5py.File(path, "a") as file:
        del file["block1_conv1/block1_conv1_b_1:0"]
    assert "looks like" not in refusal(path, vgg16)  # it is what was asked for, though not whole
    assert "looks like" in refusal(path, VGG19)
    with h5py.File(path, "a") as file:
        file.create_dataset("block3_conv4/block3_conv4_W_1:0", (3, 3, 256, 256), "f4")
    assert "looks like" not in refusal(path, VGG19)  # one convolution more


def save_changed(path, weights, *, drop=(), **added):
    state = torch_state(weights, TORCHVISION)
    state = {name: tensor for name, tensor in state.items() if name not in drop}
    return write_safetensors(path, state | {n.replace("__", "."): t for n, t in added.items()})


CHANGES = {
    "a bias": (
        {"drop": ["features.2.bias"]},
        ("'features.2.bias' (layer conv1_2)", "which tiny needs"),
    ),
    "a convolution": (
        {"drop": ["features.5.weight", "features.5.bias"]},
        ("'features.5.weight' (layer conv2_1)", "whole file of tiny"),
    ),
    "one of the dense layers": (
        {"drop": ["classifier.3.weight", "classifier.3.bias"]},
        ("'classifier.3.weight' (layer fc8)",),
    ),
    "one too many": (
        {"features__1__running_mean": np.zeros(8, np.float32)},
        ("'features.1.running_mean',", "no layer", "batch normalisation"),
    ),
    "three too many": (
        {f"features__1__{i}": np.zeros(8, np.float32) for i in range(3)},
        ("'features.1.0' and 2 other tensors", "no layer"),
    ),
    "a turned kernel": (
        {"features__5__weight": np.zeros((3, 3, 8, 12), np.float32)},
        ("'features.5.weight' (layer conv2_1)", "[3, 3, 8, 12] where [12, 8, 3, 3] belongs"),
    ),
    "a long bias": (
        {"features__5__bias": np.zeros(13, np.float32)},
        ("'features.5.bias' (layer conv2_1)", "[13] where [12] belongs"),
    ),
    "no square of positions": (
        {"classifier__0__weight": np.zeros((10, 96), np.float32)},
        ("'classifier.0.weight' (layer fc6)", "[10, 96]", "s×s positions"),
    ),
    "too many outputs": (
        {"classifier__0__weight": np.zeros((11, 108), np.float32)},
        ("'classifier.0.weight' (layer fc6)", "[11, 108]", "10 outputs for 12 channels"),
    ),
    "a turned dense kernel, first": (
        {"classifier__0__weight": np.zeros((108, 10), np.float32)},
        ("'classifier.0.weight' (layer fc6)", "[108, 10] where [10, 108] belongs"),
    ),
    "a second dense layer over positions": (
        {"classifier__3__weight": np.zeros((5, 40), np.float32)},
        ("'classifier.3.weight' (layer fc8)", "[5, 40] where [5, 10] belongs"),
    ),
    "a turned dense kernel": (
        {"classifier__3__weight": np.zeros((10, 5), np.float32)},
        ("'classifier.3.weight' (layer fc8)", "[10, 5] where [5, 10]"),
    ),
    "not a number": (
        {"features__2__weight": np.full((8, 8, 3, 3), np.nan, np.float32)},
        ("'features.2.weight' (layer conv1_2)", "576 of the 576", "not finite"),
    ),
    "beyond float32": (
        {"features__2__bias": np.r_[1e300, np.zeros(7)]},
        ("'features.2.bias' (layer conv1_2)", "1 of the 8", "not finite"),
    ),
    "truth values": (
        {"features__2__bias": np.zeros(8, bool)},
        ("'features.2.bias' (layer conv1_2)", "bool"),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_tensors_that_do_not_fit(tmp_path, tiny, weights, change):
    arguments, parts = CHANGES[change]
    path = save_changed(tmp_path / "a.safetensors", weights, **arguments)
    with explained(path, *parts):
        load_checkpoint(path, tiny)


def test_a_file_of_another_network(tmp_path, tiny):
    path = write_safetensors(tmp_path / "a.safetensors", {"stem.weight": np.zeros(3)})
    with explained(path, "'stem.weight'", "'features.0.weight'", "'conv1_1_weight'", "tiny"):
        load_checkpoint(path, tiny)
    np.savez(tmp_path / "empty.npz")
    with explained("empty.npz", "is empty", "tiny"):
        load_checkpoint(tmp_path / "empty.npz", tiny)


def test_objects_in_an_npz_are_not_unpickled(tmp_path, tiny):
    np.savez(tmp_path / "a.npz", conv1_1_weight=np.array([Trap(tmp_path / "trap")], object))
    with explained("a.npz", "'conv1_1_weight'", "objects"):
        load_checkpoint(tmp_path / "a.npz", tiny)
    assert not (tmp_path / "trap").exists()


class Trap:
    """A pickle of this writes a file when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.write_text, (self.path, "caught")


def test_a_pth_that_would_run_code(tmp_path, tiny, torch):
    trap = tmp_path / "trap"
    pickle.loads(pickle.dumps(Trap(trap)))
    assert trap.exists()  # so it does when it is read by somebody else
    trap.unlink()
    torch.save({"features.0.weight": Trap(trap)}, tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(pickle.dumps({"features.0.weight": Trap(trap)}, protocol=2))
    for name in ("a.pth", "b.pth"):
        with explained(name, "run code", ".safetensors"):
            load_checkpoint(tmp_path / name, tiny)
    assert not trap.exists()


def test_a_pth_of_something_else(tmp_path, tiny, torch):
    torch.save([torch.ones(3)], tmp_path / "a.pth")
    with explained("a.pth", "state_dict"):
        load_checkpoint(tmp_path / "a.pth", tiny)
    torch.save({"model": {"features.0.weight": torch.ones(3)}}, tmp_path / "c.pth")
    with explained("c.pth", "no tensors by name", "state_dict"):
        load_checkpoint(tmp_path / "c.pth", tiny)
    torch.save(torch.nn.Linear(2, 2), tmp_path / "b.pth")
    with explained("b.pth", "state_dict"):
        load_checkpoint(tmp_path / "b.pth", tiny)


def test_a_pth_without_torch(tmp_path, tiny, monkeypatch):
    (tmp_path / "a.pth").write_bytes(b"anything")
    monkeypatch.setitem(sys.modules, "torch", None)
    with explained("a.pth", "pip install 'randviz[torch]'", ".safetensors"):
        load_checkpoint(tmp_path / "a.pth", tiny)


def test_mat_files_that_are_not_read(tmp_path, tiny, weights):
    header = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
    (tmp_path / "new.mat").write_bytes(header + bytes(400))
    with explained("new.mat", "7.3", "-v7"):
        load_checkpoint(tmp_path / "new.mat", tiny)
    content = {"layers": mat_layers(weights, tiny)}
    grey = {"normalization": {"averageImage": np.ones((4, 4))}}
    scipy.io.savemat(tmp_path / "grey.mat", content | grey)
    with explained("grey.mat", "averageImage"):
        load_checkpoint(tmp_path / "grey.mat", tiny)


# The real one.


@pytest.mark.slow
@pytest.mark.skipif(not VGG19_FILE.exists(), reason="the file of trained weights is not here")
def test_trained_vgg19_against_numpy():
    image = skimage.data.chelsea()[90:122, 130:162].astype(np.float32) / 255
    network, params, _ = load_checkpoint(VGG19_FILE, VGG19)
    layers = VGG19.layer_names[1 : VGG19.layer_names.index("pool5") + 1]
    found = features(network, params, jnp.asarray(image), layers)
    x = 255 * image[..., ::-1].astype(np.float64) - (103.939, 116.779, 123.68)
    with h5py.File(VGG19_FILE) as file:
        for layer in layers:
            if layer.startswith("conv"):
                stem = f"block{layer[4]}_conv{layer[6]}"
                kernel = file[f"{stem}/{stem}_W_1:0"][()].astype(np.float64)
                bias = file[f"{stem}/{stem}_b_1:0"][()]
                x = np.maximum(convolve_by_taps(x, kernel, "zero") + bias, 0)
            else:
                x = (x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]) / 4
            assert found[layer].shape == x.shape and x.max() > 0
            np.testing.assert_allclose(found[layer], x, rtol=0, atol=1e-4 * x.max(), err_msg=layer)
    assert network.fc_image_size == VGG19.fc_image_size
