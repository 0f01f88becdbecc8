"""Files of trained weights → a network with their input convention, and its params.

Nothing is downloaded and no code in a file is run. Which tensor belongs to which layer follows
from the network's layers, so every network whose layers are named as VGG's or ResNet's can be read.
"""

import dataclasses
import functools
import hashlib
import math
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from randviz.host.images import explain_failure
from randviz.host.tensor_files import SUFFIXES, read_tensors
from randviz.networks.catalog import NETWORKS
from randviz.networks.layers import Block, Conv, Dense, Layer, Pool, ResponseNorm, walk_layers
from randviz.networks.network import IMAGENET_MEAN, Network
from randviz.networks.weights import weight_shapes
from randviz.types import Params, UserError

_MEAN = {"input_offset": IMAGENET_MEAN, "input_scale": 1.0}
# What trained networks expect of their input, as fields of `Network`.
INPUT_CONVENTIONS = {
    "caffe": {**_MEAN, "channel_order": "BGR"},
    "torch": {
        "input_offset": tuple(255 * mean for mean in (0.485, 0.456, 0.406)),
        "input_scale": tuple(1 / (255 * std) for std in (0.229, 0.224, 0.225)),
        "channel_order": "RGB",
    },
    "matconvnet": {**_MEAN, "channel_order": "RGB"},
}


class Checkpoint(NamedTuple):
    """Trained weights and the network that they are for.

    Attributes:
      network: the architecture, with the file's input convention and size for dense layers.
      params: {layer: {"kernel": [s, s, C_in / groups, C_out], "bias": [C_out]}}, float32, in
        forward order; dense kernels are [inputs, C].
      metadata: for a run's record: source, sha256 (its first 16 digits), format, input_convention.
    """

    network: Network
    params: Params
    metadata: dict[str, Any]


def load_checkpoint(
    path: str | os.PathLike, network: Network, *, input_convention: str = "auto"
) -> Checkpoint:
    """Loads trained weights from a file on this machine.

    Args:
      path: the file; its suffix says the format: .h5, .hdf5, .safetensors, .pth, .pt, .npz, .mat.
      network: the architecture the weights are for.
      input_convention: a name in `INPUT_CONVENTIONS`, or "auto" for the one that goes with the
        format and its names. With "matconvnet", a .mat file's own mean takes the place of
        ImageNet's.

    Returns:
      The network with the file's input convention and, if the file has dense layers, the image
      size they need; the weights; and metadata for a run's record.

    Raises:
      UserError: for a file that cannot be read, is damaged, is of another network or holds values
        that are no finite numbers, and for an unknown suffix or convention.
    """
    file = os.path.expanduser(os.fspath(path))
    if input_convention not in ("auto", *INPUT_CONVENTIONS):
        known = ", ".join(("auto", *INPUT_CONVENTIONS))
        raise UserError(f"input convention {input_convention!r} is unknown; use {known}.")
    digest = _hash_file(file)
    scheme, mean, params, side = _read_file(file, network)
    convention = scheme.convention if input_convention == "auto" else input_convention
    fields = dict(INPUT_CONVENTIONS[convention])
    if convention == "matconvnet" and mean is not None:
        fields["input_offset"] = mean
    if side:
        first_dense = _with_weights(network, Dense)[0].name
        fields["fc_image_size"] = network.smallest_side(first_dense, positions=side)
    metadata = {
        "source": file,
        "sha256": digest,
        "format": f"{scheme.name} {Path(file).suffix.lower()}",
        "input_convention": convention,
    }
    # Only now, with the file's own tensors gone, is there room for a second copy of the weights.
    params = jax.tree.map(jnp.asarray, params)
    return Checkpoint(dataclasses.replace(network, **fields), params, metadata)


