"""Distances between pictures, by hand."""

import numpy as np
import pytest

from randviz.host.quality import compare_images


def test_distance_and_psnr_by_hand():
    target = np.zeros((12, 16, 3))
    image = target.copy()
    image[..., 0], image[..., 1] = 3 / 255, 4 / 255
    found = compare_images(image, target)
    assert found["distance"] == pytest.approx(5)
    assert found["psnr"] == pytest.approx(10 * np.log10(255**2 / ((9 + 16) / 3)))
    assert found["ssim"] < 1


def test_equal_pictures_and_pictures_beyond_the_range():
    picture = np.random.default_rng(0).uniform(size=(12, 16, 3))
    same = compare_images(picture, picture)
    assert same == {"distance": 0, "psnr": float("inf"), "ssim": pytest.approx(1)}
    assert compare_images(np.full((12, 16, 3), 7.0), np.ones((12, 16, 3)))["distance"] == 0


def test_tiny_pictures_have_no_ssim():
    assert np.isnan(compare_images(np.zeros((4, 5, 3)), np.ones((4, 5, 3)))["ssim"])
