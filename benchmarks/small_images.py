"""Many small images of noise, in tar files as WebDataset has them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

IMAGE_PX, CLASSES, NOISE = 28, 10, 40
SHARD_IMAGES = 10_000


def write_small_images(folder: Path, count: int, seed: int = 0) -> None:
    """Write `count` gray PNG of 28 px: the pattern of one of 10 classes, with noise."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    patterns = random.integers(0, 256, (CLASSES, IMAGE_PX, IMAGE_PX))
    for shard, start in enumerate(range(0, count, SHARD_IMAGES)):
        with tarfile.open(folder / f"images-{shard:04d}.tar", "w") as archive:
            for number in range(start, min(start + SHARD_IMAGES, count)):
                label = number % CLASSES
                noise = random.normal(0, NOISE, (IMAGE_PX, IMAGE_PX))
                pixels = np.clip(patterns[label] + noise, 0, 255).astype(np.uint8)
                image = io.BytesIO()
                Image.fromarray(pixels).save(image, "png", compress_level=1)
                for kind, data in (("png", image.getvalue()), ("cls", b"%d" % label)):
                    member = tarfile.TarInfo(f"{number:08d}.{kind}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