def _hash_file(file):
    try:
        with open(file, "rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()[:16]
    except FileNotFoundError:
        problem = "does not exist; give the path of a file of weights"
    except IsADirectoryError:
        problem = "is a folder; give the path of a file inside it"
    except OSError as error:
        problem = f"cannot be read ({explain_failure(error)}); check the path and its permissions"
    raise UserError(f"{file} {problem}.")


def _read_file(file, network):
    """Returns the scheme, the file's own mean, params, and the positions that fc6 has a side."""
    contents = read_tensors(file)
    if _has(network, Block):
        contents = contents._replace(tensors=_fold_batch_norms(file, contents.tensors))
    schemes = _SCHEMES.get(Path(file).suffix.lower(), _NAMED)
    scheme = _recognize(file, network, contents.tensors, schemes)
    found = _check_names(file, network, contents.tensors, scheme)
    _check_order(file, network, contents.order)
    axes = scheme.axes or _tell_axes(network, contents.tensors, found)
    params, side = _convert(file, network, contents.tensors, found, axes)
    return scheme, contents.mean, params, side


# Names: which tensor is which layer's.


class _Scheme(NamedTuple):
    """Whose names they are, and the convention, axes and endings that go with them."""

    name: str
    convention: str
    axes: str | None  # None where files differ
    endings: tuple[str, str]  # of kernel and bias

    def slots(self, network):
        """{name in the file: (layer, "kernel" or "bias")}, in forward order."""
        name_layers = _LAYER_NAMES.get(self.name, _name_plainly)
        return {
            stem + ending: (layer, part)
            for layer, stem in name_layers(network).items()
            for part, ending in zip(("kernel", "bias"), self.endings, strict=True)
        }


def _with_weights(network, kind=Layer):
    layers = walk_layers(network.layers)
    return [layer for layer in layers if layer.has_weights and isinstance(layer, kind)]


def _name_plainly(network):
    return {layer.name: layer.name for layer in _with_weights(network)}


def _has(network, kind):
    return any(isinstance(layer, kind) for layer in network.layers)


def _is_vgg(network):
    return all(re.fullmatch(r"conv\d+_\d+", conv.name) for conv in _with_weights(network, Conv))


def _name_as_keras(network):
    if not _is_vgg(network):
        return {}
    convs = [layer.name for layer in _with_weights(network, Conv)]
    stems = {name: re.sub(r"conv(\d+)_(\d+)", r"block\1_conv\2", name) for name in convs}
    return stems | _name_dense(network, "fc{1}", "predictions")


def _name_as_keras3(network):
    """Keras 3 numbers the layers of a kind, from 0, which it does not write."""
    if not _is_vgg(network):
        return {}
    names = {"conv2d": _with_weights(network, Conv), "dense": _with_weights(network, Dense)}
    return {
        layer.name: f"layers/{word}_{number}/vars" if number else f"layers/{word}/vars"
        for word, layers in names.items()
        for number, layer in enumerate(layers)
    }


def _name_as_torch(network, hidden="classifier.{0}", last="classifier.{0}"):
    if _has(network, Block):
        return _name_as_torch_resnet(network)
    if not _is_vgg(network):
        return {}
    stems, place = {}, 0
    for layer in network.layers:
        if isinstance(layer, Conv):
            stems[layer.name] = f"features.{place}"
        place += 1 + isinstance(layer, Conv)  # the ReLU is a place of its own
    return stems | _name_dense(network, hidden, last)


def _name_as_torch_resnet(network):
    stems = {}
    for layer in _with_weights(network):
        stem = layer.name
        parts = re.fullmatch(r"stage(\d+)_block(\d+)_(\w+)", layer.name)
        if parts:
            part = "downsample.0" if parts[3] == "shortcut" else parts[3]
            stem = f"layer{parts[1]}.{int(parts[2]) - 1}.{part}"
        stems[layer.name] = stem
    return stems


def _name_dense(network, hidden, last):
    layers = [layer.name for layer in _with_weights(network, Dense)]
    patterns = [hidden] * (len(layers) - 1) + [last] * bool(layers)
    pairs = enumerate(zip(layers, patterns, strict=True))
    # torchvision's dense layers are three places apart: ReLU and dropout lie between.
    return {layer: pattern.format(3 * k, k + 1) for k, (layer, pattern) in pairs}


_LAYER_NAMES = {
    "Keras": _name_as_keras,
    "Keras 3": _name_as_keras3,
    "torchvision": _name_as_torch,
    "timm": functools.partial(_name_as_torch, hidden="pre_logits.fc{1}", last="head.fc"),
}
_HDF5 = (
    _Scheme("Keras", "caffe", "HWIO", ("/kernel", "/bias")),
    _Scheme("Keras 3", "caffe", "HWIO", ("/0", "/1")),
)
_NAMED = (
    _Scheme("torchvision", "torch", None, (".weight", ".bias")),
    _Scheme("timm", "torch", None, (".weight", ".bias")),
    # Gatys' published files, made from Caffe's.
    _Scheme("Caffe-named", "caffe", None, (".weight", ".bias")),
    # MXNet's converter turned the first layer to RGB.
    _Scheme("MXNet", "matconvnet", None, ("_weight", "_bias")),
)
_MAT = (
    _Scheme("MatConvNet", "matconvnet", "HWIO", (".weights{1}", ".weights{2}")),
    _Scheme("MatConvNet", "matconvnet", "HWIO", (".filters", ".biases")),
)
_SCHEMES = {".h5": _HDF5, ".hdf5": _HDF5, ".mat": _MAT}  # the others' names are one another's


def _find(slots, tensors):
    """{(layer, part): name in the file}; Keras' layer is any component of an HDF5 path."""
    found = {}
    for name, tensor in tensors.items():
        part = "bias" if tensor.ndim == 1 else "kernel"
        keys = [name.removeprefix("module."), *(f"{word}/{part}" for word in name.split("/"))]
        found |= {slots[key]: name for key in keys if key in slots}
    return found


def _recognize(file, network, tensors, schemes):
    # AlexNet: Keras has none, and torchvision's is another architecture.
    schemes = [scheme for scheme in schemes if scheme.slots(network)]
    scores = {scheme: len(_find(scheme.slots(network), tensors)) for scheme in schemes}
    if any(scores.values()):
        return max(scores, key=scores.get)
    first = next(iter(tensors), "")
    found = f"begins with {first!r}" if tensors else "is empty"
    if not schemes:
        kinds = ", ".join(suffix for suffix in SUFFIXES if suffix not in _SCHEMES)
        remedy = f"files of this kind have none, so give a file of another one ({kinds})"
    elif _has(network, ResponseNorm) and first.removeprefix("module.").startswith("features."):
        remedy = f"the {network.name} here is Caffe's, so give a file made from that"
    else:
        examples = dict.fromkeys(repr(next(iter(scheme.slots(network)))) for scheme in schemes)
        remedy = f"give a file with names like {' or '.join(examples)}"
    raise UserError(f"{file} {found} and has no tensor of {network.name}; {remedy}.")


def _label(name, layer):
    return repr(name) + ("" if layer in name else f" (layer {layer})")


def _check_names(file, network, tensors, scheme):
    """Says whether the file has all convolutions, all or no dense layers, and nothing else."""
    slots = scheme.slots(network)
    found = _find(slots, tensors)
    dense = {layer.name for layer in _with_weights(network, Dense)}
    optional = set() if dense & {layer for layer, _ in found} else dense
    remedy = f"give a whole file of {network.name}"
    other = _find_other_network(network, tensors, scheme)
    if other:
        remedy = f"the file looks like {other}, so use that network or {remedy}"
    elif any(name.endswith("running_mean") for name in tensors):
        remedy = f"the file is of a network with batch normalisation, so {remedy}"
    for key, (layer, part) in slots.items():
        if (layer, part) not in found and layer not in optional:
            label = _label(key, layer)
            raise UserError(f"{file} has no {label}, which {network.name} needs; {remedy}.")
    known = set(found.values())
    # Whole numbers are counters and states of generators, which change no feature.
    extra = [n for n, t in tensors.items() if n not in known and "float" in str(t.dtype)]
    if extra:
        others = f" and {len(extra) - 1} other tensors" if extra[1:] else ""
        raise UserError(
            f"{file} has {extra[0]!r}{others}, for which {network.name} has no layer; {remedy}."
        )
    return found


def _find_other_network(network, tensors, scheme):
    """The name of another network that has all of the file's kernels, None if there is none."""
    kernels = {name for name, tensor in tensors.items() if tensor.ndim == 4}
    own = {layer.name for layer in _with_weights(network, Conv)}
    for other in NETWORKS.values():
        found = _find(scheme.slots(other), tensors)
        convs = {layer.name for layer in _with_weights(other, Conv)}
        fits = convs <= {layer for layer, _ in found} and kernels <= set(found.values())
        if convs != own and fits:
            return other.name
    return None


# What follows a convolution, by its name: PyTorch's convention for residual networks.
_NORMS = ((r"bn(\d+)$", r"conv\1"), (r"downsample\.1$", "downsample.0"))
_NORM_EPSILON = 1e-5


def _fold_batch_norms(file, tensors):
    """Multiplies batch normalisation into the convolutions; the scores' layer is left out.

    γ (W x - mean) / √(variance + ε) + β is a convolution with another kernel and a bias.
    """
    tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("fc.")}
    for norm in [n.removesuffix(".running_var") for n in tensors if n.endswith(".running_var")]:
        conv = norm
        for pattern, replacement in _NORMS:
            conv = re.sub(pattern, replacement, conv)
        values = []
        for part in ("weight", "bias", "running_mean", "running_var"):
            if f"{norm}.{part}" not in tensors:
                raise UserError(f"{file} has no '{norm}.{part}'; give a whole file.")
            values.append(np.asarray(tensors.pop(f"{norm}.{part}"), np.float64))
        kernel = tensors.get(f"{conv}.weight")
        if kernel is None or any(value.shape != kernel.shape[:1] for value in values):
            raise UserError(
                f"{file}: the batch normalisation {norm!r} does not fit '{conv}.weight'; give a"
                " file of this architecture."
            )
        gamma, beta, mean, variance = values
        with np.errstate(invalid="ignore", divide="ignore"):  # reported as not finite later
            factor = gamma / np.sqrt(variance + _NORM_EPSILON)
        tensors[f"{conv}.weight"] = kernel * factor[:, None, None, None]
        tensors[f"{conv}.bias"] = beta - mean * factor
    return tensors


