"""Random filters on octaves, and what is painted with them."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import randviz as rv
from randviz.__main__ import main
from randviz.commands import pictures, style
from randviz.commands.inputs import load_picture
from randviz.descent.schedule import resize
from randviz.experiments.held_out import measure_patch_distance
from randviz.host.images import load_image, save_image
from randviz.networks.conv import convolve
from randviz.networks.filter_pyramid import FilterPyramid
from randviz.tasks import painting
from randviz.types import UserError

MARGIN = painting._LEAST_MARGIN  # of pictures as small as these
ONE_SCALE = rv.Schedule((48,), (12,))


@pytest.fixture(scope="module")
def photograph():
    return load_image("chelsea", image_size=48)


@pytest.fixture(scope="module")
def canvas():
    return load_image("brick", image_size=40)


# The filters.


def test_features_are_those_of_whole_patches_of_each_octave(photograph):
    extractor = rv.RandomPyramid(num_filters=5).sample(jax.random.key(1))
    extractor = extractor.replace(shifts=jnp.array([[0, 0], [1, 0]], jnp.int32))
    image = np.asarray(photograph, np.float64)[:31, :44]
    found = extractor(image.astype(np.float32), ("image", "octave1", "octave2"))
    np.testing.assert_array_equal(found["image"], image.astype(np.float32))
    # Rows from 1 on and columns from 0 on, in blocks of four pixels.
    blocks = image[1:31, :42].reshape(15, 2, 21, 2, 3).mean((1, 3))
    for layer, octave, kernel in zip(
        ("octave1", "octave2"), (image, blocks), extractor.kernels, strict=True
    ):
        patches = np.lib.stride_tricks.sliding_window_view(octave, (7, 7), axis=(0, 1))
        expected = np.einsum("hwcij,ijck->hwk", patches, np.asarray(kernel, np.float64))
        np.testing.assert_allclose(found[layer], expected, atol=1e-5)


def test_filters_have_norm_one_and_widths_from_a_pixel_to_the_window():
    sampler = rv.RandomPyramid(num_filters=40)
    kernels = np.asarray(sampler.sample(jax.random.key(0)).kernels)
    assert kernels.shape == (2, 7, 7, 3, 40)
    np.testing.assert_allclose(np.square(kernels).sum((1, 2, 3)), 1, atol=1e-5)
    # Which share of a filter's energy lies in its middle pixel: all, or about one in 49.
    share = np.square(kernels[:, 3, 3]).sum(1)
    assert share.max() > 0.99 and share.min() < 0.06
    # The two octaves, and two keys, have filters of their own.
    other = np.asarray(sampler.sample(jax.random.key(1)).kernels)
    assert abs(kernels[0] - kernels[1]).max() > 0.1 < abs(other - kernels).max()


def test_a_draw_does_not_depend_on_how_bits_are_generated():
    draws = []
    for setting in (True, False):
        with jax.threefry_partitionable(setting):
            draws.append(rv.RandomPyramid(num_filters=3).sample(jax.random.key(5)))
    for a, b in zip(jax.tree.leaves(draws[0]), jax.tree.leaves(draws[1]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_shifts_reach_every_place_of_a_block():
    sampler = rv.RandomPyramid(num_octaves=3, num_filters=1)
    keys = jax.random.split(jax.random.key(0), 200)
    shifts = np.asarray(jax.vmap(lambda key: sampler.sample(key).shifts)(keys))
    for octave in range(3):
        assert {*shifts[:, octave].ravel()} == {*range(2**octave)}


def test_masks_are_what_lies_in_the_middle_of_each_patch():
    """The mask as an image, and filters that let the middle of each patch through."""
    kernels = jnp.zeros((3, 7, 7, 3, 1)).at[:, 3, 3, 0].set(1.0)
    extractor = FilterPyramid(kernels, jnp.array([[0, 0], [1, 0], [2, 3]], jnp.int32))
    half = np.float32(np.arange(45) < 22) * np.ones((38, 1), np.float32)
    corner = half * np.float32(np.arange(38) >= 30)[:, None]
    for mask in (half, corner):
        image = np.repeat(mask[..., None], 3, -1)
        for layer in ("octave1", "octave2", "octave3"):
            expected = extractor(image, layer)[layer][..., 0]
            np.testing.assert_allclose(extractor.reduce_mask(mask, layer), expected, atol=1e-6)
        np.testing.assert_array_equal(extractor.reduce_mask(mask, "image"), mask)


def test_an_image_smaller_than_a_filter_is_refused_in_a_sentence():
    extractor = FilterPyramid(jnp.zeros((2, 7, 7, 3, 1)), jnp.zeros((2, 2), jnp.int32))
    assert extractor(jnp.zeros((15, 20, 3)), "octave2")["octave2"].shape[2] == 1
    with pytest.raises(UserError, match=r"20×14 pixels is smaller than a filter of octave2"):
        extractor(jnp.zeros((14, 20, 3)), "octave2")


@pytest.mark.parametrize(("size", "padding"), [(5, 2), (7, 0)])
@pytest.mark.parametrize("shape", [(13, 18, 3), (16, 21, 3)])
def test_convolution_by_blocks_is_the_direct_one(size, padding, shape):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=shape), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(size, size, 3, 6)) / size, jnp.float32)

    def compute(method):
        apply = lambda x: convolve(x, kernel, padding=padding, convolution=method, platform="cpu")
        value, pull_back = jax.vjp(apply, x)
        return value, pull_back(jnp.cos(value))[0]

    for a, b in zip(compute("auto"), compute("direct"), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("shape", [(33, 30), (40, 47), (21, 16)])
@pytest.mark.parametrize("masked", [False, True])
def test_bands_are_equal_to_the_whole(canvas, shape, masked):
    extractor = rv.RandomPyramid(num_filters=6).sample(jax.random.key(1))
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.uniform(size=(*shape, 3)), jnp.float32)
    layer = "octave1"
    samples = extractor.sample_features(jax.random.key(3), canvas, layer, 24)
    statistic = painting.STATISTIC.sample(jax.random.key(2), 6, samples)
    target = statistic.measure(extractor(canvas, layer)[layer])
    mask = None
    if masked:
        mask = jnp.asarray(rng.uniform(size=(shape[0] - 6, shape[1] - 6)), jnp.float32)
        mask = mask.at[5:].set(0.0)  # some bands have nothing that counts

    def compare(image, most_features):
        banded = extractor.replace(most_features=most_features)
        (value,) = banded.measure(image, [(layer, statistic, mask)])
        return statistic.compare(value, target), value

    compute = jax.jit(jax.value_and_grad(compare, has_aux=True), static_argnums=1)
    (_, whole), whole_slope = compute(image, 2**25)
    (_, parts), parts_slope = compute(image, 4 * 6 * shape[1])
    np.testing.assert_allclose(parts, whole, atol=1e-5)
    np.testing.assert_allclose(parts_slope, whole_slope, atol=1e-5 * abs(whole_slope).max())


_COMPARE_DEVICES = """
import jax, jax.numpy as jnp, numpy as np, randviz as rv
from jax.sharding import Mesh
from randviz.tasks.painting import plan_painting
assert len(jax.devices()) == 8
draw = lambda *shape: np.random.default_rng(0).uniform(size=shape).astype("float32")
photograph, canvas = draw(37, 45, 3), draw(41, 33, 3) ** 2
mesh = Mesh(np.array(jax.devices()), ("bands",))
found = []
for devices in (None, mesh):
    plan = plan_painting(jax.random.key(0), photograph, [canvas], mesh=devices)
    objective = plan.descent.objective()
    found.append(jax.jit(jax.value_and_grad(objective.at(3)))(plan.start))
