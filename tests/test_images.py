"""Pictures on disk: every oddity of a file against values computed by hand."""

import contextlib
import io
import linecache
import math
import os
import struct
import tomllib
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import BLUE, GREEN, HEIGHT, PIXELS, RED, WIDTH, explained, plain
from PIL import Image as Pillow
from PIL import ImageCms

from randviz.__main__ import main
from randviz.host import images
from randviz.host.images import load_image, replace_atomically, save_image
from randviz.host.samples import SAMPLES, SCIKIT_IMAGE_SAMPLES
from randviz.types import UserError

pytestmark = pytest.mark.filterwarnings("error")

SIZE = WIDTH, HEIGHT
DEEP = np.linspace(0, 65535, HEIGHT * WIDTH).astype(np.uint16).reshape(HEIGHT, WIDTH)


@pytest.fixture
def load_saved(tmp_path):
    """Loads what Pillow writes, with its options, of a picture or an array."""

    def load_saved(picture, name="a.png", *, image_size=None, **options):
        if isinstance(picture, np.ndarray):
            picture = Pillow.fromarray(picture)
        picture.save(tmp_path / name, **options)
        return load_image(tmp_path / name, image_size=image_size)

    return load_saved


@contextlib.contextmanager
def warned(words):
    """Expects one warning, that it is a sentence, and that it points at the caller's line."""
    with pytest.warns(UserWarning) as caught:
        yield
    [warning] = caught
    assert words in str(warning.message) and str(warning.message).endswith(".")
    assert "load_image(" in linecache.getline(warning.filename, warning.lineno)


def scale(pixels):
    """The image that levels of 1, 8 or 16 bits, or floats from 0 to 1, stand for."""
    white = np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1
    image = (pixels / white).astype(np.float32)
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=-1)


def spot(ground, colour):
    """An image with one pixel of another colour; it shows a mix-up of rows and columns."""
    image = plain(ground)
    image[5, 3] = colour
    return image


def make_palette(ground, colour):
    """The same as a picture with a palette, from colours in bytes."""
    picture = Pillow.new("P", SIZE, 0)
    picture.putpalette([*ground, *colour])
    picture.putpixel((3, 5), 1)
    return picture


# Loading


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("a.png", PIXELS),
        ("a.png", PIXELS[..., 0]),
        ("a.png", PIXELS[..., 0] > 99),
        ("a.png", DEEP),
        ("a.tif", DEEP),
        ("a.tif", np.linspace(0, 1, DEEP.size, dtype=np.float32).reshape(DEEP.shape)),
    ],
)
def test_levels_become_rgb_from_0_to_1_in_their_full_depth(load_saved, name, pixels):
    np.testing.assert_array_equal(load_saved(pixels, name), scale(pixels), strict=True)


@pytest.mark.parametrize(
    ("name", "picture", "expected", "tolerance"),
    [
        ("a.png", make_palette((255, 0, 0), (0, 51, 255)), spot(RED, (0, 0.2, 1)), 1e-7),
        ("a.png", Pillow.new("RGBA", SIZE, (255, 0, 0, 255)), plain(RED), 0),  # opaque: no warning
        ("a.tif", Pillow.new("CMYK", SIZE, (0, 255, 255, 0)), plain(RED), 2 / 255),
        ("a.jpg", Pillow.new("CMYK", SIZE, (0, 255, 255, 0)), plain(RED), 2 / 255),
        # White is L = 100 with a = b = 0, to which Pillow adds 128.
        ("a.tif", Pillow.new("LAB", SIZE, (255, 128, 128)), plain(1), 2 / 255),
    ],
)
def test_other_colours_are_brought_to_rgb(load_saved, name, picture, expected, tolerance):
    np.testing.assert_allclose(load_saved(picture, name), expected, rtol=0, atol=tolerance)


def make_png(width, height, *, depth=8, rows=b"", kind=2, extra=()):
    """The bytes of an RGB picture, also of one that Pillow cannot write.

    `kind` is the file's number for colours, 3 with a palette; `extra` are further chunks.
    """

    def chunk(name, body):
        check = zlib.crc32(name + body)
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    chunks = ((b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*parts) for parts in chunks)


