"""The precision of a long extraction on a CPU: measured, agreed, kept."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from components.extract_features import precision_race
from components.extract_features.extract_features import extract_features
from components.extract_features.precision_race import Forward, Work, faster_precision
from regraft_core.formats.options import FeatureOptions
from regraft_core.training.mixed_precision import HalfPrecision

LONG = Work(("a network",), images=1_000_000, image_px=64, batch_size=2)


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of results, not the user's own."""
    path = tmp_path / "cache" / "precision.json"
    monkeypatch.setattr(precision_race, "KEPT_FILE", path)
    return path


class Clock:
    """A clock that only forward passes advance, in place of the module `time`."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


CLOCK = Clock()


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision_race, "time", CLOCK)


class Engine:
    """Forward passes that take a given time in each precision, and differ by `error`."""

    def __init__(self, float32_s: float, bfloat16_s: float, error: float = 0.0) -> None:
        self._seconds = {"": float32_s, "bfloat16": bfloat16_s}
        self._features = {"": np.ones((2, 3)), "bfloat16": np.full((2, 3), 1 + error)}
        self.prepared: list[HalfPrecision] = []

    def prepare(self, half: HalfPrecision) -> Forward:
        self.prepared.append(half)

        def forward() -> NDArray[np.float32]:
            CLOCK.now += self._seconds[half]
            return self._features[half].astype(np.float32)

        return forward


@pytest.mark.parametrize(
    ("engine", "chosen"),
    [
        (Engine(0.1, 0.01), "bfloat16"),
        (Engine(0.01, 0.1), ""),
        (Engine(0.1, 0.0999), ""),  # not faster by a tenth
        (Engine(0.1, 0.01, error=0.005), "bfloat16"),
        (Engine(0.1, 0.01, error=0.02), ""),
        (Engine(0.1, 0.01, error=np.nan), ""),
    ],
)
def test_bfloat16_must_be_faster_and_agree(
    engine: Engine, chosen: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert faster_precision(LONG, engine.prepare) == chosen
    assert f"{chosen or 'float32'} is used" in capsys.readouterr().out
    assert engine.prepared == ["", "bfloat16"]


def test_a_result_is_kept_for_the_same_work(kept: Path) -> None:
    engine = Engine(0.02, 0.002)
    assert faster_precision(LONG, engine.prepare) == "bfloat16"
    more = Work(LONG.network, LONG.images + 1, LONG.image_px, LONG.batch_size)
    slower = Engine(0.002, 0.02)
    assert faster_precision(more, slower.prepare) == "bfloat16"
    assert slower.prepared == []
    other = Work(("another",), LONG.images, LONG.image_px, LONG.batch_size)
    assert faster_precision(other, slower.prepare) == ""
    assert sorted(json.loads(kept.read_text()).values()) == ["", "bfloat16"]


@pytest.mark.parametrize("content", [b"", b"\xff", b"[" * 100_000, b"[1]", b'{"a": 3}'])
def test_a_damaged_file_of_results_is_replaced(kept: Path, content: bytes) -> None:
    kept.parent.mkdir()
    kept.write_bytes(content)
    assert faster_precision(LONG, Engine(0.02, 0.002).prepare) == "bfloat16"
    assert "bfloat16" in json.loads(kept.read_text()).values()


@pytest.mark.parametrize(
    ("work", "prepared"),
    [
        (Work(("a",), images=400, image_px=224, batch_size=2), []),
        (Work(("a",), images=1000, image_px=224, batch_size=2), [""]),  # 5 seconds
    ],
)
def test_short_work_stays_in_float32(work: Work, prepared: list[str], kept: Path) -> None:
    engine = Engine(0.01, 0.001)
    assert faster_precision(work, engine.prepare) == ""
    assert engine.prepared == prepared
    assert not kept.exists()


def test_a_home_that_cannot_be_written_changes_nothing(kept: Path) -> None:
    kept.parent.write_text("not a folder")
    assert faster_precision(LONG, Engine(0.02, 0.002).prepare) == "bfloat16"


@pytest.mark.parametrize("shard_count", [1, 2])
def test_an_extraction_measures_unless_there_are_several_workers(
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    shard_count: int,
) -> None:
    monkeypatch.setattr(precision_race, "time", time)
    monkeypatch.setattr(precision_race, "LEAST_PIXELS", 0)
    monkeypatch.setattr(precision_race, "LEAST_S", 0.0)
    monkeypatch.setattr(precision_race, "LEAST_GAIN", 1e-9)
    options = FeatureOptions(backbone="tiny", batch_size=4)
    made = extract_features(dataset, tmp_path / "features", options, 0, shard_count)
    measured = "bfloat16 is used" in capsys.readouterr().out
    assert measured is (shard_count == 1)
    assert made.precision == ("bfloat16" if measured else "float32")
