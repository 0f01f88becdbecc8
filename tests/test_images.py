"""Pictures on disk: every oddity of a file against values computed by hand, and grids of them."""

import io
import math
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from PIL import ImageCms, ImageFont

from randviz import images
from randviz.images import (
    SAMPLES,
    crop_square,
    draw_grid,
    load_image,
    replace_atomically,
    save_image,
)
from randviz.types import UserError

HEIGHT, WIDTH = 12, 16
RED, GREEN, BLUE = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)


@pytest.fixture
def pixels():
    """uint8 [12, 16, 3], no two rows, columns or channels alike."""
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


@pytest.fixture
def strict():
    """Turns any warning into a failure."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def plain(colour, height=HEIGHT, width=WIDTH):
    return np.full((height, width, 3), colour, np.float32)


def load_grey(path, **options):
    image = load_image(path, **options)
    np.testing.assert_array_equal(image[..., 0], image[..., 1])
    np.testing.assert_array_equal(image[..., 0], image[..., 2])
    return image[..., 0]


def check_message(error, *parts):
    message = str(error.value)
    assert isinstance(error.value, UserError)
    assert "\n" not in message and ". " not in message and not message.endswith(".")
    for part in parts:
        assert str(part) in message


# Loading: kinds of pictures


def test_rgb_is_divided_by_255(tmp_path, pixels, strict):
    Pillow.fromarray(pixels).save(tmp_path / "a.png")
    image = load_image(tmp_path / "a.png")
    assert image.dtype == np.float32 and image.shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(image, pixels.astype(np.float32) / 255)


def test_grey_becomes_three_equal_channels(tmp_path, pixels, strict):
    Pillow.fromarray(pixels[..., 0]).save(tmp_path / "a.png")
    grey = load_grey(tmp_path / "a.png")
    np.testing.assert_array_equal(grey, pixels[..., 0].astype(np.float32) / 255)


def test_one_bit_becomes_black_and_white(tmp_path, strict):
    bits = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 3 == 0
    Pillow.fromarray(bits).save(tmp_path / "a.png")
    with Pillow.open(tmp_path / "a.png") as picture:
        assert picture.mode == "1"
    np.testing.assert_array_equal(load_grey(tmp_path / "a.png"), bits)


def test_palette_is_looked_up(tmp_path, strict):
    picture = Pillow.new("P", (WIDTH, HEIGHT), 0)
    picture.putpalette([255, 0, 0, 0, 51, 255])
    picture.putpixel((3, 5), 1)
    picture.save(tmp_path / "a.png")
    image = load_image(tmp_path / "a.png")
    np.testing.assert_allclose(image[5, 3], [0, 0.2, 1], rtol=1e-6)
    np.testing.assert_array_equal(image[3, 5], RED)


@pytest.mark.parametrize("name", ["a.tif", "a.jpg"])
def test_cmyk_is_ink_on_white(tmp_path, name, strict):
    Pillow.new("CMYK", (WIDTH, HEIGHT), (0, 255, 255, 0)).save(tmp_path / name)
    np.testing.assert_allclose(load_image(tmp_path / name), plain(RED), atol=2 / 255)


def test_lab_is_brought_to_rgb(tmp_path, strict):
    # L = 100 and a = b = 0 is white; Pillow adds 128 to a and b.
    Pillow.new("LAB", (WIDTH, HEIGHT), (255, 128, 128)).save(tmp_path / "a.tif")
    np.testing.assert_allclose(load_image(tmp_path / "a.tif"), 1, atol=2 / 255)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bit_grey_keeps_its_depth(tmp_path, name, strict):
    values = np.linspace(0, 65535, HEIGHT * WIDTH).astype(np.uint16).reshape(HEIGHT, WIDTH)
    Pillow.fromarray(values).save(tmp_path / name)
    grey = load_grey(tmp_path / name)
    np.testing.assert_allclose(grey, values / 65535, rtol=1e-6)
    assert len(np.unique(grey)) == HEIGHT * WIDTH


def test_16_bit_grey_is_resized_in_its_depth(tmp_path, strict):
    Pillow.fromarray(np.full((HEIGHT, WIDTH), 1000, np.uint16)).save(tmp_path / "a.png")
    grey = load_grey(tmp_path / "a.png", image_size=8)
    np.testing.assert_allclose(grey, 1000 / 65535, rtol=1e-5)


def test_16_bit_big_endian_colour_is_scaled(tmp_path, strict):
    # Pillow cannot write 16-bit colour, so the PNG is put together here.
    rows = b"\0" + struct.pack(">6H", 65535, 32768, 0, 0, 13107, 65535)
    save_png(tmp_path / "a.png", 2, 1, depth=16, colour_type=2, rows=rows)
    expected = [[[1, 0.5, 0], [0, 0.2, 1]]]
    np.testing.assert_allclose(load_image(tmp_path / "a.png"), expected, atol=1 / 255)


def test_a_grey_map_of_10_bits_is_scaled_to_its_own_white(tmp_path, strict):
    (tmp_path / "a.pgm").write_bytes(b"P5 3 1 1023\n" + struct.pack(">3H", 0, 341, 1023))
    np.testing.assert_allclose(load_grey(tmp_path / "a.pgm"), [[0, 1 / 3, 1]], atol=1e-4)


def test_32_bit_integers_beyond_16_bits_are_scaled_with_a_warning(tmp_path):
    Pillow.fromarray(np.array([[0, 50_000, 200_000]], np.int32)).save(tmp_path / "a.tif")
    with pytest.warns(UserWarning, match=r"a\.tif has values outside 0 to 65535"):
        grey = load_grey(tmp_path / "a.tif")
    np.testing.assert_allclose(grey, [[0, 0.25, 1]])


def test_floats_from_0_to_1_are_taken_as_they_are(tmp_path, strict):
    values = np.linspace(0, 1, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
    Pillow.fromarray(values).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(load_grey(tmp_path / "a.tif"), values)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 51, 255], [0, 0.2, 1]), ([-1, 0, 1], [0, 0.5, 1]), ([300, 300, 300], [1, 1, 1])],
)
def test_floats_outside_0_to_1_are_scaled_with_a_warning(tmp_path, values, expected):
    Pillow.fromarray(np.array([values], np.float32)).save(tmp_path / "a.tif")
    with pytest.warns(UserWarning, match=r"a\.tif has values outside 0 to 1"):
        grey = load_grey(tmp_path / "a.tif")
    np.testing.assert_allclose(grey, [expected], rtol=1e-6)


def test_floats_that_are_not_finite_are_refused(tmp_path):
    Pillow.fromarray(np.array([[0, np.nan]], np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(UserError) as error:
        load_image(tmp_path / "a.tif")
    check_message(error, tmp_path / "a.tif", "not finite")


def test_the_first_frame_of_an_animation_is_taken(tmp_path, strict):
    frames = [Pillow.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("#ff0000", "#0000ff")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(load_image(tmp_path / "a.gif"), plain(RED))


def test_a_single_pixel_loads(tmp_path, strict):
    Pillow.new("RGB", (1, 1), (0, 51, 255)).save(tmp_path / "a.png")
    np.testing.assert_allclose(load_image(tmp_path / "a.png"), [[[0, 0.2, 1]]], rtol=1e-6)


# Loading: transparency


def check_over_white(path, expected):
    with pytest.warns(UserWarning, match=r"transparent in places") as caught:
        image = load_image(path)
    assert len(caught) == 1 and caught[0].filename == __file__
    np.testing.assert_allclose(image, np.broadcast_to(expected, image.shape), atol=1e-6)


def test_half_transparent_red_over_white_is_pink(tmp_path):
    Pillow.new("RGBA", (WIDTH, HEIGHT), (255, 0, 0, 128)).save(tmp_path / "a.png")
    check_over_white(tmp_path / "a.png", (1, 127 / 255, 127 / 255))


def test_grey_with_alpha(tmp_path):
    Pillow.new("LA", (WIDTH, HEIGHT), (102, 51)).save(tmp_path / "a.png")
    check_over_white(tmp_path / "a.png", 0.4 * 0.2 + 0.8)


def test_palette_with_a_transparent_entry(tmp_path):
    picture = Pillow.new("P", (WIDTH, HEIGHT), 1)
    picture.putpalette([255, 0, 0, 0, 255, 0])
    picture.putpixel((3, 5), 0)
    picture.save(tmp_path / "a.png", transparency=1)
    expected = plain((1, 1, 1))
    expected[5, 3] = RED
    check_over_white(tmp_path / "a.png", expected)


def test_palette_with_alpha_for_each_entry(tmp_path):
    picture = Pillow.new("P", (WIDTH, HEIGHT), 0)
    picture.putpalette([255, 0, 0, 0, 255, 0])
    picture.save(tmp_path / "a.png", transparency=bytes([51, 255]))
    check_over_white(tmp_path / "a.png", (1, 0.8, 0.8))


def test_palette_with_an_alpha_channel(tmp_path, monkeypatch):
    # Few file formats keep such a picture, so it is handed over as if it had been decoded.
    rgba = Pillow.new("RGBA", (WIDTH, HEIGHT), (255, 0, 0, 51))
    picture = rgba.convert("RGB").convert("P").convert("PA")
    picture.putalpha(51)
    assert picture.mode == "PA"
    monkeypatch.setattr(images, "_open_file", lambda name: picture)
    check_over_white("a.any", (1, 0.8, 0.8))


def test_rgb_with_a_transparent_colour(tmp_path):
    picture = Pillow.new("RGB", (WIDTH, HEIGHT), (0, 0, 255))
    picture.putpixel((3, 5), (255, 0, 0))
    picture.save(tmp_path / "a.png", transparency=(0, 0, 255))
    expected = plain((1, 1, 1))
    expected[5, 3] = RED
    check_over_white(tmp_path / "a.png", expected)


def test_an_opaque_alpha_channel_is_not_worth_a_warning(tmp_path, strict):
    Pillow.new("RGBA", (WIDTH, HEIGHT), (255, 0, 0, 255)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(load_image(tmp_path / "a.png"), plain(RED))


# Loading: orientation


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (3, lambda x: x[::-1, ::-1]),  # upside down
        (6, lambda x: np.rot90(x, -1)),  # to be turned a quarter clockwise
        (8, lambda x: np.rot90(x, 1)),
        (2, lambda x: x[:, ::-1]),  # mirrored
    ],
)
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_exif_orientation_is_applied(tmp_path, pixels, strict, name, orientation, turn):
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    Pillow.fromarray(pixels).save(tmp_path / name, exif=exif)
    np.testing.assert_array_equal(
        load_image(tmp_path / name), turn(pixels).astype(np.float32) / 255
    )


def test_exif_orientation_comes_before_the_size(tmp_path, strict):
    exif = Pillow.Exif()
    exif[0x0112] = 6
    Pillow.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "a.jpg", exif=exif)
    assert load_image(tmp_path / "a.jpg", image_size=8).shape == (8, 6, 3)


# Loading: colour profiles


def srgb_profile():
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exchange_primaries(profile):
    """A profile that calls red what the other calls green, and the other way round."""
    swapped = profile.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ")
    return swapped.replace(b"????", b"gXYZ")


def make_linear(profile):
    """The same primaries, but values proportional to light instead of sRGB's curve."""
    offset, length = struct.unpack(">II", profile[profile.index(b"rTRC") + 4 :][:8])
    curve = struct.pack(">4sII", b"curv", 0, 0).ljust(length, b"\0")  # no entries: the identity
    return profile[:offset] + curve + profile[offset + length :]


