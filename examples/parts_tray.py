"""Makes images of a tray with any of four kinds of parts, and a table with all that are in each.

    python examples/parts_tray.py data/tray

FOLDER/tray.jsonl has a line for each image: its path, and its labels as a list, which is empty
for an empty tray. The same arguments always make the same images.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

SIDE_PX, CELL_PX = 96, 40
CORNERS = ((6, 6), (50, 6), (6, 50), (50, 50))
Shade = tuple[int, int, int]


def draw_nut(draw: ImageDraw.ImageDraw, x: int, y: int, shade: Shade) -> None:
    corners = [(x + 15 * math.cos(k * math.pi / 3), y + 15 * math.sin(k * math.pi / 3))
               for k in range(6)]  # fmt: skip
    draw.polygon(corners, fill=shade)
    draw.ellipse((x - 6, y - 6, x + 6, y + 6), fill=(40, 44, 52))


def draw_screw(draw: ImageDraw.ImageDraw, x: int, y: int, shade: Shade) -> None:
    draw.rectangle((x - 10, y - 15, x + 10, y - 8), fill=shade)
    draw.rectangle((x - 4, y - 8, x + 4, y + 15), fill=shade)
    for step in range(-4, 15, 4):
        draw.line((x - 4, y + step, x + 4, y + step + 3), fill=(40, 44, 52))


def draw_spring(draw: ImageDraw.ImageDraw, x: int, y: int, shade: Shade) -> None:
    bends = [(x + (12 if step % 2 else -12), y - 15 + 5 * step) for step in range(7)]
    draw.line(bends, fill=shade, width=3)


def draw_washer(draw: ImageDraw.ImageDraw, x: int, y: int, shade: Shade) -> None:
    draw.ellipse((x - 15, y - 15, x + 15, y + 15), outline=shade, width=6)


KINDS: dict[str, Callable[[ImageDraw.ImageDraw, int, int, Shade], None]] = {
    "nut": draw_nut, "screw": draw_screw, "spring": draw_spring, "washer": draw_washer,
}  # fmt: skip


def draw_tray(kinds: Sequence[str], rng: random.Random) -> Image.Image:
    """Draw a tray with one part of each kind, in any corner, on a noisy ground."""
    noise = Image.frombytes("L", (SIDE_PX, SIDE_PX), rng.randbytes(SIDE_PX * SIDE_PX))
    ground = Image.new("RGB", noise.size, (40, 44, 52))
    image = Image.blend(ground, noise.convert("RGB"), 0.12)
    draw = ImageDraw.Draw(image)
    corners = rng.sample(CORNERS, len(kinds))
    for kind, (left, top) in zip(kinds, corners, strict=True):
        x, y = (start + CELL_PX // 2 + rng.randrange(-4, 5) for start in (left, top))
        gray = rng.randrange(140, 230)
        KINDS[kind](draw, x, y, (gray, gray, gray + 10))
    return image


def write_tray(folder: Path, images: int) -> Path:
    """Write the images and their table; return the table."""
    folder.mkdir(parents=True)
    rng = random.Random(0)
    with open(folder / "tray.jsonl", "w", encoding="utf-8") as table:
        for number in range(images):
            kinds = [kind for kind in KINDS if rng.random() < 0.4]
            draw_tray(kinds, rng).save(folder / f"{number:04}.png")
            table.write(json.dumps({"path": f"{number:04}.png", "label": kinds}) + "\n")
    return folder / "tray.jsonl"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Make images of a tray with parts.")
    parser.add_argument("folder", type=Path, help="Folder to make.")
    parser.add_argument("--images", type=int, default=500, help="Number of images.")
    options = parser.parse_args(arguments)
    print(f"{write_tray(options.folder, options.images)}: {options.images} images")


if __name__ == "__main__":
    main()
