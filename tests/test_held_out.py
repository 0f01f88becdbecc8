"""Judges of textures: nothing for the same, more for less alike, whatever stands where."""

import jax
import numpy as np
import pytest

from randviz.experiments.held_out import measure_patch_distance, measure_texture_error
from randviz.host.images import load_image

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
