"""Makes images of one inspection station: plates with four screws, seen by two cameras.

    python examples/inspection_scene.py data/plates
    python examples/inspection_scene.py data/plates-2 --stained 40

A plate is good (`ok`), has a `scratch`, or a screw is missing (`missing-screw`). With `--stained`,
so many more plates have a `stain`. Both cameras see each plate, so the two images are a group and
in one split, which does not change when plates are added. The light changes from day to day. The
same arguments always make the same images.

FOLDER/plates.csv has a row for each image: path, label, group (the plate), split, camera and date.
"""

from __future__ import annotations

import argparse
import csv
import random
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter

SIDE_PX, SCALE = 128, 2
"""Side of an image, and how many times larger it is drawn, so that edges are smooth."""
PLATE = (44, 52, 212, 204)
SCREWS = ((66, 74), (190, 74), (66, 182), (190, 182))
LABELS = ("ok", "ok", "scratch", "missing-screw")
DAYS = ("2026-03-02", "2026-03-03", "2026-03-04", "2026-03-05")
LIGHT = {"2026-03-02": 1.0, "2026-03-03": 0.9, "2026-03-04": 1.1, "2026-03-05": 0.8}
CAMERAS = ("left", "right")
SPLITS = ("train", "train", "train", "validation", "test")
COLUMNS = ("path", "label", "group", "split", "camera", "date")


def draw_plate(label: str, rng: random.Random) -> Image.Image:
    """Draw a plate on its belt, at the larger scale."""
    side = SIDE_PX * SCALE
    image = Image.new("RGB", (side, side), (62, 66, 70))
    draw = ImageDraw.Draw(image)
    for x in range(0, side, 16):
        draw.line((x, 0, x, side), fill=(54, 58, 62), width=3)
    draw.rectangle(PLATE, fill=(166, 168, 172))
    for y in range(PLATE[1], PLATE[3], 2):
        gray = rng.randrange(158, 176)
        draw.line((PLATE[0], y, PLATE[2], y), fill=(gray, gray + 2, gray + 5))
    missing = rng.randrange(len(SCREWS)) if label == "missing-screw" else None
    for number, center in enumerate(SCREWS):
        _draw_screw(draw, center, rng.random() < 0.5, is_missing=number == missing)
    if label == "scratch":
        _draw_scratch(draw, rng)
    return _stained(image, rng) if label == "stain" else image


def _draw_screw(
    draw: ImageDraw.ImageDraw, center: tuple[int, int], is_turned: bool, *, is_missing: bool
) -> None:
    x, y = center
    if is_missing:
        draw.ellipse((x - 8, y - 8, x + 8, y + 8), fill=(38, 38, 40))
        return
    draw.ellipse((x - 12, y - 12, x + 12, y + 12), fill=(120, 122, 126), outline=(84, 84, 88))
    slot = (x - 8, y, x + 8, y) if is_turned else (x, y - 8, x, y + 8)
    draw.line(slot, fill=(58, 58, 62), width=3)


def _draw_scratch(draw: ImageDraw.ImageDraw, rng: random.Random) -> None:
    x, y = rng.randrange(90, 140), rng.randrange(90, 150)
    right, down = rng.randrange(16, 40), rng.randrange(-30, 31)
    draw.line((x, y, x + right, y + down), fill=(214, 216, 220), width=2)
    draw.line((x, y + 2, x + right, y + down + 2), fill=(120, 122, 126), width=2)


def _stained(image: Image.Image, rng: random.Random) -> Image.Image:
    """Return the image with a soft dark spot on the plate."""
    x, y, radius = rng.randrange(96, 160), rng.randrange(96, 160), rng.randrange(12, 20)
    spot = Image.new("L", image.size)
    ImageDraw.Draw(spot).ellipse((x - radius, y - radius, x + radius, y + radius), fill=150)
    spot = spot.filter(ImageFilter.GaussianBlur(4))
    return Image.composite(Image.new("RGB", image.size, (92, 70, 48)), image, spot)


def photograph(plate: Image.Image, camera: str, day: str, rng: random.Random) -> Image.Image:
    """Return what a camera sees of a plate on a day: shifted, in that day's light, with noise."""
    shift = -5 if camera == "left" else 6
    seen = ImageChops.offset(plate, shift + rng.randrange(-3, 4), rng.randrange(-3, 4))
    seen = ImageEnhance.Brightness(seen).enhance(LIGHT[day] * rng.uniform(0.97, 1.03))
    if camera == "right":  # its lens is not quite in focus
        seen = seen.filter(ImageFilter.GaussianBlur(1.5))
    seen = seen.resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)
    noise = Image.frombytes("L", seen.size, rng.randbytes(SIDE_PX * SIDE_PX)).convert("RGB")
    return Image.blend(seen, noise, 0.05)


def write_scene(folder: Path, plates: int, stained: int) -> Path:
    """Write the images and their table; return the table."""
    folder.mkdir(parents=True)
    labels = [LABELS[number % len(LABELS)] for number in range(plates)] + ["stain"] * stained
    with open(folder / "plates.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for number, label in enumerate(labels):
            rng = random.Random(number)  # so that more plates do not change these
            plate, round_number = draw_plate(label, rng), number // len(LABELS)
            day, split = DAYS[round_number % len(DAYS)], SPLITS[round_number % len(SPLITS)]
            for camera in CAMERAS:
                name = f"{number:04}-{camera}.png"
                photograph(plate, camera, day, rng).save(folder / name)
                table.writerow((name, label, f"plate-{number:04}", split, camera, day))
    return folder / "plates.csv"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Make images of one inspection station.")
    parser.add_argument("folder", type=Path, help="Folder to make.")
    parser.add_argument("--plates", type=int, default=320, help="Number of plates without stains.")
    parser.add_argument("--stained", type=int, default=0, help="Number of plates with a stain.")
    options = parser.parse_args(arguments)
    table = write_scene(options.folder, options.plates, options.stained)
    print(f"{table}: {2 * (options.plates + options.stained)} images")


if __name__ == "__main__":
    main()
