"""Damages files: any bytes, and what the format of each kind offers for mischief."""

import io
import json
import pickle
import random
import struct
import zipfile
from collections.abc import Callable

import numpy as np

from checks.good_files import encode_png

_BYTES = (0, 1, 0x7F, 0x80, 0xFF, ord("/"), ord("\n"))
_NUMBERS = (
    0,
    1,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    10**12,
    2**63,
    2**64 - 1,
)
_WORDS = (
    *(
        "",
        " ",
        "../../guard/escaped",
        "/dev/zero",
        "nan",
        "inf",
        "-inf",
        "1e999",
        "-1",
        "0",
        "1e-45",
    ),
    *("9" * 5000, "9" * 400, "a" * 10**5, "\0", "é", "\ud83d", "%s%n", "$(touch canary)", "²", "٣"),
    *("true", "null", "[]", "{}", "0x10", "1_000", "1e3", "2.5", ",,,", "=", "--"),
)
_VALUES = (
    *(None, True, -1, 0, 2**63, 10**30, 1.5, 1e308, float("nan"), float("inf"), "", "x", [], {}),
    *([[]], {"": None}, [1, "a", None], "../../guard/escaped", "a" * 10**4, [0] * 1000),
)
DEPTH = 10**5  # of nested brackets


class Payload:
    """What must never run: unpickled, it writes the canary."""

    def __init__(self, canary: str, call: Callable = exec):
        self.canary, self.call = canary, call

    def __reduce__(self):
        return self.call, (f"open({self.canary!r}, 'w').close()",)


def mutate(kind: str, good: list[bytes], rng: random.Random, canary: str) -> bytes:
    """Damages one of the good files of a kind.

    Args:
      kind: in `good_files.KINDS`, or "records".
      good: the files.
      rng: decides everything.
      canary: the path of a file that hostile code would write.
    """
    data = rng.choice(good)
    mischief = _MISCHIEF.get(kind)
    if mischief and rng.random() < 0.5:
        try:
            data = mischief(data, rng, canary)
        except (ValueError, struct.error, zipfile.BadZipFile, KeyError, IndexError):
            pass  # already damaged beyond its format
        if rng.random() < 0.7:
            return data
    return mutate_bytes(data, rng, rng.choice(good))


def mutate_bytes(data: bytes, rng: random.Random, other: bytes = b"") -> bytes:
    """Damages any bytes in one to eight places.

    Args:
      data: the bytes.
      rng: decides everything.
      other: bytes that parts may be taken from.
    """
    data = bytearray(data)
    # Headers are short and decide more.
    place = lambda: rng.randrange(min(len(data), rng.choice((64, 512, 2**30))) or 1)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
        at, length = place(), rng.choice((1, 2, 4, 16, 256))
        what = rng.randrange(9)
        if what == 0 and data:
            data[at] ^= 1 << rng.randrange(8)
        elif what == 1 and data:
            data[at] = rng.choice(_BYTES)
        elif what == 2:
            data[at:at] = rng.randbytes(length)
        elif what == 3:
            del data[at : at + length]
        elif what == 4:
            data[at:at] = data[at : at + length]
        elif what == 5:
            del data[at:]
        elif what == 6:
            size, order = rng.choice((2, 4, 8)), rng.choice(("little", "big"))
            number = rng.choice(_NUMBERS) % 256**size
            data[at : at + size] = number.to_bytes(size, order)
        elif what == 7:
            data[at : at + length] = bytes(min(length, len(data) - at))
        elif other:
            start = rng.randrange(len(other))
            data[at : at + length] = other[start : start + length]
    return bytes(data)


def mutate_json(data: bytes, rng: random.Random, canary: str = "") -> bytes:
    """Puts something else in a place of a JSON text, or writes a place twice, or nests it."""
    what = rng.randrange(8)
    if what == 0:
        return rng.choice((b"[", b'{"a":')) * DEPTH
    values = json.loads(data)
    places = list(_walk(values))
    container, key = rng.choice(places)
    if what == 1:
        del container[key]
    elif what == 2 and isinstance(container, dict):
        container[rng.choice(_WORDS)] = container.pop(key)
    else:
        container[key] = rng.choice(_VALUES)
    text = json.dumps(values)
    if what == 3:
        text = text.replace('": ', f'": {"9" * 5000}, "twice": ', 1)
    elif what == 4:
        text = text[:-1] + "," + text[1:]
    return text.encode()


def _walk(values):
    items = values.items() if isinstance(values, dict) else enumerate(values)
    for key, value in list(items):
        yield values, key
        if isinstance(value, dict | list):
            yield from _walk(value)