def _order_of(network):
    kinds = {Pool: "pool", ResponseNorm: "norm"}
    return tuple(kinds[type(layer)] for layer in network.layers if type(layer) in kinds)


def _check_order(file, network, order):
    """AlexNet's and CaffeNet's weights have the same shapes; only the order tells them apart."""
    if order and order != _order_of(network):
        same_order = [net for net in NETWORKS.values() if _order_of(net) == order]
        fitting = [n.name for n in same_order if _name_plainly(n) == _name_plainly(network)]
        raise UserError(
            f"{file} is not of {network.name}: its layers between convolutions are"
            f" {', '.join(order)}, not {', '.join(_order_of(network))}; use"
            f" {' or '.join(fitting) or 'another file'}."
        )


# Values: from the file's axes to ours.


def _tell_axes(network, tensors, found):
    """Such files are saved by all kinds of people; the first convolution tells their order."""
    first = _with_weights(network, Conv)[0]
    kernel = tensors[found[first.name, "kernel"]]
    ours = (first.kernel_size, first.kernel_size, 3, first.channels)
    return "HWIO" if kernel.shape == ours else "OIHW"


def _convert(file, network, tensors, found, axes):
    """Returns params and how many positions a side the first dense layer sees, None without it."""
    params, channels, first_side = {}, 3, None
    shapes = weight_shapes(network, network.last_convolutional())
    for layer in _with_weights(network):
        if (layer.name, "kernel") not in found:
            break  # the file ends before the dense layers
        kernel, bias = (found[layer.name, part] for part in ("kernel", "bias"))
        if isinstance(layer, Conv):
            window = shapes[layer.name]["kernel"][:3]
        else:
            side = 1 if first_side else _count_side(file, kernel, tensors[kernel], layer, channels)
            first_side = first_side or side
            window = (side, side, channels)
        params[layer.name] = {
            "kernel": _convert_kernel(file, kernel, tensors[kernel], layer, window, axes),
            "bias": _convert_values(file, bias, tensors[bias], layer, (layer.channels,)),
        }
        channels = layer.channels
    return params, first_side