def make_grey(profile):
    """A profile for grey, with the white point and curve of another and nothing else."""
    count = struct.unpack(">I", profile[128:132])[0]
    entries = [struct.unpack(">4sII", profile[132 + 12 * i :][:12]) for i in range(count)]
    found = {name: profile[start : start + size] for name, start, size in entries}
    tags = {b"wtpt": found[b"wtpt"], b"kTRC": found[b"rTRC"]}
    table, data = struct.pack(">I", len(tags)), b""
    for name, body in tags.items():
        table += struct.pack(">4sII", name, 132 + 12 * len(tags) + len(data), len(body))
        data += body
    header = profile[4:16] + b"GRAY" + profile[20:128]
    return struct.pack(">I", 132 + 12 * len(tags) + len(data)) + header + table + data


def encode_srgb(light):
    return 12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_an_srgb_profile_changes_nothing(tmp_path, pixels, strict, name):
    Pillow.fromarray(pixels).save(tmp_path / name, icc_profile=srgb_profile())
    np.testing.assert_array_equal(load_image(tmp_path / name), pixels.astype(np.float32) / 255)


def test_the_primaries_of_a_profile_are_used(tmp_path, pixels, strict):
    profile = exchange_primaries(srgb_profile())
    Pillow.fromarray(pixels).save(tmp_path / "a.png", icc_profile=profile)
    expected = pixels[..., [1, 0, 2]].astype(np.float32) / 255
    np.testing.assert_allclose(load_image(tmp_path / "a.png"), expected, atol=1.5 / 255)


