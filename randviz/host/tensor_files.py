"""Files of named tensors → arrays: HDF5, safetensors, PyTorch, NumPy, MATLAB.

No code in a file is run. Whose names they are, and what for, `checkpoints` knows.
"""

import functools
import math
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from pickle import UnpicklingError  # what PyTorch raises when it refuses to unpickle
from typing import NamedTuple

import h5py
import numpy as np
import scipy.io
from safetensors import safe_open

from randviz.types import UserError

# A file may hold zeros, which compress to nothing, but not so many that they fill the memory.
_MOST_EXPANSION, _ALWAYS_ALLOWED = 16, 2**26
# Reads a MATLAB file in so much memory; ends with _TOO_LARGE if that does not do.
_TOO_LARGE = 3
_TRY_MAT = f"""
import resource, sys, scipy.io
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
_, most = resource.getrlimit(resource.RLIMIT_AS)
wanted = used + int(sys.argv[2])
limit = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
resource.setrlimit(resource.RLIMIT_AS, (limit, most))
try:
    scipy.io.loadmat(sys.argv[1], simplify_cells=True)
except MemoryError:
    sys.exit({_TOO_LARGE})
"""


class Contents(NamedTuple):
    """What a file holds.

    Attributes:
      tensors: by their names in the file.
      mean: what a MatConvNet file says is subtracted from R, G and B, None if it does not.
      order: the kinds of its layers other than convolutions, "pool" and "norm", if it is stored.
    """

    tensors: dict[str, np.ndarray]
    mean: tuple[float, float, float] | None = None
    order: tuple[str, ...] = ()


def read_tensors(file: str) -> Contents:
    """Reads all tensors of a file into memory.

    Args:
      file: its suffix, one of `SUFFIXES`, says the format.

    Returns:
      The tensors and what else the file says.

    Raises:
      UserError: for an unknown suffix, a damaged file, and one that would have code run.
    """
    suffix = Path(file).suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"{file} is of no known kind of weights; use {', '.join(SUFFIXES)}.")
    try:
        return SUFFIXES[suffix](file)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # on a damaged file the libraries raise nearly anything
        text = re.split(r"\.\s|\n", str(error))[0].rstrip(".")[:120]
        reason = text if " " in text else type(error).__name__
        raise UserError(
            f"{file} is cut short, damaged or not what its suffix says ({reason}); fetch it again."
        ) from error


def _check_promise(file: str, num_bytes: int) -> None:
    """Refuses a file whose headers promise far more than it has, before memory is taken."""
    if num_bytes > _most_bytes(file):
        raise _refuse_promise(file, f"{num_bytes} bytes")


def _most_bytes(file: str) -> int:
    """How many bytes of tensors a file may say that it holds."""
    return max(_MOST_EXPANSION * Path(file).stat().st_size, _ALWAYS_ALLOWED)


def _refuse_promise(file: str, promised: str) -> UserError:
    own = Path(file).stat().st_size
    return UserError(
        f"{file} has {own} bytes and says that it holds {promised} of tensors, so it is damaged or"
        " made to fill the memory; fetch it again."
    )


def _read_hdf5(file):
    datasets = {}

    def collect(_, item):
        if isinstance(item, h5py.Dataset) and item.shape is not None:
            datasets[item.name.strip("/")] = item

    with h5py.File(file, "r") as opened:
        # Whole models keep the optimiser's tensors beside these groups; the second is Keras 3's.
        groups = [opened[name] for name in ("model_weights", "layers") if name in opened]
        (groups[0] if groups else opened).visititems(collect)
        _check_promise(file, sum(found.size * found.dtype.itemsize for found in datasets.values()))
        return Contents({name: np.asarray(found[()]) for name, found in datasets.items()})


def _read_safetensors(file):
    with safe_open(file, framework="np") as opened:
        return Contents({name: opened.get_tensor(name) for name in opened.keys()})