def _mutate_words(data, rng, canary):
    """Changes a word of a recipe or a line of flags."""
    text = data.decode()
    separator = "\n" if "\n" in text else " "
    words = text.split(separator)
    at = rng.randrange(len(words))
    name, equals, value = words[at].partition("=")
    what = rng.randrange(6)
    if what < 3:
        words[at] = f"{name}{equals}{rng.choice(_WORDS)}"
    elif what == 3:
        words[at] = f"{rng.choice(_WORDS)}={value}"
    elif what == 4:
        words.insert(rng.randrange(len(words)), words.pop(at))
    else:
        words.insert(at, rng.choice((words[at], *_WORDS, f"--flagfile={canary}", "--flagfile=in")))
    return separator.join(words).encode(errors="surrogatepass")


def _mutate_png(data, rng, canary):
    """Changes chunks and lets their checksums be right."""
    chunks, at = [], 8
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    what, place = rng.randrange(5), rng.randrange(len(chunks))
    kind, body = chunks[place]
    if what == 0:
        size = [rng.choice((1, 16, 16000, 10**5, 10**6, 2**31 - 1)) for _ in range(2)]
        rest = bytes(
            [rng.choice((1, 8, 16, 3)), rng.choice((0, 2, 3, 4, 6, 7)), 0, 0, rng.randrange(3)]
        )
        chunks[0] = b"IHDR", struct.pack(">II", *size) + rest
    elif what == 1:
        chunks[place] = kind, mutate_bytes(body, rng)
    elif what == 2:
        chunks.insert(place, rng.choice(chunks))
    elif what == 3:
        del chunks[place]
    else:
        names = (b"zTXt", b"iTXt", b"iCCP", b"acTL", b"fdAT", b"PLTE", b"tRNS", b"gAMA", b"eXIf")
        chunks.insert(
            place, (rng.choice(names), rng.choice((_BOMB, b"a\0\0" + _BOMB, rng.randbytes(40))))
        )
    return encode_png(chunks)


def _mutate_tiff(data, rng, canary):
    """Changes an entry of the first directory."""
    data = bytearray(data)
    order = "<" if data[:1] == b"I" else ">"
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, start)
    at = start + 2 + 12 * rng.randrange(count)
    tag, kind, number, value = struct.unpack_from(f"{order}HHII", data, at)
    changed = rng.randrange(4)
    if changed == 0:
        tag = rng.choice(
            (256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 320, 322, 330, 339, 34665)
        )
    elif changed == 1:
        kind = rng.randrange(20)
    elif changed == 2:
        number = rng.choice(_NUMBERS) % 2**32
    else:
        value = rng.choice((*_NUMBERS, start, at, 8, 16, 32, 64)) % 2**32
    struct.pack_into(f"{order}HHII", data, at, tag, kind, number, value)
    return bytes(data)


def _mutate_bmp(data, rng, canary):
    """Changes a field of the header."""
    data, at = bytearray(data), rng.choice((2, 10, 14, 18, 22, 26, 28, 30, 34, 46))
    struct.pack_into("<I", data, at, rng.choice(_NUMBERS) % 2**32)
    return bytes(data)


def _mutate_npz(data, rng, canary):
    """Writes the archive again with another header, name or object in it."""
    members = _unzip(data)
    name = rng.choice(list(members))
    what = rng.randrange(6)
    if what == 0:
        objects = np.array([Payload(canary)], object)
        members[name] = _write_npy(objects, allow_pickle=True)
    elif what < 4:
        shape = rng.choice(
            ("(1000000000000,)", "(3, 3, 3, 4)", "(-1,)", "(2**70,)", "(" * 200, "()", "(1e9,)")
        )
        kind = rng.choice(
            ("<f4", "<f8", "|O", "<c16", "|S9999999999", "<M8[s]", "<U3", "V8", "nonsense")
        )
        header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}".encode()
        header += b" " * rng.choice((0, 10**6)) + b"\n"
        members[name] = b"\x93NUMPY\2\0" + struct.pack("<I", len(header)) + header + bytes(48)
    elif what == 4:
        members[rng.choice(("../../guard/escaped.npy", "/tmp/escaped.npy", "a\0b.npy", "x"))] = (
            members.pop(name)
        )
    else:
        members[name] = _write_npy(
            np.zeros((3, 3, 3, rng.choice((1, 10**6))), rng.choice(("<f4", "<c8", "?")))
        )
    return _zip(members)


def _write_npy(array, **options):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, **options)
    return file.getvalue()