def _count_side(file, name, tensor, layer, channels):
    positions, rest = divmod(tensor.size, channels * layer.channels)
    side = math.isqrt(positions)
    if rest or side == 0 or side**2 != positions:
        raise UserError(
            f"{file}: {_label(name, layer.name)} has shape {list(tensor.shape)}, which is not"
            f" {layer.channels} outputs for {channels} channels at s×s positions; give a file of"
            " this architecture."
        )
    return side


def _convert_kernel(file, name, tensor, layer, window, axes):
    outputs, (height, width, inputs) = layer.channels, window
    shape = (outputs, inputs, height, width) if axes == "OIHW" else (*window, outputs)
    flat = (outputs, math.prod(window)) if axes == "OIHW" else (math.prod(window), outputs)
    dense = isinstance(layer, Dense)
    given = flat if dense and tensor.ndim == 2 else shape
    values = _convert_values(file, name, tensor, layer, given).reshape(shape)
    values = np.ascontiguousarray(values.transpose(2, 3, 1, 0) if axes == "OIHW" else values)
    return values.reshape(-1, outputs) if dense else values


def _convert_values(file, name, tensor, layer, shape):
    label = _label(name, layer.name)
    # MATLAB drops sides of 1 and timm adds them; the values are in the same order.
    if [side for side in tensor.shape if side != 1] != [side for side in shape if side != 1]:
        raise UserError(
            f"{file}: {label} has shape {list(tensor.shape)} where {list(shape)} belongs; give a"
            " file of this architecture."
        )
    if not any(jnp.issubdtype(tensor.dtype, kind) for kind in (jnp.floating, jnp.integer)):
        raise UserError(f"{file}: {label} is {tensor.dtype}, not real numbers; mend the file.")
    with np.errstate(over="ignore"):  # the infinity is reported below
        values = tensor.astype(np.float32, copy=False)
    strange = values.size - np.count_nonzero(np.isfinite(values))
    if strange:
        raise UserError(
            f"{file}: {strange} of the {values.size} values of {label} are not finite in float32;"
            " fetch or make the file again."
        )
    return values.reshape(shape)
