"""Images that show little: dark, bright, blurred, of little information, or of an odd size.

The checks and most limits are those of CleanVision (https://github.com/cleanlab/cleanvision). A
check that more than a tenth of the images fail describes the dataset, not its images, and is not
reported.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.Image import Resampling

THUMBNAIL_PX = 32
MEASURED_PX = 256
# Sharpness is measured at a smaller size, at which noise does not hide blur.
SHARPNESS_PX = 64
MAX_PREVALENCE = 0.1


class ImageMeasures(NamedTuple):
    """What is measured of one image.

    Attributes:
        darkest, brightest: 5th and 99th percentile of the gray levels, 0..1.
        entropy: Of the gray levels, in bits.
        sharpness: Variance of the Laplacian of the gray levels 0..255.
        width, height: In pixels, as stored.
        thumbnail: Gray levels float32 [1024] of 32 x 32 pixels, 0..255.
    """

    darkest: float
    brightest: float
    entropy: float
    sharpness: float
    width: int
    height: int
    thumbnail: NDArray[np.float32]


@dataclass(frozen=True)
class QualityCheck:
    """A check: its name, its value and the limit above which an image fails, in words too."""

    name: str
    value: Callable[[ImageMeasures], float]
    limit: float
    text: Callable[[ImageMeasures], str]


CHECKS: tuple[QualityCheck, ...] = (
    QualityCheck("dark", lambda m: 1 - m.brightest, 1 - 0.32,
                 lambda m: f"99% of the pixels are below {m.brightest:.0%} brightness"),
    QualityCheck("bright", lambda m: m.darkest, 0.95,
                 lambda m: f"95% of the pixels are above {m.darkest:.0%} brightness"),
    QualityCheck("blurred", lambda m: -m.sharpness, -34.0,
                 lambda m: f"variance of the Laplacian {m.sharpness:.1f}, below 34"),
    QualityCheck("low information", lambda m: -m.entropy, -3.0,
                 lambda m: f"entropy of the gray levels {m.entropy:.1f} bits, below 3"),
    QualityCheck("odd aspect ratio", lambda m: -min(m.width / m.height, m.height / m.width), -0.35,
                 lambda m: f"{m.width} x {m.height} px"),
)  # fmt: skip
ODD_SIZE, SIZE_RATIO = "odd size", 10.0


class QualityFinding(NamedTuple):
    """An image that fails a check: its index, the name of the check, and what was measured."""

    image: int
    check: str
    text: str


def measure_quality(encoded: bytes) -> ImageMeasures:
    """Measure a stored image, which ingest has decoded before.

    Args:
        encoded: JPEG, PNG, BMP or WebP.
    """
    with Image.open(io.BytesIO(encoded)) as image:
        width, height = image.size
        image.draft("L", (MEASURED_PX, MEASURED_PX))
        gray = _gray(image)
    gray.thumbnail((MEASURED_PX, MEASURED_PX), Resampling.BOX)
    levels = np.asarray(gray)
    darkest, brightest = np.percentile(levels, (5, 99)) / 255
    frequencies = np.bincount(levels.ravel(), minlength=256) / levels.size
    present = frequencies[frequencies > 0]
    tiny = gray.resize((THUMBNAIL_PX, THUMBNAIL_PX), Resampling.BOX)
    gray.thumbnail((SHARPNESS_PX, SHARPNESS_PX), Resampling.BOX)
    return ImageMeasures(
        float(darkest), float(brightest), float(-(present * np.log2(present)).sum()),
        _laplacian_variance(np.asarray(gray, np.float32)), width, height,
        np.asarray(tiny, np.float32).ravel(),
    )  # fmt: skip


def find_poor_images(measures: Sequence[ImageMeasures]) -> list[QualityFinding]:
    """Return the images that fail a check, check after check, the worst first."""
    side = np.array([np.sqrt(one.width * one.height) for one in measures])
    ratio = np.exp(np.abs(np.log(side / np.median(side))))
    checks = [(check.name, np.array([check.value(one) for one in measures]), check.limit)
              for check in CHECKS]  # fmt: skip
    texts = {check.name: check.text for check in CHECKS}
    texts[ODD_SIZE] = lambda m: f"{m.width} x {m.height} px, median side {np.median(side):.0f} px"
    found = []
    for name, values, limit in [*checks, (ODD_SIZE, ratio, SIZE_RATIO)]:
        failing = np.flatnonzero(values > limit)
        if len(failing) <= MAX_PREVALENCE * len(measures):
            worst = failing[np.argsort(-values[failing], kind="stable")]
            found += [QualityFinding(int(k), name, texts[name](measures[k])) for k in worst]
    return found


def _gray(image: Image.Image) -> Image.Image:
    """Return an image as 8-bit gray levels, over white, as models read it."""
    if image.mode.startswith("I"):  # 16 bits, of which the upper 8 are used
        return image.point(lambda level: level / 256).convert("L")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image.convert("RGBA")).convert("L")
    return image.convert("L")


def _laplacian_variance(gray: NDArray[np.float32]) -> float:
    """Return the variance of the difference of pixels from the mean of their four neighbors."""
    if min(gray.shape) < 3:
        return 0.0
    inner = gray[1:-1, 1:-1]
    around = gray[:-2, 1:-1] + gray[2:, 1:-1] + gray[1:-1, :-2] + gray[1:-1, 2:]
    return float((around - 4 * inner).var())