def write_damaged_palette(path):
    """More transparencies than a palette has colours: Pillow opens and decodes it all the same."""
    extra = ((b"PLTE", bytes(6)), (b"tRNS", bytes(300)))
    path.write_bytes(make_png(2, 1, rows=b"\0\0\1", kind=3, extra=extra))


def test_16_bit_colour_and_10_bit_grey_are_scaled_to_their_own_white(tmp_path):
    rows = b"\0" + struct.pack(">6H", 65535, 32768, 0, 0, 13107, 65535)
    (tmp_path / "a.png").write_bytes(make_png(2, 1, depth=16, rows=rows))
    expected = [[[1, 0.5, 0], [0, 0.2, 1]]]
    np.testing.assert_allclose(load_image(tmp_path / "a.png"), expected, atol=1e-5)
    (tmp_path / "a.pgm").write_bytes(b"P5 3 1 1023\n" + struct.pack(">3H", 0, 341, 1023))
    expected = [[[0] * 3, [1 / 3] * 3, [1] * 3]]
    np.testing.assert_allclose(load_image(tmp_path / "a.pgm"), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "values", "expected", "white"),
    [
        (np.int32, [0, 50_000, 200_000], [0, 0.25, 1], 65535),
        (np.float32, [0, 51, 255], [0, 0.2, 1], 1),
        (np.float32, [-1, 0, 1], [0, 0.5, 1], 1),
        (np.float32, [300, 300, 300], [1, 1, 1], 1),
    ],
)
def test_values_out_of_range_are_scaled_with_a_warning(load_saved, kind, values, expected, white):
    with warned(f"a.tif has values outside 0 to {white}; {min(0, *values)} becomes black"):
        image = load_saved(np.array([values], kind), "a.tif")
    np.testing.assert_allclose(image[0].T, [expected] * 3, rtol=1e-6)


def test_floats_that_are_not_finite_are_refused(tmp_path, load_saved):
    with explained(tmp_path / "a.tif", "not finite"):
        load_saved(np.array([[0, np.nan]], np.float32), "a.tif")


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_grey_where_zero_is_white_is_no_negative(tmp_path, kind):
    white = 1 if kind == np.float32 else np.iinfo(kind).max
    ramp = np.linspace(0, white, 5, dtype=kind)[None]
    tifffile.imwrite(tmp_path / "a.tif", ramp, photometric="miniswhite")
    np.testing.assert_allclose(
        load_image(tmp_path / "a.tif")[0, :, 0], 1 - ramp[0] / white, atol=1e-6
    )


@pytest.mark.parametrize(
    ("kind", "said"),
    [(np.int8, "8-bit numbers with a sign"), (np.uint32, "32-bit numbers without")],
)
def test_grey_of_kinds_that_would_be_misread_is_refused(tmp_path, kind, said):
    tifffile.imwrite(tmp_path / "a.tif", np.arange(6, dtype=kind).reshape(2, 3))
    with explained(tmp_path / "a.tif", said):
        load_image(tmp_path / "a.tif")


