"""The images of the accuracy benchmark, in class folders below `train` and `test`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Color photographs and textures that scikit-image contains.
PHOTOS = (
    "astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png",
    "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png",
    "motorcycle_left.png", "retina.jpg", "rocket.jpg",
)  # fmt: skip
# A photograph is cut into this many rows and columns; no two images overlap.
TILES = 8
# Larger tiles are made smaller, because no row has larger inputs.
LONGEST_PX = 96


def write_digits_row(folder: Path, seed: int) -> None:
    """Write scikit-learn's digits in class folders, which ingest splits."""
    from components.ingest.sources.samples import write_digits

    write_digits(folder)


def write_fashion_row(folder: Path, count: int, tests: int, seed: int) -> None:
    """Write `count` sampled training images and the first `tests` test images of Fashion-MNIST."""
    from components.ingest.sources.samples import write_fashion

    write_fashion(folder)
    train = sorted(folder.glob("train/*/*.png"), key=lambda path: path.name)
    order = np.random.default_rng(seed).permutation(len(train))
    for index in order[count:]:
        train[index].unlink()
    for path in folder.glob("test/*/*.png"):
        if int(path.stem) >= tests:
            path.unlink()


def write_photos(folder: Path, per_class: int, seed: int) -> None:
    """Write the tiles of each photograph: `per_class` sampled ones to train, the others to test."""
    import skimage.data

    source = Path(skimage.data.__file__).parent
    classes = ((Path(name).stem, list(_tiles(source / name))) for name in PHOTOS)
    for number, (name, tiles) in enumerate(classes):
        _write_class(folder, name, tiles, per_class, (seed, number))


def write_faces(folder: Path, per_class: int, seed: int) -> None:
    """Write scikit-image's 100 faces and 100 other patches, of 25 x 25 pixels."""
    import skimage.data

    patches = np.round(255 * skimage.data.lfw_subset()).astype(np.uint8)
    for number, name in enumerate(("face", "other")):
        images = list(map(Image.fromarray, patches[100 * number : 100 * (number + 1)]))
        _write_class(folder, name, images, per_class, (seed, number))


def _tiles(path: Path) -> Iterator[Image.Image]:
    """Yield the tiles of a photograph, row by row."""
    pixels: NDArray[np.uint8] = np.asarray(Image.open(path).convert("RGB"))
    height, width = pixels.shape[0] // TILES, pixels.shape[1] // TILES
    for row in range(TILES):
        for column in range(TILES):
            top, left = row * height, column * width
            tile = Image.fromarray(pixels[top : top + height, left : left + width])
            tile.thumbnail((LONGEST_PX, LONGEST_PX))
            yield tile


def _write_class(
    folder: Path, name: str, images: list[Image.Image], per_class: int, seed: tuple[int, int]
) -> None:
    order = np.random.default_rng(seed).permutation(len(images))
    for place, index in enumerate(order):
        target = folder / ("train" if place < per_class else "test") / name
        target.mkdir(parents=True, exist_ok=True)
        images[index].save(target / f"{index:03d}.png")