(loss, slope), (shared_loss, shared_slope) = found
assert len(shared_loss.sharding.device_set) == 8
np.testing.assert_allclose(shared_loss, loss, rtol=1e-5)
np.testing.assert_allclose(shared_slope, slope, atol=1e-5 * abs(slope).max())
print("equal")
"""


def test_eight_devices_compute_what_one_does():
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    found = subprocess.run(
        [sys.executable, "-c", _COMPARE_DEVICES],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert found.stdout.strip() == "equal", found.stderr


# What is painted.


def test_the_photograph_takes_on_the_paintings_colours_with_strength(photograph, canvas):
    def find_target(**options):
        plan = painting.plan_painting(jax.random.key(0), photograph, [canvas], **options)
        return np.asarray(plan.crop(plan.descent.images[0]))

    whole = np.clip(rv.match_colors(jnp.asarray(photograph), jnp.asarray(canvas)), 0, 1)
    # So little lies outside of [0, 1] that the mean colours are equal all the same.
    np.testing.assert_allclose(whole.mean((0, 1)), canvas.mean((0, 1)), atol=0.02)
    for strength, share in ((0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (0.9, 1.0)):
        expected = share * whole + (1 - share) * photograph
        np.testing.assert_allclose(find_target(strength=strength), expected, atol=1e-4)


def test_each_region_takes_on_its_own_paintings_colours(photograph, canvas):
    left = np.zeros(photograph.shape[:2], np.float32)
    left[:, :20] = 1
    plan = painting.plan_painting(
        jax.random.key(0), photograph, [canvas, canvas[::-1] * 0.3], style_masks=[left, 1 - left]
    )
    target = plan.crop(plan.descent.images[0])
    for side, source in ((np.s_[:, :20], canvas), (np.s_[:, 20:], canvas * 0.3)):
        expected = rv.match_colors(jnp.asarray(photograph), jnp.asarray(source))[side]
        np.testing.assert_allclose(target[side], np.clip(expected, 0, 1), atol=1e-4)


def test_where_no_painting_counts_the_photograph_keeps_its_colours(photograph, canvas):
    left = np.zeros(photograph.shape[:2], np.float32)
    left[:, :20] = 1
    plan = painting.plan_painting(jax.random.key(0), photograph, [canvas], style_masks=[left])
    target = plan.crop(plan.descent.images[0])
    np.testing.assert_allclose(target[:, 20:], photograph[:, 20:], atol=1e-6)
    assert np.abs(target[:, :20] - photograph[:, :20]).mean() > 0.02


@pytest.mark.parametrize("name", ["style_blend_weights", "style_masks"])
def test_as_many_weights_and_masks_as_paintings(photograph, canvas, name):
    given = {"style_blend_weights": [1.0], "style_masks": [np.ones(photograph.shape[:2])]}
    with pytest.raises(UserError, match="there are 2 style images and 1 "):
        rv.paint(jax.random.key(0), photograph, [canvas, canvas], **{name: given[name]})


def test_strength_leads_from_the_photograph_to_the_painting(photograph, canvas):
    paint = lambda strength: np.asarray(
        rv.paint(jax.random.key(0), photograph, canvas, strength=strength, schedule=ONE_SCALE).image
    )
    images = [paint(strength) for strength in (0.0, 0.3, 1.0)]
    np.testing.assert_allclose(images[0], photograph, atol=1e-6)
    changes = [np.abs(image - photograph).mean() for image in images]
    distances = [measure_patch_distance(np.clip(image, 0, 1), canvas) for image in images]
    assert changes[0] < changes[1] < changes[2]
    assert distances[0] > distances[1] > distances[2]
    # A dozen steps at one size lead a good part of the way.
    assert distances[2] < 0.8 * distances[0]


def test_each_painting_counts_in_its_region():
    rng = np.random.default_rng(0)
    dark, bright = (np.float32(rng.uniform(size=(40, 48, 3)) * 0.2 + low) for low in (0.1, 0.7))
    left = np.float32(np.arange(48) < 24) * np.ones((40, 1), np.float32)
    # At half the size, no patch of octave2 has its middle in the third painting's region.
    corner = np.zeros_like(left)
    corner[-1, -1] = 1
    plan = painting.plan_painting(
        jax.random.key(0), dark, [dark, bright, dark], style_masks=[left, 1 - left, corner]
    )
    evaluate = jax.jit(lambda image: plan.descent.objective(0.5).at(0).losses(image)["style"])
    dark, bright = (np.resize(image, (28, 16, 3)) for image in (dark, bright))
    at_home, swapped = (
        float(evaluate(np.concatenate(halves, 1))) for halves in ((dark, bright), (bright, dark))
    )
    assert 0 < at_home < swapped / 3


def test_a_texture_of_any_shape_comes_near_its_source(canvas):
    schedule = rv.Schedule((20, 40), (30, 100))
    result = rv.paint_texture(jax.random.key(0), canvas, shape=(32, 40), schedule=schedule)
    assert result.image.shape == (32, 40, 3) and result.trace.loss.shape == (130,)
    noise = np.mean(canvas, (0, 1)) + painting.NOISE_STD * np.random.default_rng(0).normal(
        size=(32, 40, 3)
    )
    near = measure_patch_distance(np.clip(result.image, 0, 1), canvas)
    assert near < measure_patch_distance(np.clip(noise, 0, 1), canvas) / 2


def measure_seams(image):
    """Mean differences across the edges of two copies side by side, over those inside; [2]."""
    image, ratios = np.clip(image, 0, 1), []
    for axis in (0, 1):
        differences = np.abs(image - np.roll(image, 1, axis)).mean((1 - axis, 2))
        ratios.append(differences[0] / differences[1:].mean())
    return np.array(ratios)


def test_a_tileable_texture_repeats_without_a_seam():
    # Smooth, so that pixels side by side are alike unless there is a seam.
    blobs = jax.random.uniform(jax.random.key(3), (9, 9, 3))
    source = jax.image.resize(blobs, (48, 48, 3), "cubic")
    plain, tileable = (
        rv.paint_texture(
            jax.random.key(0), source, shape=(32, 40), tileable=tileable,
            schedule=rv.Schedule((40,), (100,)),
        ).image
        for tileable in (False, True)
    )  # fmt: skip
    assert plain.shape == tileable.shape == (32, 40, 3)
    # Under four keys 0.9 to 1.3 with, 1.7 to 2.5 without: a seam is a single row, and scatters.
    assert measure_seams(tileable).max() < 1.5 < 1.7 < measure_seams(plain).min()
    # Its colours are the texture's.
    np.testing.assert_allclose(tileable.mean((0, 1)), source.mean((0, 1)), atol=0.05)


def test_an_image_that_wraps_is_compared_by_the_patches_of_its_repetition(canvas):
    task = rv.Texture(painting.LAYERS, painting.STATISTIC, weighting="none")
    key, image = jax.random.key(1), 1 - canvas[:20, :22]
    extractor = painting.FILTERS.sample(key)
    evaluate = jax.jit(lambda task, image: task.of(extractor, canvas, key=key)(image))
    wrapped = task.replace(wrap=7)
    rows, columns = np.int32(wrapped.of(extractor, canvas, key=key).origin * np.array([20, 22]))
    assert rows > 0 and columns > 0
    top, left = 20 - 7 - rows, 22 - 7 - columns
    repeated = np.tile(image, (3, 3, 1))[top % 20 :, left % 22 :][: 20 + 14, : 22 + 14]
    np.testing.assert_allclose(evaluate(wrapped, image), evaluate(task, repeated), rtol=1e-5)


def test_more_filters_than_directions_are_refused():
    with pytest.raises(UserError, match="num_filters=28 .* take at most 27"):
        rv.RandomPyramid(num_filters=28, size=3)


@pytest.mark.parametrize("init", ["noise", "image"])
def test_another_start_fills_the_margin(init):
    settings = style.Settings(
        content_image="chelsea", style_image=("coffee",), image_size=48, init=init,
        init_image="rocket" if init == "image" else "", scale_sizes=("32", "48"),
    )  # fmt: skip
    task = style.plan(settings)
    if init == "noise":
        # Of the first size, or it would be averaged away.
        assert task.start.shape[:2] == task.schedule.shapes(task.shape)[0]
        assert float(jnp.std(task.start)) > painting.NOISE_STD / 2
    else:
        assert task.start.shape[:2] == tuple(task.shape)
        picture = resize(load_picture("init_image", "rocket", 48).image, (32, 48))
        np.testing.assert_allclose(task.finish(task.start), picture, atol=1e-6)


@pytest.mark.parametrize("shape", [(47, 31), (32, 48), (9, 11)])
def test_margins_are_cut_off_at_every_scale(shape):
    image = np.random.default_rng(0).uniform(size=(*shape, 3)).astype(np.float32)
    plan = painting.plan_painting(jax.random.key(0), image, [image])
    assert plan.schedule.sizes[-1] == max(plan.canvas)
    np.testing.assert_allclose(plan.crop(plan.start), image, atol=1e-6)
    for size, canvas_shape in zip(
        plan.schedule.sizes, plan.schedule.shapes(plan.canvas), strict=True
    ):
        cropped = plan.crop(jnp.zeros((*canvas_shape, 3))).shape
        scale = size / max(plan.canvas)
        np.testing.assert_allclose(cropped[:2], np.multiply(shape, scale), atol=1)


@pytest.mark.parametrize(
    ("shape", "other"), [((32, 96), (32, 96)), ((90, 50), (32, 96)), ((18, 128), (64, 128))]
)
def test_long_and_narrow_pictures_begin_where_filters_fit(shape, other):
    key = jax.random.key(0)
    narrow, wide = (np.zeros((*one, 3), np.float32) for one in (shape, other))
    plans = [
        painting.plan_texture(key, wide, shape=shape),
        painting.plan_texture(key, wide, shape=shape, tileable=True),
        painting.plan_painting(key, narrow, [wide]),
        painting.plan_painting(key, wide, [narrow]),
    ]
    for plan in plans:
        objective = plan.descent.objective(plan.schedule.sizes[0] / max(plan.canvas))
        start = jnp.zeros((*plan.schedule.shapes(plan.canvas)[0], 3))
        evaluate = lambda objective, start: objective.at(0)(start)
        assert jax.eval_shape(evaluate, objective, start).shape == ()
    assert len(plans[0].schedule.sizes) > 1


def test_a_painting_smaller_than_a_filter_is_refused():
    small, wide = (np.zeros((side, 40, 3), np.float32) for side in (14, 30))
    for make in (
        lambda: rv.paint_texture(jax.random.key(0), small, num_steps=1),
        lambda: rv.paint(jax.random.key(0), wide, small, num_steps=1),
    ):
        with pytest.raises(UserError, match="is smaller than a filter of octave2, 15×15"):
            make()


def test_steps_are_divided_as_the_method_has_them():
    image = np.zeros((192, 256, 3), np.float32)
    plans = [
        painting.plan_painting(jax.random.key(0), image, [image], num_steps=count).schedule
        for count in (None, 50)
    ]
    assert plans[0].sizes == plans[1].sizes and plans[1].num_steps == 50
    np.testing.assert_allclose(
        np.divide(plans[1].steps, 50), np.divide(plans[0].steps, plans[0].num_steps), atol=0.02
    )


@pytest.mark.parametrize("strength", [-0.1, 1.5, float("nan")])
def test_a_strength_outside_is_refused(photograph, canvas, strength):
    with pytest.raises(UserError, match="from 0 to 1"):
        rv.paint(jax.random.key(0), photograph, canvas, strength=strength)


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """What a command would run, as a function of its flags."""

    def make(*flags):
        tasks = []
        monkeypatch.setattr(pictures, "run_task", tasks.append)
        words = ["style", "--content_image=chelsea", *SMALL, *flags, f"--out_dir={tmp_path}"]
        assert main(words) == 0
        return tasks[0]

    return make


def draw(path, mask):
    """Writes a mask and returns its name."""
    save_image(path, np.repeat(np.float32(mask)[..., None], 3, -1))
    return str(path)


@pytest.mark.parametrize("method", ["filters", "paper"])
def test_masks_are_laid_over_the_photograph_and_sum_to_one(plan, tmp_path, method):
    # Larger than the photograph and of another shape; one of them is half as bright.
    left = np.float32(np.arange(64) < 32) * np.ones((64, 1))
    names = draw(tmp_path / "a.png", left), draw(tmp_path / "b.png", 0.5 * (1 - left))
    task = plan(
        "--style_image=coffee,brick", f"--style_masks={','.join(names)}", f"--method={method}"
    )
    (content, _, masks), margin = task.descent.images, MARGIN * (method == "filters")
    assert [mask.shape for mask in masks] == [content.shape[:2]] * 2
    np.testing.assert_allclose(masks[0] + masks[1], 1, atol=1e-6)
    # The edge is as wide as two pixels of the reduced mask.
    np.testing.assert_allclose(masks[0][:, : 15 + margin], 1, atol=1e-5)
    np.testing.assert_allclose(masks[0][:, 17 + margin :], 0, atol=1e-5)
    assert {"style_mask 1", "style_mask 2"} <= {*task.pictures}


def test_a_painting_takes_the_photographs_colours_before_it_is_compared(plan):
    plain, matched = plan("--style_image=coffee"), plan("--style_image=coffee", "--match_colors")
    (painted,) = matched.descent.images[1]
    photograph = matched.pictures["content_image"].image
    expected = rv.match_colors(plain.descent.images[1][0], photograph)
    np.testing.assert_allclose(painted, np.clip(expected, 0, 1), atol=1e-5)
    assert np.abs(painted - plain.descent.images[1][0]).mean() > 0.02


def test_tileable_reaches_the_task_and_is_not_the_papers(tmp_path, monkeypatch, capsys):
    tasks = []
    monkeypatch.setattr(pictures, "run_task", tasks.append)
    words = ["texture", "--texture_image=gravel", *SMALL, "--tileable", f"--out_dir={tmp_path}"]
    assert main([*words, "--output_size=32x20"]) == 0
    assert tasks[0].shape == (20, 32) and tasks[0].descent.task.wrap == 7
    assert tasks[0].descent.periodic
    assert tasks[0].schedule.sizes == (24, 32)
    assert main([*words, "--method=paper"]) == 2
    assert "--tileable belongs to --method=filters" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("masks", "more", "sentence"),
    [
        (["left"], [], "must be 2 pictures, one for each style image"),
        (["left", "right", "left"], [], "must be 2 pictures, one for each style image"),
        (["left", "left"], [], "are all black at row 1, column 17 of the photograph's 32×21"),
        (["white", "black"], [], "black.png is black everywhere"),
        (["left", "right"], ["--style_blend_weights=1,2"], "leave them or --style_masks out"),
    ],
)
def test_masks_that_do_not_fit_are_refused_in_a_sentence(tmp_path, capsys, masks, more, sentence):
    left = np.float32(np.arange(32) < 16) * np.ones((21, 1))
    drawn = {"left": left, "right": 1 - left, "white": left * 0 + 1, "black": left * 0}
    files = [draw(tmp_path / f"{name}.png", drawn[name]) for name in masks]
    words = ["style", "--content_image=chelsea", "--style_image=coffee,brick", *SMALL, *more]
    assert main([*words, f"--style_masks={','.join(files)}"]) == 2
    assert sentence in capsys.readouterr().err


SMALL = ["--image_size=32", "--scale_sizes=24,32", "--scale_steps=3,4"]


def test_the_commands_paint_by_default_and_say_so(tmp_path):
    words = ["style", "--content_image=chelsea", "--style_image=coffee,brick", "--image_size=32"]
    words += ["--scale_sizes=32", "--num_steps=7", "--original_colors", "--style_scale=1.5"]
    assert main([*words, f"--out_dir={tmp_path / 'style'}"]) == 0
    words = ["texture", "--texture_image=gravel", "--output_size=32x20", "--num_steps=7"]
    words += ["--image_size=32", "--scale_sizes=24,32"]
    assert main([*words, f"--out_dir={tmp_path / 'texture'}"]) == 0
    for name, shape in (("style", (21, 32, 3)), ("texture", (20, 32, 3))):
        record = json.loads((tmp_path / name / "run.json").read_text())
        assert record["settings"]["method"] == "filters" and len(record["losses"]) == 7
        assert record["network"]["num_filters"] == painting.FILTERS.num_filters
        assert load_image(tmp_path / name / "out.png").shape == shape
    pictures = json.loads((tmp_path / "style" / "run.json").read_text())["pictures"]
    assert pictures["content_image"]["size"] == "32x21"
    # From the file at once: a picture that was reduced before would have other pixels.
    assert pictures["style_image 1"] == load_picture("style_image", "coffee", 48).metadata


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--network=vgg16"], "--network belongs to the paper's method; add --method=paper"),
        (["--statistic=means"], "--statistic belongs"),
        (["--tv_weight=3"], "--tv_weight belongs"),
        (["--strength=1.5"], "strength"),
        (["--strength=0", "--init=noise"], "--strength=0 is the photograph itself"),
        (["--style_scale=0.4"], "coffee (600×400 pixels): at the first scale, an image of"),
        (["--style_scale=10", "--image_size=2000"], "makes the painting 20000 pixels long"),
    ],
)
def test_flags_that_do_not_fit_are_refused_in_a_sentence(tmp_path, capsys, flags, sentence):
    words = ["style", "--content_image=chelsea", "--style_image=coffee", *SMALL, *flags]
    assert main([*words, f"--out_dir={tmp_path / 'out'}"]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
