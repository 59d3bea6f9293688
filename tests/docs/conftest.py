"""A folder with the files that the pages assume: images by class, and two photographs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import skimage.data

PHOTOGRAPHS = Path(skimage.data.__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-docs", action="store_true", help="write the outputs into the pages")


@pytest.fixture
def desk(shapes: Path, tmp_path: Path) -> Path:
    """A folder with `images/` and the photographs that the pages name."""
    shutil.copytree(shapes, tmp_path / "images")
    shutil.copy(PHOTOGRAPHS / "chelsea.png", tmp_path / "cat.png")
    shutil.copy(PHOTOGRAPHS / "coffee.png", tmp_path / "coffee.png")
    return tmp_path
