"""The checks of single images, and of a check that describes the whole dataset."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from regraft_core.curation.image_quality import find_poor_images, measure_quality
from tests.reviewable_run import noise, png

GOOD = [measure_quality(png(noise(seed))) for seed in range(20)]
LEVELS = np.asarray(noise(99))
POOR = {
    "dark": Image.fromarray(LEVELS // 8),
    "bright": Image.fromarray(245 + LEVELS // 26),
    "blurred": noise(99).filter(ImageFilter.GaussianBlur(8)),
    "low information": Image.fromarray((LEVELS // 128 * 127).astype(np.uint8)).convert("1"),
    "odd aspect ratio": noise(99).resize((200, 64)),
    "odd size": noise(99).resize((1000, 1000), Image.Resampling.NEAREST),
}


@pytest.mark.parametrize("name", POOR)
def test_a_poor_image_is_found_among_good_ones(name: str) -> None:
    found = find_poor_images([*GOOD, measure_quality(png(POOR[name]))])
    assert (20, name) in [(one.image, one.check) for one in found]
    assert {one.image for one in found} == {20}


def test_a_check_that_many_images_fail_describes_the_dataset() -> None:
    dark = measure_quality(png(POOR["dark"]))
    assert find_poor_images([*GOOD, dark, dark]) != []
    assert find_poor_images([*GOOD, *[dark] * 5]) == []


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "LA", "I;16"])
def test_images_of_every_mode_are_measured(mode: str) -> None:
    gray = noise(1).convert("L")
    image = (
        Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
        if mode == "I;16"
        else gray.convert(mode)
    )
    measured, expected = measure_quality(png(image)), measure_quality(png(gray))
    assert measured.brightest == pytest.approx(expected.brightest, abs=0.05)
    assert np.abs(measured.thumbnail - expected.thumbnail).max() < 10


def test_transparent_pixels_are_white() -> None:
    image = noise(1).convert("RGBA")
    image.putalpha(0)
    assert measure_quality(png(image)).darkest == 1.0


def test_a_large_jpeg_has_its_own_size() -> None:
    buffer = io.BytesIO()
    noise(3).resize((1600, 1200)).save(buffer, "JPEG")
    measured = measure_quality(buffer.getvalue())
    assert (measured.width, measured.height) == (1600, 1200)