def test_the_curve_of_a_profile_is_used(tmp_path, strict):
    profile = make_linear(srgb_profile())
    Pillow.new("RGB", (WIDTH, HEIGHT), (51, 128, 204)).save(tmp_path / "a.png", icc_profile=profile)
    expected = [encode_srgb(value / 255) for value in (51, 128, 204)]
    np.testing.assert_allclose(load_image(tmp_path / "a.png")[5, 3], expected, atol=1.5 / 255)


def test_a_profile_for_grey_is_used(tmp_path, strict):
    profile = make_grey(make_linear(srgb_profile()))
    Pillow.new("L", (WIDTH, HEIGHT), 128).save(tmp_path / "a.png", icc_profile=profile)
    grey = load_grey(tmp_path / "a.png")
    np.testing.assert_allclose(grey, encode_srgb(128 / 255), atol=1.5 / 255)


def test_a_profile_for_colour_on_a_grey_picture_is_used(tmp_path, strict):
    profile = make_linear(srgb_profile())
    Pillow.new("L", (WIDTH, HEIGHT), 128).save(tmp_path / "a.png", icc_profile=profile)
    image = load_image(tmp_path / "a.png")
    np.testing.assert_allclose(image, encode_srgb(128 / 255), atol=1.5 / 255)


def test_a_profile_on_a_palette_is_used(tmp_path, strict):
    picture = Pillow.new("P", (WIDTH, HEIGHT), 0)
    picture.putpalette([255, 0, 0])
    picture.save(tmp_path / "a.png", icc_profile=exchange_primaries(srgb_profile()))
    np.testing.assert_allclose(load_image(tmp_path / "a.png"), plain(GREEN), atol=1.5 / 255)