def test_the_first_frame_of_an_animation_is_taken(load_saved):
    frames = [Pillow.new("RGB", SIZE, colour) for colour in ("#ff0000", "#0000ff")]
    image = load_saved(frames[0], "a.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(image, plain(RED))


@pytest.mark.parametrize(
    ("picture", "options", "expected"),
    [
        (Pillow.new("RGBA", SIZE, (255, 0, 0, 128)), {}, plain((1, 127 / 255, 127 / 255))),
        (Pillow.new("LA", SIZE, (102, 51)), {}, plain(0.4 * 0.2 + 0.8)),
        (make_palette((0, 255, 0), (255, 0, 0)), {"transparency": 0}, spot((1, 1, 1), RED)),
        (
            make_palette((255, 0, 0), (0, 255, 0)),
            {"transparency": bytes([51, 255])},
            spot((1, 0.8, 0.8), GREEN),
        ),
        (
            Pillow.fromarray(np.uint8(spot((0, 0, 255), (255, 0, 0)))),
            {"transparency": (0, 0, 255)},
            spot((1, 1, 1), RED),
        ),
    ],
    ids=["alpha", "grey", "palette entry", "palette alphas", "colour"],
)
def test_transparency_is_laid_over_white_with_a_warning(load_saved, picture, options, expected):
    with warned("a.png is transparent in places"):
        image = load_saved(picture, **options)
    np.testing.assert_allclose(image, expected, atol=1e-6)


def test_a_palette_with_an_alpha_channel_is_laid_over_white(monkeypatch):
    # Few file formats keep such a picture, so it is handed over as if it had been decoded.
    picture = make_palette((255, 0, 0), (0, 255, 0)).convert("PA")
    picture.putalpha(51)
    assert picture.mode == "PA"
    monkeypatch.setattr(images, "_open_file", lambda name: picture)
    with warned("transparent in places"):
        image = load_image("a.any")
    np.testing.assert_allclose(image, spot((1, 0.8, 0.8), (0.8, 1, 0.8)), atol=1e-6)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_exif_orientation_is_applied_before_the_size(load_saved, name):
    exif = Pillow.Exif()
    left, right = np.rot90(PIXELS), np.rot90(PIXELS, -1)
    turns = {2: PIXELS[:, ::-1], 3: PIXELS[::-1, ::-1], 8: left, 6: right}
    for exif[0x0112], turned in turns.items():
        np.testing.assert_array_equal(load_saved(PIXELS, name, exif=exif), scale(turned))
    assert load_saved(PIXELS, "a.jpg", exif=exif, image_size=8).shape == (8, 6, 3)


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
TAGS = {
    name: SRGB[start : start + size]
    for name, start, size in struct.iter_unpack(">4sII", SRGB[132 : 132 + 12 * SRGB[131]])
}


def make_profile(space, tags):
    """A profile like sRGB's, but for another space and with other tags."""
    table, data = struct.pack(">I", len(tags)), b""
    for name, body in tags.items():
        table += struct.pack(">4sII", name, 132 + 12 * len(tags) + len(data), len(body))
        data += body
    rest = SRGB[4:16] + space + SRGB[20:128] + table + data
    return struct.pack(">I", 4 + len(rest)) + rest


IDENTITY = struct.pack(">4sII", b"curv", 0, 0)  # instead of sRGB's curve
LINEAR = make_profile(b"RGB ", TAGS | dict.fromkeys([b"rTRC", b"gTRC", b"bTRC"], IDENTITY))
SWAPPED = make_profile(b"RGB ", TAGS | {b"rXYZ": TAGS[b"gXYZ"], b"gXYZ": TAGS[b"rXYZ"]})
GREY = make_profile(b"GRAY", {b"wtpt": TAGS[b"wtpt"], b"kTRC": TAGS[b"rTRC"]})
LINEAR_GREY = make_profile(b"GRAY", {b"wtpt": TAGS[b"wtpt"], b"kTRC": IDENTITY})


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_an_srgb_profile_changes_nothing(load_saved, name):
    np.testing.assert_array_equal(load_saved(PIXELS, name, icc_profile=SRGB), scale(PIXELS))


@pytest.mark.parametrize(
    ("picture", "profile", "expected"),
    [
        (PIXELS, SWAPPED, scale(PIXELS[..., [1, 0, 2]])),
        # sRGB's curve takes the light 51/255 to 0.4845, 128/255 to 0.7366 and 204/255 to 0.9063.
        (Pillow.new("RGB", SIZE, (51, 128, 204)), LINEAR, plain((0.4845, 0.7366, 0.9063))),
        (Pillow.new("L", SIZE, 128), LINEAR_GREY, plain(0.7366)),
        (Pillow.new("L", SIZE, 128), LINEAR, plain(0.7366)),
        (make_palette((255, 0, 0), (0, 0, 255)), SWAPPED, spot(GREEN, BLUE)),
    ],
    ids=["primaries", "curve", "grey", "colour on grey", "palette"],
)
def test_a_profile_is_applied(load_saved, picture, profile, expected):
    image = load_saved(picture, icc_profile=profile)
    np.testing.assert_allclose(image, expected, atol=1.5 / 255)


def test_a_profile_leaves_transparency_alone(load_saved):
    with warned("transparent"):
        image = load_saved(Pillow.new("RGBA", SIZE, (255, 0, 0, 51)), icc_profile=SWAPPED)
    np.testing.assert_allclose(image, plain((0.8, 1, 0.8)), atol=1.5 / 255)


@pytest.mark.parametrize(
    ("pixels", "profile"),
    [(PIXELS, b"not a profile"), (PIXELS, SRGB[:200]), (PIXELS, GREY), (DEEP, GREY)],
    ids=["garbage", "cut short", "for grey on colour", "16 bits"],
)
def test_a_profile_that_cannot_be_used_is_ignored_with_a_warning(load_saved, pixels, profile):
    with warned("a.png: its colour profile is ignored"):
        image = load_saved(pixels, icc_profile=profile)
    np.testing.assert_array_equal(image, scale(pixels))


@pytest.mark.parametrize(
    ("size", "image_size", "shape"),
    [
        ((16, 12), None, (12, 16)),
        ((1, 1), None, (1, 1)),
        ((16, 12), 8, (6, 8)),
        ((12, 16), 8, (8, 6)),
        ((16, 12), 32, (24, 32)),
        ((100, 1), 10, (1, 10)),
        ((16, 12), 1, (1, 1)),
        ((16, 12), np.int64(8), (6, 8)),
    ],
)
def test_the_longest_side_gets_the_size_asked_for(load_saved, size, image_size, shape):
    image = load_saved(Pillow.new("RGB", size, (255, 102, 0)), image_size=image_size)
    assert image.shape == (*shape, 3) and image.dtype == np.float32
    np.testing.assert_allclose(image, plain((1, 0.4, 0), *shape), atol=1e-5)


def test_resizing_keeps_depth_places_and_range(load_saved):
    image = load_saved(np.full((HEIGHT, WIDTH), 1000, np.uint16), image_size=8)
    np.testing.assert_allclose(image, 1000 / 65535, rtol=1e-5)
    picture = Pillow.new("RGB", SIZE, (0, 0, 255))
    picture.paste((255, 0, 0), (0, 0, WIDTH // 2, HEIGHT // 2))
    image = load_saved(picture, image_size=160)
    np.testing.assert_allclose(image[30, 40], RED, atol=1e-3)
    for place in [(30, 120), (90, 40), (90, 120)]:
        np.testing.assert_allclose(image[place], BLUE, atol=1e-3)
    assert image.min() == 0 and image.max() == 1


@pytest.mark.parametrize("image_size", [0, -3, 2.5, 256.0, "256", math.nan])
def test_a_size_that_is_not_a_positive_whole_number_is_refused(image_size):
    with explained("image_size", repr(image_size)):
        load_image("coffee", image_size=image_size)


def cut_short(path):
    Pillow.fromarray(PIXELS).resize((320, 240)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("name", "make", "part"),
    [
        ("a.png", lambda path: None, "does not exist"),
        ("a.png", lambda path: path.mkdir(), "is a folder"),
        ("a.png", lambda path: path.write_text("hello"), "not of a kind"),
        ("a.png", lambda path: path.write_bytes(b""), "is empty"),
        ("a.png", lambda path: path.write_bytes(make_png(0, 12)), "not of a kind"),
        ("a.png", lambda path: path.write_bytes(make_png(60_000, 50_000)), "pixels"),
        *[(name, cut_short, "cut short") for name in ("a.png", "a.jpg", "a.gif")],
        ("a.png", write_damaged_palette, "damaged"),
        *[(name, cut_short, "; ") for name in ("a.webp", "a.tif")],  # they know less of it
        ("a" * 300 + ".png", lambda path: None, "cannot be read"),
        ("b/a.png", lambda path: path.parent.write_text("hello"), "is a file, not a folder"),
    ],
)
def test_what_cannot_be_loaded_is_explained(tmp_path, name, make, part):
    make(tmp_path / name)
    with explained(tmp_path / name, part, ";"):
        load_image(tmp_path / name)


def test_what_is_no_path_or_may_not_be_read_is_explained(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    with explained("empty path"):
        load_image("")
    with explained("cofee", *SAMPLES):
        load_image("cofee")
    monkeypatch.setattr(Pillow, "open", refuse)  # the tests may run as root, who may read all
    with explained(tmp_path / "a.png", "Permission denied", "permissions"):
        load_image(tmp_path / "a.png")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_file_never_shows_a_traceback(tmp_path_factory, data):
    name = data.draw(st.sampled_from(["a.png", "a.jpg", "a.gif", "a.webp", "a.tif", "a.bmp"]))
    buffer = io.BytesIO()
    picture = Pillow.linear_gradient("L").resize(SIZE).convert("RGB")
    picture.save(buffer, Pillow.registered_extensions()[name[1:]])
    damaged = bytearray(buffer.getvalue())
    for place in data.draw(st.lists(st.integers(0, len(damaged) - 1), min_size=1, max_size=8)):
        damaged[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = load_image(path, image_size=8)
        except UserError as error:
            assert str(path) in str(error)
            return
    assert image.dtype == np.float32 and max(image.shape[:2]) == 8
    assert image.min() >= 0 and image.max() <= 1


@pytest.mark.parametrize("name", [*SCIKIT_IMAGE_SAMPLES, "hubble"])
def test_samples_are_those_of_scikit_image(name):
    pixels = getattr(skimage.data, "hubble_deep_field" if name == "hubble" else name)()
    np.testing.assert_array_equal(load_image(name), scale(pixels), strict=True)


OWN_SAMPLES = [name for name in SAMPLES if name not in SCIKIT_IMAGE_SAMPLES]


@pytest.mark.parametrize("name", OWN_SAMPLES)
def test_the_packages_own_samples_are_small_and_say_where_they_are_from(name):
    folder = Path(images.__file__).parents[1] / "samples"
    about = tomllib.loads((folder / "samples.toml").read_text(encoding="utf-8"))[name]
    assert set(about) == {"title", "author", "year", "licence", "source"} and all(about.values())
    assert max(load_image(name).shape) == 512
    assert (folder / f"{name}.jpg").stat().st_size <= 100_000
    with Pillow.open(folder / f"{name}.jpg") as picture:
        assert all(key.startswith("jfif") for key in picture.info)  # nothing of the maker's machine


def test_every_picture_in_the_folder_is_listed_and_all_samples_are_told(capsys):
    folder = Path(images.__file__).parents[1] / "samples"
    assert sorted(path.stem for path in folder.glob("*.jpg")) == sorted(OWN_SAMPLES)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1_048_576
    assert main(["--helpfull"]) == 0
    told = capsys.readouterr().out
    assert all(f"\n  {name} " in told for name in SAMPLES)
    assert "The Starry Night, Vincent van Gogh, 1889; public domain" in told


def test_a_sample_wins_over_a_file_unless_it_looks_like_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("coffee", "coffee.png", "mine"):
        Pillow.new("RGB", SIZE, (255, 0, 0)).save(name, "PNG")
    assert load_image("coffee").shape == (400, 600, 3)
    for source in ("./coffee", tmp_path / "coffee", "coffee.png", "mine"):
        np.testing.assert_array_equal(load_image(source), plain(RED))


# Saving


def test_what_is_saved_comes_back_within_half_a_level(tmp_path):
    image = np.random.default_rng(1).random((HEIGHT, WIDTH, 3), np.float32)
    folder = tmp_path / "new" / "folder"
    for name in ("a.png", "a.PNG", "a.tif", "a.tiff", "a.bmp"):
        save_image(folder / name, image)
        again = load_image(folder / name)
        assert np.abs(again - image).max() <= 0.5 / 255 + 1e-6
        save_image(folder / name, again)
        np.testing.assert_array_equal(load_image(folder / name), again)
    assert sorted(os.listdir(folder)) == ["a.PNG", "a.bmp", "a.png", "a.tif", "a.tiff"]


def test_what_is_saved_with_loss_comes_back_similar(tmp_path):
    image = load_image("chelsea", image_size=64)
    for name in ("a.jpg", "a.jpeg", "a.webp"):
        save_image(tmp_path / name, image)
        assert np.abs(load_image(tmp_path / name) - image).mean() < 0.02
    image = plain(RED)
    image[:, ::2] = BLUE  # colour as fine as this is what JPEG usually smears
    save_image(tmp_path / "a.jpg", image)
    assert np.abs(load_image(tmp_path / "a.jpg") - image).mean() < 0.05


@pytest.mark.parametrize("name", ["a.png", "a.TIF", "a.tiff"])
def test_16_bits_come_back_within_half_a_level(tmp_path, name):
    image = np.random.default_rng(1).random((HEIGHT, WIDTH, 3), np.float32)
    save_image(tmp_path / name, image, bits=16)
    again = load_image(tmp_path / name)
    assert again.dtype == np.float32
    assert np.abs(again - image).max() <= 0.5 / 65535 + 1e-7
    with Pillow.open(tmp_path / name) as picture:  # a reader that knows the high bytes only
        high = np.asarray(picture)
    np.testing.assert_array_equal(high, np.floor(image * 65535 + 0.5).astype(np.uint16) >> 8)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_16_bit_colour_keeps_its_depth_in_every_order_of_bytes(tmp_path, order, compression):
    levels = np.random.default_rng(2).integers(0, 65536, (HEIGHT, WIDTH, 3)).astype(np.uint16)
    options = {"photometric": "rgb", "byteorder": order, "compression": compression}
    tifffile.imwrite(tmp_path / "a.tif", levels, **options)
    np.testing.assert_allclose(load_image(tmp_path / "a.tif"), levels / 65535, atol=1e-7)
    turned = [(274, "H", 1, 3, True)]  # EXIF's orientation: upside down
    tifffile.imwrite(tmp_path / "b.tif", levels, **options, extratags=turned)
    np.testing.assert_allclose(
        load_image(tmp_path / "b.tif"), levels[::-1, ::-1] / 65535, atol=1e-7
    )


@pytest.mark.parametrize("name", ["a.jpg", "a.webp"])
def test_less_quality_is_a_smaller_file(tmp_path, name):
    image, sizes = load_image("chelsea", image_size=64), []
    for quality in (100, 95, 20):
        save_image(tmp_path / name, image, quality=quality)
        sizes.append((tmp_path / name).stat().st_size)
    save_image(tmp_path / name, image)
    assert sizes[0] > sizes[1] == (tmp_path / name).stat().st_size > 2 * sizes[2]


@pytest.mark.parametrize(
    ("name", "options", "part"),
    [
        ("a.jpg", {"bits": 16}, "a.jpg cannot hold 16 bits a channel; use one of .png, .tif"),
        ("a.webp", {"bits": 16}, "cannot hold 16 bits"),
        ("a.png", {"bits": 12}, "8 or 16 bits a channel, not 12"),
        ("a.jpg", {"quality": 0}, "from 1 to 100, like 95, not 0"),
        ("a.jpg", {"quality": 101}, "not 101"),
        ("a.jpg", {"quality": 9.5}, "whole number"),
    ],
)
def test_options_that_do_not_fit_are_explained(tmp_path, name, options, part):
    with explained(part):
        save_image(tmp_path / name, plain(RED), **options)
    assert os.listdir(tmp_path) == []


def test_values_are_clipped_and_halves_rounded_up(tmp_path):
    values = np.array([-0.5, 0, 0.25 / 255, 0.5 / 255, 1.5 / 255, 0.5, 1, 1.7, *[0] * 4, 900])
    save_image(tmp_path / "a.png", np.repeat(values[None, :, None], 3, axis=2))
    with Pillow.open(tmp_path / "a.png") as picture:
        assert list(np.asarray(picture)[0, :, 0]) == [0, 0, 0, 1, 2, 128, 255, 255, *[0] * 4, 255]


def test_jax_arrays_of_any_float_type_can_be_saved(tmp_path):
    import jax.numpy as jnp

    for dtype in (jnp.float32, jnp.bfloat16):
        save_image(tmp_path / "a.png", jnp.ones((HEIGHT, WIDTH, 3), dtype))
        np.testing.assert_array_equal(load_image(tmp_path / "a.png"), 1)


IN_THE_WAY = "cannot be written (part of the path is a file, not a folder); choose another"


@pytest.mark.parametrize(
    ("name", "image", "part"),
    [
        *[
            ("a.png", spot(RED, (0, value, 0)), "1 of the image's 576 values")
            for value in (np.nan, np.inf, -np.inf)
        ],
        *[
            ("a.png", np.zeros(shape), list(shape))
            for shape in [(12, 16), (1, 12, 16, 3), (12, 16, 4), (3, 12, 16), (0, 16, 3)]
        ],
        ("a.png", plain((200.0, 9, 9)), "divide 0 to 255 by 255"),
        ("a.png", np.where(np.arange(WIDTH)[:, None] < 3, 90.0, plain(0)), "divide 0 to 255"),
        *[(name, plain(RED), ".png, .jpg") for name in ("a", "a.xyz", "a.svg", ".png")],
        *[(name, plain(RED), IN_THE_WAY) for name in ("file/a.png", "file/b/a.png")],
        ("folder.png", plain(RED), "cannot be written (Is a directory); choose another"),
    ],
)
def test_what_cannot_be_saved_is_explained(tmp_path, name, image, part):
    (tmp_path / "file").write_text("in the way of a folder")
    (tmp_path / "folder.png").mkdir()
    with explained(tmp_path / name, part):
        save_image(tmp_path / name, image)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.png"]


@pytest.mark.parametrize("failure", [OSError(28, "No space left"), RuntimeError, KeyboardInterrupt])
def test_a_failed_save_leaves_the_old_picture_and_nothing_else(tmp_path, monkeypatch, failure):
    save_image(tmp_path / "a.png", plain(RED))

    def write_half_and_fail(picture, path, **options):
        path.write_bytes(b"half of a picture")
        raise failure

    monkeypatch.setattr(Pillow.Image, "save", write_half_and_fail)
    told = explained(tmp_path / "a.png", "No space left")
    with told if isinstance(failure, OSError) else pytest.raises(failure):
        save_image(tmp_path / "a.png", plain(BLUE))
    assert os.listdir(tmp_path) == ["a.png"]
    np.testing.assert_array_equal(load_image(tmp_path / "a.png"), plain(RED))


def test_a_file_is_replaced_only_at_the_end_of_the_block(tmp_path):
    path = tmp_path / "run.json"
    path.write_text("old")
    mode = path.stat().st_mode
    with replace_atomically(path) as temporary:
        assert temporary.parent == tmp_path and temporary.suffix == ".json"
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["run.json"]
    assert path.stat().st_mode == mode  # not readable by its owner only


@pytest.mark.parametrize("kind", [np.uint8, np.int64, bool])
def test_pictures_of_whole_numbers_are_not_saved_as_something_else(tmp_path, kind):
    with explained("a.png", np.dtype(kind), "divide 0 to 255 by 255"):
        save_image(tmp_path / "a.png", PIXELS.astype(kind))
    assert not (tmp_path / "a.png").exists()


def test_pictures_in_0_to_255_are_not_saved_as_white(tmp_path):
    with explained("a.png", "divide 0 to 255 by 255"):
        save_image(tmp_path / "a.png", PIXELS.astype(np.float32))
    # A descent may leave the range, even far, here and there.
    image = PIXELS.astype(np.float16) / 255
    image[0] = 70
    save_image(tmp_path / "a.png", image)
    assert load_image(tmp_path / "a.png")[0].min() == 1


def test_the_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save_image("~/a.png", PIXELS / 255)
    np.testing.assert_array_equal(load_image("~/a.png"), load_image(tmp_path / "a.png"))
    with explained(f"{tmp_path}/b.png does not exist"):
        load_image("~/b.png")
