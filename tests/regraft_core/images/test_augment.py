"""Augmented views: the effect of each range, the strengths, and the seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from regraft_core.images.augment import RANGES, Ranges, Strength, augment

IMAGES = 16
NONE = Ranges(flip=False, rotation=0.0, zoom=0.0, translation=0.0, brightness=0.0, contrast=0.0)
# Of 255: subtracting the mean of an image and adding it again has rounding errors.
ROUNDING = 1e-3


def smooth_images() -> NDArray[np.float32]:
    """Return images without symmetries, whose values no brightness or contrast clips.

    Neighboring pixels differ little, so that a difference shows how far something moved.
    """
    y, x = np.mgrid[0:24, 0:32] / 24
    rng = np.random.default_rng(0)
    phases, slopes = rng.uniform(0, 6, (IMAGES, 1, 1, 3)), rng.uniform(1, 3, (IMAGES, 1, 1, 3))
    waves = np.sin(slopes * x[None, ..., None] * 2 + phases) + y[None, ..., None]
    return (110 + 12 * waves).astype(np.float32)


def seeds(seed: int = 0) -> NDArray[np.int32]:
    return np.stack([np.arange(IMAGES), np.full(IMAGES, seed)], axis=1).astype(np.int32)


@pytest.fixture
def view(monkeypatch: pytest.MonkeyPatch) -> Callable[..., NDArray[np.float32]]:
    """Return views of images with only the given ranges."""

    def build(pixels: NDArray[np.float32], **ranges: float) -> NDArray[np.float32]:
        monkeypatch.setitem(RANGES, "light", replace(NONE, **ranges))
        views: NDArray[np.float32] = augment(tf.constant(pixels), seeds(), "light").numpy()
        return views

    return build


def test_ranges_of_zero_change_nothing(view: Callable[..., NDArray[np.float32]]) -> None:
    pixels = smooth_images()
    np.testing.assert_allclose(view(pixels), pixels, atol=ROUNDING)
    np.testing.assert_array_equal(augment(tf.constant(pixels), seeds(), "off"), pixels)


@pytest.mark.parametrize("name", ["rotation", "zoom", "translation", "brightness", "contrast"])
def test_each_range_alone_changes_every_image_by_its_width(
    view: Callable[..., NDArray[np.float32]], name: str
) -> None:
    pixels = smooth_images()
    some, more = (np.abs(view(pixels, **{name: width}) - pixels) for width in (0.05, 0.2))
    assert (more.max(axis=(1, 2, 3)) > 10 * ROUNDING).all()
    assert more.mean() > 2 * some.mean() > 0


def test_a_flip_mirrors_some_images_and_keeps_the_others(
    view: Callable[..., NDArray[np.float32]],
) -> None:
    pixels = smooth_images()
    views = view(pixels, flip=True)
    kept, mirrored = (
        np.abs(views - others).max(axis=(1, 2, 3)) < ROUNDING
        for others in (pixels, pixels[:, :, ::-1])
    )
    assert (kept ^ mirrored).all()
    assert 0 < mirrored.sum() < IMAGES


def test_rotation_and_zoom_keep_the_center_and_translation_does_not(
    view: Callable[..., NDArray[np.float32]],
) -> None:
    """The image has a center pixel and is bright only around it."""
    pixels = np.zeros((IMAGES, 25, 25, 3), np.float32)
    pixels[:, 11:14, 11:14] = 200.0
    for name in ("rotation", "zoom"):
        np.testing.assert_allclose(view(pixels, **{name: 0.2})[:, 12, 12], 200.0, atol=ROUNDING)
    moved = view(pixels, translation=0.3)
    assert (moved[:, 12, 12] < 1).any()
    assert (moved.max(axis=(1, 2, 3)) > 100).all()


def test_brightness_shifts_the_mean_and_contrast_keeps_it(
    view: Callable[..., NDArray[np.float32]],
) -> None:
    pixels = smooth_images()
    shift = view(pixels, brightness=0.2) - pixels
    assert shift.std(axis=(1, 2, 3)).max() < ROUNDING
    shifts = shift.mean(axis=(1, 2, 3))
    assert shifts.min() < -10 and shifts.max() > 10 and np.abs(shifts).max() < 0.2 * 255
    contrasted = view(pixels, contrast=0.3)
    means = [values.mean(axis=(1, 2, 3)) for values in (contrasted, pixels)]
    np.testing.assert_allclose(*means, atol=0.01)
    ratios = contrasted.std(axis=(1, 2, 3)) / pixels.std(axis=(1, 2, 3))
    assert 0.7 < ratios.min() < 0.9 and 1.1 < ratios.max() < 1.3


@pytest.mark.parametrize("strength", [one for one in get_args(Strength) if one != "off"])
def test_values_stay_in_range(strength: Strength) -> None:
    """Also for black and white images, which brightness and contrast take beyond both ends."""
    rng = np.random.default_rng(0)
    pixels = rng.choice([0.0, 255.0], (IMAGES, 20, 20, 3)).astype(np.float32)
    views = augment(tf.constant(pixels), seeds(), strength).numpy()
    assert views.shape == pixels.shape and views.dtype == np.float32
    assert np.isfinite(views).all()
    assert (views.min(), views.max()) == (0.0, 255.0)


def test_light_changes_less_than_strong() -> None:
    """Without the flip, which both contain."""
    pixels = smooth_images()
    symmetric = (pixels + pixels[:, :, ::-1]) / 2
    light, strong = (
        np.abs(augment(tf.constant(symmetric), seeds(), strength).numpy() - symmetric).mean()
        for strength in get_args(Strength)[1:]
    )
    assert 0.5 < light < 0.7 * strong


def test_a_seed_determines_the_view_in_any_batch() -> None:
    pixels = tf.constant(smooth_images())
    views = augment(pixels, seeds(), "strong").numpy()
    np.testing.assert_array_equal(augment(pixels, seeds(), "strong"), views)
    single = augment(pixels[3:4], seeds()[3:4], "strong").numpy()
    np.testing.assert_allclose(single[0], views[3], atol=ROUNDING)
    others = np.abs(augment(pixels, seeds(1), "strong").numpy() - views)
    assert (others.max(axis=(1, 2, 3)) > 1).all()


def test_different_seeds_give_different_views_of_an_image() -> None:
    pixels = tf.repeat(smooth_images()[:1], IMAGES, axis=0)
    views = augment(pixels, seeds(), "light").numpy()
    distances = np.abs(views[:, None] - views[None]).max(axis=(2, 3, 4))
    assert distances[~np.eye(IMAGES, dtype=bool)].min() > 0.1
