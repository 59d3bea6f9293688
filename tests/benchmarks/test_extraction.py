"""The benchmark of extraction on a few small photographs."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.extraction import Photos, measure_photos


@pytest.mark.long
def test_extraction_is_compared_with_decoding_and_the_engine(tmp_path: Path) -> None:
    photos = Photos(96, 64, count=64, few=40, backbone="tiny", image_px=32)
    found = {name: metric.value for name, metric in measure_photos(tmp_path, photos, 1).items()}
    seconds = 1 / found["decode_speed"] + 1 / found["forward_speed"]
    assert found["limit"] == pytest.approx(1 / seconds)
    assert found["ratio_to_limit"] == pytest.approx(found["extraction_speed"] / found["limit"])
