"""A made set of images with several labels: handwritten digits, pasted in pairs.

Each image shows two of scikit-learn's digits, or one, on a dark ground, and its labels are the
digits in it. Images are made from pages of 30 digits each, and a page is a group, so that no digit
is in two splits.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
from PIL import Image

DIGIT_PX, HEIGHT_PX, WIDTH_PX = 40, 64, 96
PAGE = 30
ONE_DIGIT = 0.2


def write_digit_pairs(folder: Path, images: int, seed: int = 0) -> Path:
    """Write images and a table of their labels into `folder`; return the table, in CSV."""
    from sklearn.datasets import load_digits

    folder.mkdir(parents=True, exist_ok=True)
    digits, rng = load_digits(), np.random.default_rng(seed)
    pages = np.array_split(rng.permutation(len(digits.target)), len(digits.target) // PAGE)
    table = folder / "digit_pairs.csv"
    with open(table, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("path", "label", "group"))
        for number in range(images):
            page = number % len(pages)
            shown = rng.choice(pages[page], 1 if rng.random() < ONE_DIGIT else 2, replace=False)
            _draw(digits.images[shown], rng).save(folder / f"{number:05d}.png")
            labels = sorted({str(digits.target[one]) for one in shown})
            writer.writerow((f"{number:05d}.png", json.dumps(labels), f"page-{page}"))
    return table


def _draw(shown: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """Return an image of digits [n, 8, 8] in 0..16, in random places of the left and right half."""
    image = Image.new("L", (WIDTH_PX, HEIGHT_PX))
    halves = rng.permutation(2)
    for half, pixels in zip(halves, shown, strict=False):
        digit = Image.fromarray(np.round(pixels * (255 / 16)).astype(np.uint8))
        digit = digit.resize((DIGIT_PX, DIGIT_PX), Image.Resampling.BICUBIC)
        left = half * WIDTH_PX // 2 + rng.integers(WIDTH_PX // 2 - DIGIT_PX + 1)
        image.paste(digit, (int(left), int(rng.integers(HEIGHT_PX - DIGIT_PX + 1))))
    return image
