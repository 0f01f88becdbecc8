"""Small good files of every kind that the program reads, to be damaged."""

import io
import json
import pathlib
import struct
import zlib
from collections.abc import Iterator

import h5py
import numpy as np
import safetensors.numpy
import scipy.io
import tifffile
from PIL import Image as Pillow
from PIL import ImageCms

from randviz.networks.layers import Conv, Pool
from randviz.networks.network import Network

NETWORK = Network("tiny", (Conv("conv1_1", 4), Pool("pool1"), Conv("conv2_1", 6)))
RECIPE = (
    "randviz-1 vgg19 seed=0 draws=0,0 last_layer=conv1_2 scale=0.015 bias_scale=0.0 pooling=avg"
    " padding=zero input_offset=auto generator=threefry2x32 gaussian=1 check=23695af4d1dd2821"
)
FLAGS = "# of a run\n--image=chelsea\n--layer=conv1_1\n--image_size=32\n--scale=0.01\n--square\n"

_PIXELS = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)


def make_files(kind: str, folder: pathlib.Path) -> list[bytes]:
    """Good files of one kind, smallest first.

    Args:
      kind: in `KINDS`; PyTorch's needs PyTorch.
      folder: for files that libraries cannot write to memory.
    """
    return sorted(KINDS[kind](folder), key=len)