def _unzip(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _zip(members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return file.getvalue()


def _mutate_pth(data, rng, canary):
    """Hides a payload among tensors, or a tensor that is larger than its numbers."""
    import torch

    weights = torch.zeros(1)
    contents = {
        "features.0.weight": rng.choice(
            (
                Payload(canary),
                Payload(canary, eval),
                weights.expand(10**6, 10**6),
                weights.expand(4, 3, 3, 3),
                torch.zeros(
                    4, 3, 3, 3, dtype=rng.choice((torch.bool, torch.complex64, torch.bfloat16))
                ),
                torch.eye(3).to_sparse(),
                torch.zeros(4, 3, 3, 3, device="meta"),
                {"a": Payload(canary)},
                [1, "a"],
            )
        ),
        "features.0.bias": torch.zeros(4),
        "features.3.weight": torch.zeros(6, 4, 3, 3),
        "features.3.bias": torch.zeros(6),
    }
    if rng.random() < 0.2:
        return pickle.dumps(contents["features.0.weight"], protocol=rng.randrange(5))
    file = io.BytesIO()
    torch.save(contents, file, _use_new_zipfile_serialization=rng.random() < 0.6)
    return file.getvalue()


def _mutate_safetensors(data, rng, canary):
    """Changes the header and lets its length be right."""
    (length,) = struct.unpack_from("<Q", data)
    header = mutate_json(data[8 : 8 + length], rng)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def _mutate_h5(data, rng, canary):
    """Puts another thing in the place of a tensor."""
    import h5py

    file = io.BytesIO(data)
    with h5py.File(file, "r+") as opened:
        names = []
        opened.visititems(lambda name, item: names.append(name))
        name = rng.choice(names)
        what = rng.randrange(9)
        kept = name in opened and opened[name]
        if what < 8 and kept:
            del opened[name]
        if what == 0:
            opened.create_dataset(name, (10**6, 10**6), "f4", chunks=(64, 64))
        elif what == 1:
            opened[name] = h5py.ExternalLink("/etc/hostname", "/")
        elif what == 2:
            opened[name] = h5py.SoftLink(rng.choice((f"/{name}", "/", "/nowhere")))
        elif what == 3:
            opened.create_dataset(name, (4,), "f4", external=[("/etc/hostname", 0, 16)])
        elif what == 4:
            kinds = (
                "S9",
                h5py.string_dtype(),
                "c8",
                "?",
                [("a", "f4")],
                "i8",
                h5py.vlen_dtype("f4"),
            )
            opened.create_dataset(name, (3, 3, 3, 4), rng.choice(kinds))
        elif what == 5:
            opened[name] = h5py.Empty("f4")
        elif what == 6:
            opened[name] = np.zeros(rng.choice(((), (0,), (3, 3, 3, 4), (1,) * 32)), "f4")
        elif what == 7:
            opened.create_group(name)[".."] = opened["/"]
        else:
            opened.create_dataset("extra", (2**34,), "f4", chunks=(2**20,), compression="gzip")
    return file.getvalue()


def _mutate_mat(data, rng, canary):
    """Puts something else in the place of a layer."""
    import scipy.io

    pair = np.empty(2, object)
    pair[:] = np.zeros((3, 3, 3, 4)), rng.choice((np.zeros((1, 4)), "text", {"a": 1}))
    strange = (
        *(5, "text", np.zeros(3), {"name": 3}, {"name": "conv1_1", "weights": 7}, {}),
        *({"name": "conv1_1", "weights": pair}, {"name": np.zeros((2, 2)), "weights": pair}),
    )
    layers = np.empty(rng.choice((0, 1, 2)), object)
    layers[:] = [rng.choice(strange) for _ in layers]
    contents = {"layers": rng.choice((layers, 3, "x", rng.choice(strange)))}
    contents["meta"] = rng.choice(
        (
            {},
            3,
            {"normalization": 3},
            {"normalization": {"averageImage": rng.choice((3, "x", np.zeros((2, 3))))}},
        )
    )
    file = io.BytesIO()
    scipy.io.savemat(file, contents)
    return file.getvalue()


def _make_bomb():
    import zlib

    return zlib.compress(bytes(10**7))


_BOMB = _make_bomb()
_MISCHIEF = {
    "png": _mutate_png,
    "tif": _mutate_tiff,
    "bmp": _mutate_bmp,
    "npz": _mutate_npz,
    "pth": _mutate_pth,
    "safetensors": _mutate_safetensors,
    "h5": _mutate_h5,
    "mat": _mutate_mat,
    "recipe": _mutate_words,
    "flags": _mutate_words,
    "run record": mutate_json,
}
