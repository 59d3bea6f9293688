"""The made rows and images of the benchmark of scale are what its page says."""

from __future__ import annotations

import itertools
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.catalog_rows import synthetic_rows
from benchmarks.scale_catalog import run_here
from benchmarks.small_images import write_small_images


def test_a_hundredth_of_the_rows_are_copies_and_near_duplicates(tmp_path: Path) -> None:
    rows = list(synthetic_rows(10_500))
    assert len({row.id for row in rows}) == 10_500 - 105
    assert len({row.hash64 for row in rows}) == 10_500 - 105
    sizes = [len(list(group)) for _, group in itertools.groupby(rows, key=lambda row: row.key)]
    assert sizes.count(5) == 105
    costs = run_here("catalog", tmp_path, {"rows": 1_000})
    assert costs["disk"] > 1_000 * 1_024
    assert costs["peak_mb"] >= costs["before_mb"] > 0


def test_small_images_are_gray_png_with_their_class(tmp_path: Path) -> None:
    write_small_images(tmp_path / "images", 30)
    with tarfile.open(tmp_path / "images" / "images-0000.tar") as archive:
        members = {member.name: archive.extractfile(member) for member in archive}
        assert len(members) == 60
        pixels = []
        for number in (3, 13, 4):
            label, image = members[f"{number:08d}.cls"], members[f"{number:08d}.png"]
            assert label is not None and image is not None
            assert label.read() == b"%d" % (number % 10)
            pixels.append(np.asarray(Image.open(image), np.float64))
    assert pixels[0].shape == (28, 28)
    same, other = (np.abs(pixels[0] - one).mean() for one in pixels[1:])
    assert same < other
