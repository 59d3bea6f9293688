"""The images of the familiarity benchmark that are made here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.accuracy_images import PHOTOS
from benchmarks.familiarity import COUNT, MODELS, Sources


def test_the_images_of_other_kinds_are_written_once(tmp_path: Path) -> None:
    sources = Sources(tmp_path, None)
    noise, photos, blurred = sources.noise(), sources.photos(), sources.blurred()
    assert [len(list(one.glob("*.*"))) for one in (noise, photos)] == [COUNT, len(PHOTOS)]
    assert COUNT <= len(list(blurred.iterdir())) < COUNT + 100
    name = next(blurred.iterdir()).name
    sharp = tmp_path / "digits" / name.replace("-", "/", 1)
    steps = [np.abs(np.diff(np.asarray(Image.open(path)).astype(float))).mean()
             for path in (blurred / name, sharp)]  # fmt: skip
    assert steps[0] < steps[1]
    before = (noise / "000.png").stat().st_mtime_ns
    assert sources.noise() == noise and (noise / "000.png").stat().st_mtime_ns == before


def test_no_model_is_measured_with_its_own_images() -> None:
    assert all(own not in others and hasattr(Sources, own) for own, others in MODELS.values())