def _read_torch(file):
    try:
        import torch  # here, because it is large and only these files need it
    except ImportError:
        raise UserError(
            f"{file} needs PyTorch, which is not installed; run pip install 'randviz[torch]', or"
            " convert the file to .safetensors."
        ) from None
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            _check_promise(file, sum(member.file_size for member in archive.infolist()))
    try:
        state = torch.load(file, weights_only=True, map_location="cpu")
    except UnpicklingError:
        raise UserError(
            f"{file} is damaged or holds something other than tensors, which could run code, and"
            " was not opened; save its state_dict alone, or as .safetensors."
        ) from None
    if isinstance(state, dict):
        state = state.get("state_dict", state)
    items = state.items() if isinstance(state, dict) else ()
    tensors = {str(name): t.detach() for name, t in items if isinstance(t, torch.Tensor)}
    if not tensors:
        raise UserError(f"{file} holds no tensors by name; save the model's state_dict instead.")
    # Views may repeat what is stored.
    _check_promise(file, sum(t.numel() * t.element_size() for t in tensors.values()))
    # NumPy has no bfloat16.
    widen = lambda tensor: tensor.float() if tensor.dtype == torch.bfloat16 else tensor
    return Contents({name: widen(tensor).numpy() for name, tensor in tensors.items()})


def _read_npz(file):
    tensors = {}
    with np.lib.npyio.NpzFile(file, allow_pickle=False) as archive:
        _check_promise(
            file, sum(map(functools.partial(_count_bytes, archive), archive.zip.infolist()))
        )
        for name in archive.files:
            try:
                tensors[name] = np.asarray(archive[name])
            except ValueError as error:
                if "Object arrays" not in str(error):
                    raise
                raise UserError(
                    f"{file}: {name!r} is not numbers but objects, which could run code; save"
                    " arrays of numbers only."
                ) from None
    return Contents(tensors)


def _count_bytes(archive: np.lib.npyio.NpzFile, member: zipfile.ZipInfo) -> int:
    """The bytes of an array in an archive by what its headers say, the larger if they differ."""
    if not member.filename.endswith(".npy"):
        return member.file_size
    with archive.zip.open(member) as opened:
        version = np.lib.format.read_magic(opened)
        read = np.lib.format.read_array_header_1_0
        if version != (1, 0):
            read = np.lib.format.read_array_header_2_0
        shape, _, dtype = read(opened)
    return max(member.file_size, math.prod(shape) * dtype.itemsize)


def _read_mat(file):
    # SciPy's reader, which is compiled, dies of some damaged files and takes what memory the others
    # promise to fill. Another process tries first.
    words = [sys.executable, "-P", "-c", _TRY_MAT, file, str(_most_bytes(file))]
    code = subprocess.run(words, capture_output=True).returncode
    if code < 0:
        raise UserError(f"{file} is damaged; fetch it again.")
    if code == _TOO_LARGE:
        raise _refuse_promise(file, "far more")
    try:
        contents = scipy.io.loadmat(file, simplify_cells=True)
    except NotImplementedError:
        raise UserError(f"{file} is in MATLAB's 7.3 format; save it again with -v7.") from None
    layers = contents.get("layers", [])
    tensors = {}
    for layer in layers:
        fields = {f"weights{{{i}}}": w for i, w in enumerate(layer.get("weights", ()), 1)}
        fields |= {field: layer[field] for field in ("filters", "biases") if field in layer}
        for field, values in fields.items():
            tensors[f"{layer['name']}.{field}"] = np.asarray(values)
    names = {"pool": "pool", "lrn": "norm", "normalize": "norm"}
    kinds = [str(layer.get("type")) for layer in layers]  # an empty one is read as an array
    order = tuple(names[kind] for kind in kinds if kind in names)
    normalization = contents.get("meta", contents).get("normalization", {})
    image = np.asarray(normalization.get("averageImage", ()), np.float64)
    if image.size and (image.shape[-1] != 3 or not np.isfinite(image).all()):
        raise UserError(f"{file}: averageImage is not finite values of R, G, B; mend the file.")
    mean = tuple(map(float, image.reshape(-1, 3).mean(0))) if image.size else None
    return Contents(tensors, mean, order)


SUFFIXES = {
    ".h5": _read_hdf5,
    ".hdf5": _read_hdf5,
    ".safetensors": _read_safetensors,
    ".pth": _read_torch,
    ".pt": _read_torch,
    ".npz": _read_npz,
    ".mat": _read_mat,
}
