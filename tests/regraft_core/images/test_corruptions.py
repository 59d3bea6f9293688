"""Corruptions: stronger ones change more, and a seed repeats them."""

from __future__ import annotations

import numpy as np
import pytest

from regraft_core.images.corruptions import CORRUPTIONS, STRENGTHS, corrupt

SIDE = 32


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """Smooth color gradients with an edge, which has details to lose."""
    ramp = np.linspace(40, 215, SIDE, dtype=np.float32)
    images = np.empty((6, SIDE, SIDE, 3), np.float32)
    images[...] = ramp[:, None, None]
    images[:, :, SIDE // 2 :, 0] = 20
    images[1::2] = images[1::2, ::-1]
    return images


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_stronger_corruptions_change_more_and_a_seed_repeats_them(
    pixels: np.ndarray, kind: str
) -> None:
    before = pixels.copy()
    found = [corrupt(pixels, kind, strength, seed=3) for strength in range(1, STRENGTHS + 1)]
    changes = [float(np.abs(one - before).mean()) for one in found]
    assert 0 < changes[0] < changes[1] < changes[2]
    for one in found:
        assert one.shape == pixels.shape and one.dtype == np.float32
        assert one.min() >= 0 and one.max() <= 255
    np.testing.assert_array_equal(pixels, before)
    np.testing.assert_array_equal(found[1], corrupt(pixels, kind, 2, seed=3))


def test_noise_differs_between_images_and_seeds(pixels: np.ndarray) -> None:
    same = np.repeat(pixels[:1], 2, axis=0)
    first = corrupt(same, "noise", 1, seed=0)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first, corrupt(same, "noise", 1, seed=1))


def test_occlusion_hides_its_fraction_of_the_area(pixels: np.ndarray) -> None:
    hidden = corrupt(pixels, "occlusion", 3, seed=0) == 127.5
    fractions = hidden.all(axis=3).mean(axis=(1, 2))
    np.testing.assert_allclose(fractions, 0.3, atol=0.03)


def test_brightness_goes_in_both_directions() -> None:
    gray = np.full((20, 4, 4, 3), 128, np.float32)
    changed = corrupt(gray, "brightness", 1, seed=0).mean(axis=(1, 2, 3)) - 128
    np.testing.assert_allclose(np.abs(changed), 25.5, atol=1e-3)
    assert len(set(np.sign(changed).tolist())) == 2


def test_blur_is_relative_to_the_side() -> None:
    """At twice the side, the same scene is blurred alike."""
    small = np.zeros((1, 200, 200, 3), np.float32)
    small[:, :, 100:] = 255
    large = small.repeat(2, axis=1).repeat(2, axis=2)
    one, two = (corrupt(image, "blur", 3, seed=0)[0, 0, :, 0] for image in (small, large))
    np.testing.assert_allclose(two.reshape(-1, 2).mean(axis=1), one, atol=6)