def _save(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def _list_pictures():
    """Pillow's pictures of several modes, by mode."""
    colours = Pillow.fromarray(_PIXELS)
    clear = colours.convert("RGBA")
    clear.putalpha(Pillow.fromarray(_PIXELS[..., 0]))
    palette = colours.quantize(16)
    return {
        "RGB": colours,
        "RGBA": clear,
        "P": palette,
        "L": colours.convert("L"),
        "1": colours.convert("1"),
        "CMYK": colours.convert("CMYK"),
    }


def _write_png(folder: pathlib.Path) -> Iterator[bytes]:
    pictures = _list_pictures()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Pillow.Exif()
    exif[0x0112] = 6
    for mode in ("RGB", "RGBA", "P", "L", "1"):
        yield _save(pictures[mode], "PNG")
    yield _save(pictures["P"], "PNG", transparency=3)
    yield _save(pictures["RGB"], "PNG", icc_profile=profile, exif=exif)
    yield _save(Pillow.fromarray(np.uint16(_PIXELS[..., 0]) * 257), "PNG")
    yield encode_png([(b"IHDR", struct.pack(">IIBBBBB", 4, 2, 16, 2, 0, 0, 0)), _rows(2, 24)])


def _rows(height, width):
    return b"IDAT", zlib.compress(b"".join(b"\0" + bytes(range(width)) for _ in range(height)))


def encode_png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """The bytes of a PNG with these chunks, their checksums right."""
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, body in chunks:
        check = zlib.crc32(kind + body)
        parts += [struct.pack(">I", len(body)), kind, body, struct.pack(">I", check)]
    return b"".join(parts)


def _write_jpeg(folder):
    pictures = _list_pictures()
    exif = Pillow.Exif()
    exif[0x0112] = 8
    for mode in ("RGB", "L", "CMYK"):
        yield _save(pictures[mode], "JPEG")
    yield _save(pictures["RGB"], "JPEG", progressive=True, exif=exif)


def _write_webp(folder):
    pictures = _list_pictures()
    yield _save(pictures["RGB"], "WEBP")
    yield _save(pictures["RGBA"], "WEBP", lossless=True)
    yield _save(pictures["RGB"], "WEBP", save_all=True, append_images=[pictures["RGBA"]])


def _write_gif(folder):
    pictures = _list_pictures()
    yield _save(pictures["P"], "GIF")
    yield _save(pictures["P"], "GIF", save_all=True, append_images=[pictures["L"]], transparency=2)


def _write_bmp(folder):
    for mode, picture in _list_pictures().items():
        if mode != "CMYK":
            yield _save(picture, "BMP")


def _write_tiff(folder):
    pictures = _list_pictures()
    for mode in ("RGB", "RGBA", "P", "1", "CMYK"):
        yield _save(pictures[mode], "TIFF")
    yield _save(pictures["RGB"], "TIFF", compression="tiff_lzw")
    deep = np.uint16(_PIXELS) * 257
    arrays = (
        {"data": deep, "photometric": "rgb", "compression": "zlib"},
        {"data": deep, "photometric": "rgb", "planarconfig": "separate"},
        {"data": deep[..., 0], "photometric": "miniswhite"},
        {"data": np.float32(_PIXELS[..., 0]) / 255, "photometric": "minisblack"},
        {"data": np.tile(_PIXELS, (2, 2, 1)), "photometric": "rgb", "tile": (16, 16)},
    )
    for options in arrays:
        file = io.BytesIO()
        tifffile.imwrite(file, **options)
        yield file.getvalue()


def make_tensors(order: str = "HWIO") -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{layer: (kernel, bias)} of `NETWORK`, the kernels' axes in this order."""
    rng = np.random.default_rng(1)
    shapes = {"conv1_1": (3, 3, 3, 4), "conv2_1": (3, 3, 4, 6)}
    axes = ["HWIO".index(axis) for axis in order]
    return {
        layer: (
            np.ascontiguousarray(rng.normal(size=shape).astype(np.float32).transpose(axes)),
            rng.normal(size=shape[3]).astype(np.float32),
        )
        for layer, shape in shapes.items()
    }


def _name_tensors(stems, endings=("weight", "bias"), order="OIHW"):
    return {
        f"{stem}.{ending}": tensor
        for stem, pair in zip(stems, make_tensors(order).values(), strict=True)
        for ending, tensor in zip(endings, pair, strict=True)
    }


def _write_h5(folder):
    names = {
        "{0}/{0}/{1}:0": (("block1_conv1", "block2_conv1"), ("kernel", "bias")),
        "layers/{0}/vars/{1}": (("conv2d", "conv2d_1"), ("0", "1")),
    }
    for pattern, (stems, parts) in names.items():
        for compression in (None, "gzip"):
            path = folder / "good.h5"
            with h5py.File(path, "w") as file:
                for stem, pair in zip(stems, make_tensors().values(), strict=True):
                    for part, tensor in zip(parts, pair, strict=True):
                        name = pattern.format(stem, part)
                        file.create_dataset(name, data=tensor, compression=compression)
            yield path.read_bytes()


def _write_safetensors(folder):
    yield safetensors.numpy.save(_name_tensors(("features.0", "features.3")))
    yield safetensors.numpy.save(_name_tensors(("conv1_1", "conv2_1")))


def _write_npz(folder):
    for save in (np.savez, np.savez_compressed):
        file = io.BytesIO()
        save(file, **_name_tensors(("conv1_1", "conv2_1"), order="HWIO"))
        yield file.getvalue()


def _write_pth(folder):
    import torch

    state = _name_tensors(("features.0", "features.3"))
    state = {name: torch.tensor(tensor) for name, tensor in state.items()}
    for contents in (state, {"state_dict": state, "epoch": 3}):
        for zipped in (True, False):
            file = io.BytesIO()
            torch.save(contents, file, _use_new_zipfile_serialization=zipped)
            yield file.getvalue()


def _write_mat(folder):
    layers = np.empty(3, object)
    for place, (name, pair) in enumerate(make_tensors().items()):
        weights = np.empty(2, object)
        weights[:] = pair[0], pair[1][None]
        layers[2 * place] = {"name": name, "type": "conv", "weights": weights}
    layers[1] = {"name": "pool1", "type": "pool"}
    mean = {"normalization": {"averageImage": np.full((2, 2, 3), 100.0)}}
    for compressed in (False, True):
        file = io.BytesIO()
        scipy.io.savemat(file, {"layers": layers, "meta": mean}, do_compression=compressed)
        yield file.getvalue()


def _write_json(folder):
    record = {"study": "soak", "settings": {"seed": 1, "image": ["chelsea"], "scale": 0.015}}
    yield json.dumps({**record, "versions": {"jax": "1"}, "pictures": {"image": "00ff"}}).encode()


KINDS = {
    "png": _write_png,
    "jpg": _write_jpeg,
    "webp": _write_webp,
    "gif": _write_gif,
    "bmp": _write_bmp,
    "tif": _write_tiff,
    "h5": _write_h5,
    "safetensors": _write_safetensors,
    "npz": _write_npz,
    "pth": _write_pth,
    "mat": _write_mat,
    "recipe": lambda folder: [RECIPE.encode()],
    "flags": lambda folder: [FLAGS.encode()],
    "run record": _write_json,
}
