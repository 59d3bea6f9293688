from __future__ import annotations

from pathlib import Path

import pytest

from components.evaluate.evaluate import evaluate
from regraft_core.formats.options.evaluate import GateOptions
from tests.conftest import Trained


@pytest.fixture(scope="session")
def evaluation(dataset: Path, trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation that the gate rejected for its accuracy."""
    out = tmp_path_factory.mktemp("rejected") / "evaluation"
    options = GateOptions(min_accuracy=0.9999, baseline_rule="off")
    evaluate([trained.candidates["head"]], dataset, out, options)
    return out
