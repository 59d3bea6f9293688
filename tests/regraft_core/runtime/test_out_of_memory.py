"""A training step that runs out of memory ends with one line and a hint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tensorflow as tf

from components.extract_features.extract_features import extract_features
from components.fine_tune.fine_tune import fine_tune
from components.train_head.train_head import train_head
from regraft_core.formats.options import FeatureOptions, FineTuneOptions, HeadOptions
from regraft_core.runtime.errors import RegraftError

if TYPE_CHECKING:
    from tests.conftest import Trained

TINY = FeatureOptions(backbone="tiny")
STEPS: dict[str, Callable[[Path, Trained, Path], object]] = {
    "extract_features.extract_features._extract": lambda data, made, out: extract_features(
        data, out, TINY
    ),
    "train_head.train_head.solve_head": lambda data, made, out: train_head(
        [made.features], out, HeadOptions()
    ),
    "fine_tune.fine_tune.gather_evidence": lambda data, made, out: fine_tune(
        data, [made.features], made.head, out, FineTuneOptions(strategy="auto")
    ),
}


@pytest.mark.parametrize("function", STEPS)
@pytest.mark.parametrize(
    "error", [MemoryError(), tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")]
)
def test_the_hint_names_the_options_that_reduce_memory(
    function: str, error: Exception, dataset: Path, trained: Trained, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def exhaust_memory(*_: object) -> None:
        raise error

    monkeypatch.setattr(f"components.{function}", exhaust_memory)
    with pytest.raises(RegraftError, match="out of memory; use a smaller --batch-size or --image"):
        STEPS[function](dataset, trained, tmp_path / "out")
    assert not (tmp_path / "out").exists()
