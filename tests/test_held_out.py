"""Judges of textures: nothing for the same, more for less alike, whatever stands where."""

import jax
import numpy as np
import pytest

from randviz.experiments.held_out import (
    measure_contour_distance,
    measure_patch_distance,
    measure_texture_error,
)
from randviz.host.baselines import shuffle_tiles
from randviz.host.images import crop_square, load_image

GRAVEL, GRASS = (load_image(name, image_size=64) for name in ("gravel", "grass"))
JUDGES = pytest.mark.parametrize("judge", [measure_patch_distance, measure_texture_error])


@JUDGES
def test_a_texture_is_itself_and_another_is_not(judge):
    assert judge(GRAVEL, GRAVEL) == 0
    noise = np.asarray(jax.random.uniform(jax.random.key(0), GRAVEL.shape))
    assert 0 < judge(GRASS, GRAVEL) < judge(noise, GRAVEL)


@JUDGES
def test_another_part_of_the_texture_is_nearer_than_another_texture(judge):
    whole = load_image("gravel", image_size=128)
    assert judge(whole[64:, 64:], whole[:64, :64]) < judge(GRASS, whole[:64, :64])


def test_patches_do_not_notice_where_they_stand():
    """Rolled by whole patches' pixels of every size, only those over the seam are new."""
    rolled = np.roll(GRAVEL, 32, axis=0)
    other = load_image("gravel", image_size=128)[:64, 64:]
    assert measure_patch_distance(rolled, GRAVEL) < measure_patch_distance(other, GRAVEL) / 2


def test_values_beyond_white_count_as_white():
    assert measure_patch_distance(3 * np.ones_like(GRAVEL), GRAVEL) == measure_patch_distance(
        np.ones_like(GRAVEL), GRAVEL
    )


@pytest.mark.parametrize("name", ["brick", "coins"])
def test_contours_notice_what_breaks_them(name):
    """Tiles in another order break contours; finer tiles break more of them; noise has none."""
    source = np.asarray(crop_square(load_image(name, image_size=144)))[:96, :96]
    rolled = measure_contour_distance(np.roll(source, 31, axis=(0, 1)), source)
    shuffled = measure_contour_distance(shuffle_tiles(source), source)
    quarters = source.reshape(4, 24, 4, 24, 3).swapaxes(1, 2).reshape(16, 24, 24, 3)
    fine = np.stack([shuffle_tiles(tile) for tile in quarters])
    fine = fine.reshape(4, 4, 24, 24, 3).swapaxes(1, 2).reshape(96, 96, 3)
    noise = np.asarray(jax.random.uniform(jax.random.key(0), source.shape))
    finer, none = (measure_contour_distance(image, source) for image in (fine, noise))
    assert 0 < rolled < shuffled < finer < 1 and shuffled < none
    assert measure_contour_distance(source, source) == 0


def test_contours_have_no_contrast():
    """A paler picture has the same contours; of one without any, nothing is left."""
    paler = 0.3 + 0.5 * np.asarray(GRAVEL)
    assert measure_contour_distance(paler, GRAVEL) < 1e-5
    flat = np.full_like(GRAVEL, 0.5)
    assert measure_contour_distance(flat, GRAVEL) == pytest.approx(1)
    assert measure_contour_distance(GRAVEL, flat) == pytest.approx(1)
    assert measure_contour_distance(flat, flat) == 0


def test_no_tiles_that_touched_touch_in_another_order():
    image = np.arange(16.0).reshape(4, 4, 1) * np.ones(3)
    shuffled = shuffle_tiles(image)[..., 0]
    assert sorted(shuffled.ravel()) == list(range(16))

    def list_neighbours(numbers):
        across = zip(numbers[:, :-1].ravel(), numbers[:, 1:].ravel(), strict=True)
        down = zip(numbers[:-1].ravel(), numbers[1:].ravel(), strict=True)
        return {frozenset(pair) for pair in (*across, *down)}

    assert not list_neighbours(shuffled) & list_neighbours(image[..., 0])
    assert shuffle_tiles(np.zeros((11, 9, 3))).shape == (8, 8, 3)
