"""Augmented views: the effect of each range, the strengths, and the seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from regraft_core.formats.options.extract_features import Strength
from regraft_core.images.augment import RANGES, Ranges, _changes, augment

IMAGES = 16
OPERATIONS = [name for name in Ranges.__dataclass_fields__ if name != "picked"]
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

    def build(
        pixels: NDArray[np.float32], *, flips: bool = False, **ranges: float
    ) -> NDArray[np.float32]:
        monkeypatch.setitem(RANGES, "light", Ranges(**ranges))  # type: ignore[arg-type]
        views: NDArray[np.float32] = augment(
            tf.constant(pixels), seeds(), "light", flips=flips
        ).numpy()
        return views

    return build


def test_ranges_of_zero_change_nothing(view: Callable[..., NDArray[np.float32]]) -> None:
    pixels = smooth_images()
    np.testing.assert_allclose(view(pixels), pixels, atol=ROUNDING)
    np.testing.assert_array_equal(augment(tf.constant(pixels), seeds(), "off"), pixels)


@pytest.mark.parametrize(
    "name", [name for name in OPERATIONS if name not in ("sharpness", "solarization")]
)
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
    for views in (view(pixels, flips=True), augment(tf.constant(pixels), seeds(), "flip").numpy()):
        kept, mirrored = (
            np.abs(views - others).max(axis=(1, 2, 3)) < ROUNDING
            for others in (pixels, pixels[:, :, ::-1])
        )
        assert (kept ^ mirrored).all()
        assert 0 < mirrored.sum() < IMAGES


@pytest.mark.parametrize("strength", ["light", "strong", "random"])
def test_without_flips_no_view_is_mirrored(strength: Strength) -> None:
    """With the same seeds, flips mirror some views, so that these differ."""
    pixels = tf.constant(smooth_images())
    views, some = (
        augment(pixels, seeds(), strength, flips=flips).numpy() for flips in (False, True)
    )
    mirrored = np.abs(views - some).max(axis=(1, 2, 3)) > 1
    assert 0 < mirrored.sum() < IMAGES
    left = np.arange(32) < 16
    bright_left = np.where(left[:, None], 200.0, 50.0) * np.ones((IMAGES, 24, 1, 3))
    views = augment(tf.constant(bright_left.astype(np.float32)), seeds(), strength).numpy()
    sides = views[:, 8:16, 2:10].mean(axis=(1, 2, 3)), views[:, 8:16, 22:30].mean(axis=(1, 2, 3))
    assert np.mean(sides[0] > sides[1]) > 0.8


def test_rotation_and_zoom_keep_the_center_and_translation_does_not(
    view: Callable[..., NDArray[np.float32]],
) -> None:
    """The image has a center pixel and is bright only around it."""
    pixels = np.zeros((IMAGES, 25, 25, 3), np.float32)
    pixels[:, 11:14, 11:14] = 200.0
    for name in ("rotation", "zoom", "shear"):
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


def test_saturation_keeps_gray_and_moves_colors_from_or_to_it(
    view: Callable[..., NDArray[np.float32]],
) -> None:
    colors = np.tile(np.array([150, 100, 80], np.float32), (IMAGES, 8, 8, 1))
    gray = np.full((IMAGES, 8, 8, 3), 90, np.float32)
    np.testing.assert_allclose(view(gray, saturation=0.8), gray, atol=ROUNDING)
    views = view(colors, saturation=0.8)
    luma = (views * [0.299, 0.587, 0.114]).sum(axis=3)
    np.testing.assert_allclose(luma, 150 * 0.299 + 100 * 0.587 + 80 * 0.114, atol=0.01)
    ranges = views.max(axis=3)[:, 0, 0] - views.min(axis=3)[:, 0, 0]
    assert ranges.min() < 60 and ranges.max() > 80


def test_sharpness_keeps_flat_parts_and_scales_edges(
    view: Callable[..., NDArray[np.float32]],
) -> None:
    pixels = np.full((IMAGES, 12, 12, 3), 80, np.float32)
    pixels[:, :, 6:] = 120.0
    views = view(pixels, sharpness=0.9)
    np.testing.assert_allclose(views[:, :, :5], 80.0, atol=ROUNDING)
    np.testing.assert_allclose(views[:, :, 7:], 120.0, atol=ROUNDING)
    edges = views[:, 6, 6, 0] - views[:, 6, 5, 0]
    assert edges.min() < 30 and edges.max() > 50


def test_solarization_inverts_only_what_is_bright(
    view: Callable[..., NDArray[np.float32]],
) -> None:
    ramp = np.linspace(0, 255, 64, dtype=np.float32)
    pixels = np.broadcast_to(ramp[None, None, :, None], (IMAGES, 8, 64, 3))
    views = view(np.ascontiguousarray(pixels), solarization=0.4)
    kept = np.abs(views - pixels) < ROUNDING
    assert (kept | (np.abs(views - (255 - pixels)) < ROUNDING)).all()
    assert kept[..., ramp < 255 * 0.6, :].all()
    inverted = (~kept[:, 0, :, 0]).sum(axis=1)
    assert inverted.max() > 12 > 4 > inverted.min()


def test_random_picks_two_operations_for_each_image() -> None:
    """All are picked at some time, in each pair."""
    count, random = 400, np.random.default_rng(0)
    amounts = _changes(tf.constant(random.uniform(-1, 1, (count, 2 * len(OPERATIONS))), tf.float32),
                       RANGES["random"])  # fmt: skip
    assert list(amounts) == OPERATIONS
    picked = np.stack([amount.numpy() != 0 for amount in amounts.values()], axis=1)
    assert (picked.sum(axis=1) == 2).all()
    pairs = picked.astype(int).T @ picked
    assert pairs.min() > 0
    for name, amount in amounts.items():
        width = getattr(RANGES["random"], name)
        assert 0.7 * width < np.abs(amount).max() <= width


def test_light_changes_less_than_strong() -> None:
    pixels = smooth_images()
    light, strong = (
        np.abs(augment(tf.constant(pixels), seeds(), strength).numpy() - pixels).mean()
        for strength in ("light", "strong")
    )
    assert 0.5 < light < 0.7 * strong


@pytest.mark.parametrize("strength", ["strong", "random"])
def test_a_seed_determines_the_view_in_any_batch(strength: Strength) -> None:
    pixels = tf.constant(smooth_images())
    views = augment(pixels, seeds(), strength).numpy()
    np.testing.assert_array_equal(augment(pixels, seeds(), strength), views)
    single = augment(pixels[3:4], seeds()[3:4], strength).numpy()
    np.testing.assert_allclose(single[0], views[3], atol=ROUNDING)
    others = np.abs(augment(pixels, seeds(1), strength).numpy() - views)
    assert (others.max(axis=(1, 2, 3)) > 0.1).all()


def test_different_seeds_give_different_views_of_an_image() -> None:
    pixels = tf.repeat(smooth_images()[:1], IMAGES, axis=0)
    views = augment(pixels, seeds(), "light").numpy()
    distances = np.abs(views[:, None] - views[None]).max(axis=(2, 3, 4))
    assert distances[~np.eye(IMAGES, dtype=bool)].min() > 0.1
