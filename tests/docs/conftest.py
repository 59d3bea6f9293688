"""A folder as the pages assume it: images by class, single images, recipes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import skimage.data

PHOTOGRAPHS = Path(skimage.data.__file__).parent


@pytest.fixture
def desk(shapes: Path, tmp_path: Path) -> Path:
    """A folder with `images/` and the photographs that the pages name."""
    shutil.copytree(shapes, tmp_path / "images")
    shutil.copy(PHOTOGRAPHS / "chelsea.png", tmp_path / "cat.png")
    shutil.copy(PHOTOGRAPHS / "coffee.png", tmp_path / "coffee.png")
    return tmp_path