def test_a_profile_leaves_transparency_alone(tmp_path):
    picture = Pillow.new("RGBA", (WIDTH, HEIGHT), (255, 0, 0, 51))
    picture.save(tmp_path / "a.png", icc_profile=exchange_primaries(srgb_profile()))
    with pytest.warns(UserWarning, match="transparent"):
        image = load_image(tmp_path / "a.png")
    np.testing.assert_allclose(image, plain((0.8, 1, 0.8)), atol=1.5 / 255)


@pytest.mark.parametrize(
    "make_profile",
    [lambda profile: b"not a profile", lambda profile: profile[:200], make_grey],
    ids=["garbage", "cut short", "for grey on colour"],
)
def test_a_bad_profile_is_ignored_with_a_warning(tmp_path, pixels, make_profile):
    profile = make_profile(srgb_profile())
    Pillow.fromarray(pixels).save(tmp_path / "a.png", icc_profile=profile)
    with pytest.warns(UserWarning, match=r"a\.png: its colour profile is ignored") as caught:
        image = load_image(tmp_path / "a.png")
    assert len(caught) == 1 and caught[0].filename == __file__
    np.testing.assert_array_equal(image, pixels.astype(np.float32) / 255)


def test_a_profile_on_16_bit_grey_is_ignored_with_a_warning(tmp_path):
    picture = Pillow.fromarray(np.full((HEIGHT, WIDTH), 13107, np.uint16))
    picture.save(tmp_path / "a.png", icc_profile=make_grey(srgb_profile()))
    with pytest.warns(UserWarning, match=r"a\.png: its colour profile is ignored"):
        grey = load_grey(tmp_path / "a.png")
    np.testing.assert_allclose(grey, 0.2, rtol=1e-6)


# Loading: size


@pytest.mark.parametrize(
    ("size", "image_size", "expected"),
    [
        ((16, 12), 8, (6, 8)),
        ((12, 16), 8, (8, 6)),
        ((16, 12), 32, (24, 32)),
        ((16, 12), 16, (12, 16)),
        ((100, 1), 10, (1, 10)),
        ((16, 12), 1, (1, 1)),
        ((16, 12), np.int64(8), (6, 8)),
    ],
)
def test_the_longest_side_gets_the_size_asked_for(tmp_path, size, image_size, expected):
    Pillow.new("RGB", size, (255, 102, 0)).save(tmp_path / "a.png")
    image = load_image(tmp_path / "a.png", image_size=image_size)
    assert image.shape == (*expected, 3) and image.dtype == np.float32
    np.testing.assert_allclose(image, plain((1, 0.4, 0), *expected), atol=1e-5)


def test_resizing_keeps_places_and_range(tmp_path):
    picture = Pillow.new("RGB", (WIDTH, HEIGHT), (0, 0, 255))
    picture.paste((255, 0, 0), (0, 0, WIDTH // 2, HEIGHT // 2))
    picture.save(tmp_path / "a.png")
    image = load_image(tmp_path / "a.png", image_size=160)
    np.testing.assert_allclose(image[30, 40], RED, atol=1e-3)
    for place in [(30, 120), (90, 40), (90, 120)]:
        np.testing.assert_allclose(image[place], BLUE, atol=1e-3)
    assert image.min() == 0 and image.max() == 1


@pytest.mark.parametrize("image_size", [0, -3, 2.5, 256.0, "256", math.nan])
def test_a_size_that_is_not_a_positive_whole_number_is_refused(image_size):
    with pytest.raises(UserError) as error:
        load_image("coffee", image_size=image_size)
    check_message(error, "image_size", repr(image_size))


# Loading: what cannot be loaded


def save_png(path, width, height, *, depth=8, colour_type=2, rows=b""):
    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


def cut_short(path, pixels):
    Pillow.fromarray(pixels).resize((320, 240)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("name", "make", "part"),
    [
        ("a.png", lambda path, pixels: None, "does not exist"),
        ("a.png", lambda path, pixels: path.mkdir(), "is a folder"),
        ("a.png", lambda path, pixels: path.write_text("hello"), "not of a kind"),
        ("a.png", lambda path, pixels: path.write_bytes(b""), "is empty"),
        ("a.png", lambda path, pixels: save_png(path, 0, 12), "not of a kind"),
        ("a.png", lambda path, pixels: save_png(path, 60_000, 50_000), "pixels"),
        ("a.png", cut_short, "cut short"),
        ("a.jpg", cut_short, "cut short"),
        ("a.webp", cut_short, "; "),
        ("a.gif", cut_short, "cut short"),
        ("a.tif", cut_short, "; "),
        ("a" * 300 + ".png", lambda path, pixels: None, "cannot be read"),
    ],
)
def test_what_cannot_be_loaded_is_explained(tmp_path, pixels, name, make, part):
    make(tmp_path / name, pixels)
    with pytest.raises(UserError) as error:
        load_image(tmp_path / name)
    check_message(error, tmp_path / name, part, ";")


def test_a_mistyped_sample_is_told_the_samples():
    with pytest.raises(UserError) as error:
        load_image("cofee")
    check_message(error, "cofee", *SAMPLES)


def test_an_empty_path_is_named():
    with pytest.raises(UserError) as error:
        load_image("")
    check_message(error, "empty path")


def test_a_file_that_may_not_be_read_is_explained(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(Pillow, "open", refuse)  # the tests may run as root, who may read all
    with pytest.raises(UserError) as error:
        load_image(tmp_path / "a.png")
    check_message(error, tmp_path / "a.png", "Permission denied", "permissions")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_file_never_shows_a_traceback(tmp_path_factory, data):
    name = data.draw(st.sampled_from(["a.png", "a.jpg", "a.gif", "a.webp", "a.tif", "a.bmp"]))
    buffer = io.BytesIO()
    picture = Pillow.linear_gradient("L").resize((WIDTH, HEIGHT)).convert("RGB")
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
        except UserError:
            return
    assert image.dtype == np.float32 and max(image.shape[:2]) == 8
    assert image.min() >= 0 and image.max() <= 1


# Samples


@pytest.mark.parametrize("name", SAMPLES)
def test_each_sample_loads(name, strict):
    image = load_image(name)
    assert image.dtype == np.float32 and image.ndim == 3 and image.shape[2] == 3
    assert min(image.shape[:2]) > 150 and image.min() >= 0 and image.max() <= 1
    assert image.std() > 0.02


def test_samples_are_the_ones_of_scikit_image(strict):
    import skimage.data

    np.testing.assert_array_equal(
        load_image("chelsea"), skimage.data.chelsea().astype(np.float32) / 255
    )
    np.testing.assert_array_equal(load_image("hubble"), load_image("hubble_deep_field"))


def test_a_sample_wins_over_a_file_unless_it_looks_like_a_path(tmp_path, monkeypatch, strict):
    monkeypatch.chdir(tmp_path)
    red = Pillow.new("RGB", (WIDTH, HEIGHT), (255, 0, 0))
    red.save("coffee", "PNG")
    red.save("coffee.png")
    red.save("mine", "PNG")
    assert load_image("coffee").shape == (400, 600, 3)
    for source in ("./coffee", tmp_path / "coffee", "coffee.png", "mine"):
        np.testing.assert_array_equal(load_image(source), plain(RED))


# Saving


def test_what_is_saved_comes_back_within_half_a_level(tmp_path, strict):
    image = np.random.default_rng(1).random((HEIGHT, WIDTH, 3), np.float32)
    for name in ("a.png", "a.PNG", "a.tif", "a.tiff", "a.bmp"):
        save_image(tmp_path / name, image)
        again = load_image(tmp_path / name)
        assert np.abs(again - image).max() <= 0.5 / 255 + 1e-6
        save_image(tmp_path / name, again)
        np.testing.assert_array_equal(load_image(tmp_path / name), again)
    assert sorted(os.listdir(tmp_path)) == ["a.PNG", "a.bmp", "a.png", "a.tif", "a.tiff"]


@pytest.mark.parametrize("name", ["a.jpg", "a.jpeg", "a.webp"])
def test_what_is_saved_with_loss_comes_back_similar(tmp_path, name, strict):
    image = load_image("chelsea", image_size=64)
    save_image(tmp_path / name, image)
    assert np.abs(load_image(tmp_path / name) - image).mean() < 0.02


def test_jpeg_keeps_fine_colour(tmp_path):
    image = plain(RED)
    image[:, ::2] = BLUE
    save_image(tmp_path / "a.jpg", image)
    assert np.abs(load_image(tmp_path / "a.jpg") - image).mean() < 0.05


def test_values_are_clipped_and_halves_rounded_up(tmp_path):
    values = np.array([-0.5, 0, 0.25 / 255, 0.5 / 255, 1.5 / 255, 0.5, 1, 1.7])
    save_image(tmp_path / "a.png", np.repeat(values[None, :, None], 3, axis=2))
    with Pillow.open(tmp_path / "a.png") as picture:
        assert list(np.asarray(picture)[0, :, 0]) == [0, 0, 0, 1, 2, 128, 255, 255]


def test_jax_arrays_of_any_float_type_can_be_saved(tmp_path):
    import jax.numpy as jnp

    for dtype in (jnp.float32, jnp.bfloat16):
        save_image(tmp_path / "a.png", jnp.ones((HEIGHT, WIDTH, 3), dtype))
        np.testing.assert_array_equal(load_image(tmp_path / "a.png"), 1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_not_saved(tmp_path, value):
    image = plain(RED)
    image[5, 3, 1] = value
    with pytest.raises(UserError) as error:
        save_image(tmp_path / "a.png", image)
    check_message(error, tmp_path / "a.png", "1 of the image's 576 values")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("shape", [(12, 16), (1, 12, 16, 3), (12, 16, 4), (3, 12, 16), (0, 16, 3)])
def test_other_shapes_are_not_saved(tmp_path, shape):
    with pytest.raises(UserError) as error:
        save_image(tmp_path / "a.png", np.zeros(shape))
    check_message(error, tmp_path / "a.png", list(shape))


@pytest.mark.parametrize("name", ["a", "a.xyz", "a.svg", ".png"])
def test_an_unknown_suffix_is_refused(tmp_path, name):
    with pytest.raises(UserError) as error:
        save_image(tmp_path / name, plain(RED))
    check_message(error, tmp_path / name, ".png", ".jpg")
    assert os.listdir(tmp_path) == []


def test_missing_folders_are_made(tmp_path):
    save_image(tmp_path / "b" / "c" / "a.png", plain(RED))
    np.testing.assert_array_equal(load_image(tmp_path / "b" / "c" / "a.png"), plain(RED))


def test_a_path_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way of a folder")
    (tmp_path / "folder.png").mkdir()
    for path in (tmp_path / "file" / "a.png", tmp_path / "folder.png"):
        with pytest.raises(UserError) as error:
            save_image(path, plain(RED))
        check_message(error, path, "cannot be written", "choose another")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.png"]


@pytest.mark.parametrize("failure", [OSError(28, "No space left"), RuntimeError, KeyboardInterrupt])
def test_a_failed_save_leaves_the_old_picture_and_nothing_else(tmp_path, monkeypatch, failure):
    save_image(tmp_path / "a.png", plain(RED))

    def write_half_and_fail(picture, path, **options):
        path.write_bytes(b"half of a picture")
        raise failure

    monkeypatch.setattr(Pillow.Image, "save", write_half_and_fail)
    kind = UserError if isinstance(failure, OSError) else failure
    with pytest.raises(kind) as error:
        save_image(tmp_path / "a.png", plain(BLUE))
    if kind is UserError:
        check_message(error, tmp_path / "a.png", "No space left")
    assert os.listdir(tmp_path) == ["a.png"]
    np.testing.assert_array_equal(load_image(tmp_path / "a.png"), plain(RED))


def test_a_file_is_replaced_only_at_the_end_of_the_block(tmp_path):
    path = tmp_path / "run.json"
    path.write_text("old")
    with replace_atomically(path) as temporary:
        assert temporary.parent == tmp_path and temporary.suffix == ".json"
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["run.json"]


def test_a_replaced_file_has_ordinary_permissions(tmp_path):
    (tmp_path / "usual").write_text("")
    save_image(tmp_path / "a.png", plain(RED))
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "usual").stat().st_mode


# Squares


@pytest.mark.parametrize("turn", [False, True])
def test_the_square_is_the_middle(pixels, turn):
    image = pixels.swapaxes(0, 1) if turn else pixels
    square = crop_square(image)
    expected = pixels[:, 2:14]
    np.testing.assert_array_equal(square, expected.swapaxes(0, 1) if turn else expected)


def test_a_square_leaves_the_odd_pixel_at_the_end(pixels):
    np.testing.assert_array_equal(crop_square(pixels[:, :13]), pixels[:, :12])


# Grids


def find(grid, colour):
    """The box (top, bottom, left, right) that a colour fills, exactly and once."""
    rows, columns = np.nonzero(np.all(np.abs(grid - np.float32(colour)) < 1e-6, axis=-1))
    box = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    assert len(rows) == (box[1] - box[0]) * (box[3] - box[2])
    return tuple(int(side) for side in box)


def find_ink(grid):
    """Where the dark or grey strokes of text are, bool [H, W]."""
    spread = grid.max(axis=-1) - grid.min(axis=-1)
    return (spread < 1e-6) & (grid.max(axis=-1) < 0.9)


def test_pictures_stand_once_in_order_and_evenly():
    grid = draw_grid([[plain(RED), plain(GREEN)], [plain(BLUE), plain((1, 1, 0))]], cell=32, gap=10)
    assert grid.dtype == np.float32
    # Two margins of twice the gap around two cells of 24 × 32 with one gap between them.
    assert grid.shape == (20 + 24 + 10 + 24 + 20, 20 + 32 + 10 + 32 + 20, 3)
    assert find(grid, RED) == (20, 44, 20, 52)
    assert find(grid, GREEN) == (20, 44, 62, 94)
    assert find(grid, BLUE) == (54, 78, 20, 52)
    assert find(grid, (1, 1, 0)) == (54, 78, 62, 94)
    assert not find_ink(grid).any()


def test_small_pictures_grow_in_whole_squares(pixels):
    image = pixels.astype(np.float32) / 255
    grid = draw_grid([[image]], cell=40, gap=5)  # 40 // 16 is 2
    np.testing.assert_array_equal(grid[10:-10, 10:-10], image.repeat(2, axis=0).repeat(2, axis=1))


def test_large_pictures_shrink_smoothly():
    image = plain(RED, 120, 160)
    image[::2] = BLUE
    grid = draw_grid([[image]], cell=16, gap=5)
    assert grid.shape == (10 + 12 + 10, 10 + 16 + 10, 3)
    np.testing.assert_allclose(grid[16, 16], (0.5, 0, 0.5), atol=0.02)


@pytest.mark.parametrize(("longest", "shown"), [(16, 128), (200, 200), (1000, 512)])
def test_a_cell_has_the_size_of_the_largest_picture_within_limits(longest, shown):
    grid = draw_grid([[plain(RED, longest, longest), plain(GREEN, 4, 4)]])
    top, bottom, left, right = find(grid, RED)
    assert (bottom - top, right - left) == (shown, shown)


def test_pictures_of_different_shapes_are_centred_in_their_cells():
    grid = draw_grid([[plain(RED, 12, 16), plain(GREEN, 16, 12)]], cell=64, gap=8)
    assert find(grid, RED) == (16 + 8, 16 + 8 + 48, 16, 16 + 64)
    assert find(grid, GREEN) == (16, 16 + 64, 16 + 64 + 8 + 8, 16 + 64 + 8 + 8 + 48)


def test_values_outside_the_range_are_clipped():
    assert find(draw_grid([[plain((3, -1, 0))]]), RED)


TEXTS = {
    "title": "What a random network keeps",
    "row_labels": ["Random", "Trained"],
    "column_labels": ["conv1_1", "conv2_1"],
    "captions": [["loss 1.0\n2000 steps", "loss 2.0"], [None, "a long caption " * 8]],
}


def test_text_stays_off_the_pictures_and_inside_the_margins():
    colours = [[RED, GREEN], [BLUE, (1.0, 1.0, 0.0)]]
    grid = draw_grid([[plain(c) for c in row] for row in colours], **TEXTS)
    boxes = [find(grid, colour) for row in colours for colour in row]
    for top, bottom, left, right in boxes:  # a full box has no ink on it
        assert (bottom - top, right - left) == (96, 128)
    # Every row and column of pictures is in line, and everything has white around it.
    assert boxes[0][:2] == boxes[1][:2] and boxes[2][:2] == boxes[3][:2]
    assert boxes[0][2:] == boxes[2][2:] and boxes[1][2:] == boxes[3][2:]
    for edge in (grid[:25], grid[-25:], grid[:, :25], grid[:, -25:]):
        assert (edge == 1).all()
    ink = find_ink(grid)
    assert ink[: boxes[0][0]].any()  # title and column labels
    assert ink[boxes[0][0] : boxes[0][1], : boxes[0][2]].any()  # the first row's label
    assert ink[boxes[0][1] : boxes[2][0], boxes[0][2] : boxes[0][3]].any()  # the first caption
    assert ink[boxes[3][1] :, boxes[3][2] : boxes[3][3]].any()  # the last caption
    assert not ink[boxes[2][1] :, boxes[2][2] : boxes[2][3]].any()  # a picture without one


def test_lines_are_centred_under_pictures_and_flush_beside_them():
    text = "HHHHHHHH\nHH"
    grid = draw_grid([[plain(RED)]], captions=[[text]], row_labels=[text], gap=16)
    _, bottom, left, right = find(grid, RED)

    def find_lines(ink):
        """The first and last column of each of two lines of text."""
        filled = np.nonzero(ink.any(axis=1))[0]
        first_of_second = np.argmax(np.diff(filled)) + 1
        lines = filled[:first_of_second], filled[first_of_second:]
        columns = [np.nonzero(ink[line].any(axis=0))[0] for line in lines]
        return [(int(c[0]), int(c[-1])) for c in columns]

    ink = find_ink(grid)
    for lines in (find_lines(ink[bottom:, left:right]), find_lines(ink[:bottom, :left])):
        assert np.ptp(lines[0]) > 3.5 * np.ptp(lines[1])
    for start, end in find_lines(ink[bottom:, left:right]):
        assert abs((start + end) / 2 - (right - left) / 2) < 2
    for _, end in find_lines(ink[:bottom, :left]):
        assert abs(end - (left - 16)) < 3


def test_each_kind_of_text_makes_the_grid_larger():
    rows = [[plain(RED)] * 2] * 2
    height, width, _ = draw_grid(rows).shape
    for name, grows in [
        ("title", (True, False)),
        ("column_labels", (True, False)),
        ("captions", (True, False)),
        ("row_labels", (False, True)),
    ]:
        labelled = draw_grid(rows, **{name: TEXTS[name]}).shape
        assert (labelled[0] > height, labelled[1] > width) == grows


@pytest.mark.parametrize(
    "texts",
    [
        {"title": "unbreakable" * 9},
        {"row_labels": ["unbreakable" * 9]},
        {"column_labels": ["unbreakable" * 9]},
        {"captions": [["unbreakable" * 9]]},
    ],
)
def test_a_word_wider_than_its_place_is_not_cut(texts):
    grid = draw_grid([[plain(RED)]], **texts)
    font = ImageFont.load_default(size=12)  # the smallest that is used
    columns = np.nonzero(find_ink(grid).any(axis=0))[0]
    assert columns.max() - columns.min() > 0.95 * font.getlength("unbreakable" * 9)
    assert (grid[:, :25] == 1).all() and (grid[:, -25:] == 1).all()
    find(grid, RED)


def test_an_empty_cell_says_so_unless_its_caption_does():
    rows = [[plain(RED), None]]
    empty = (245 / 255,) * 3

    def ink_in_cell(captions):
        grid = draw_grid(rows, captions=captions)
        places = np.argwhere(np.all(np.abs(grid - empty) < 1e-6, axis=-1))
        (top, left), (bottom, right) = places.min(axis=0), places.max(axis=0) + 1
        assert (bottom - top, right - left) == (96, 128)
        return find_ink(grid)[top:bottom, left:right]

    words = ink_in_cell(None)
    rows_with_ink, columns_with_ink = np.nonzero(words)
    assert abs(rows_with_ink.mean() - 48) < 4 and abs(columns_with_ink.mean() - 64) < 4
    assert ink_in_cell([["fine", None]]).any()
    assert not ink_in_cell([["fine", "diverged"]]).any()


def test_a_grid_of_empty_cells_and_rows_of_different_lengths_can_be_drawn():
    assert draw_grid([[None, None], [None]]).shape == draw_grid([[None, None], [None, None]]).shape
    assert draw_grid([[None]], cell=8).shape[1] > 64 + 8  # as wide as its words
    assert find(draw_grid([[plain(RED), plain(GREEN)], [plain(BLUE)], []]), BLUE)


@pytest.mark.parametrize("text", ["σ = 0.015", "café × ½ ≥ 1", "漢字", "\udcff", "\t\x00", ""])
def test_any_letter_can_be_drawn(text):
    draw_grid(
        [[plain(RED)]], title=text, row_labels=[text], column_labels=[text], captions=[[text]]
    )


def test_letters_beyond_ascii_are_really_drawn():
    font = images._choose_font("σéω", 24)
    missing = bytes(font.getmask("\U000fffff"))
    assert all(bytes(font.getmask(letter)) != missing for letter in "σéωμ×²ᵀ≥")


@pytest.mark.parametrize(
    ("rows", "texts", "part"),
    [
        ([], {}, "rows"),
        ([[]], {}, "rows"),
        ([[None]], {"row_labels": ["a", "b"]}, "row_labels"),
        ([[None]], {"column_labels": []}, "column_labels"),
        ([[None, None]], {"captions": [["a"]]}, "captions"),
        ([[None], [plain((np.nan, 0, 0))]], {}, "row 2, column 1"),
        ([[None, np.zeros((12, 16))]], {}, "row 1, column 2"),
    ],
)
def test_a_grid_that_cannot_be_drawn_is_explained(rows, texts, part):
    with pytest.raises(UserError) as error:
        draw_grid(rows, **texts)
    check_message(error, part)
