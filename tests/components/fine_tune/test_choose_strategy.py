"""`auto`: the table of size and similarity, its measurements and its reasoning."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from components.evaluate.evaluate import evaluate
from components.fine_tune.choose_strategy import LARGE_CLASS, Evidence, neighbor_accuracy
from components.fine_tune.fine_tune import fine_tune
from regraft_core.formats.manifests.evaluation import EvaluationManifest
from regraft_core.formats.manifests.model import ModelManifest
from regraft_core.formats.options.evaluate import GateOptions
from regraft_core.formats.options.fine_tune import FineTuneOptions
from regraft_core.training.model_files import load_model

if TYPE_CHECKING:
    from tests.conftest import Trained

EVIDENCE = Evidence(per_class=100, chance=0.1, pretrained=0.9, untrained=0.3,
                    sampled_train=512, sampled_validation=256)  # fmt: skip


@pytest.mark.parametrize(
    ("per_class", "pretrained", "untrained", "expected"),
    [
        (LARGE_CLASS, 0.9, 0.3, "top"),
        (LARGE_CLASS, 0.4, 0.3, "full"),
        (LARGE_CLASS - 1, 0.9, 0.3, "head"),
        (LARGE_CLASS - 1, 0.4, 0.3, "top"),
        (100, 0.97, 0.96, "top"),
        (100, 1.0, 1.0, "top"),
        (100, 0.05, 0.0, "top"),
        (100, 0.65, 0.3, "head"),
    ],
)
def test_the_table(per_class: float, pretrained: float, untrained: float, expected: str) -> None:
    evidence = dataclasses.replace(
        EVIDENCE, per_class=per_class, pretrained=pretrained, untrained=untrained
    )
    assert evidence.strategy == evidence.measurements()["strategy"] == expected
    assert f"Strategy {expected} was chosen" in evidence.sentences()[-1]


def test_neighbors_are_as_accurate_as_the_features_allow() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 300).astype(np.int32)
    noise = rng.normal(0, 1, (300, 8)).astype(np.float32)
    separable = noise + 8 * np.eye(4, 8, dtype=np.float32)[labels]
    split = (labels[:200], labels[200:])
    assert neighbor_accuracy((separable[:200], separable[200:]), split) > 0.95
    assert neighbor_accuracy((noise[:200], noise[200:]), split) < 0.5
    assert neighbor_accuracy((noise[:200] * np.nan, noise[200:]), split) == 0.0


@pytest.fixture(scope="module")
def chosen(dataset: Path, trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("auto") / "candidate"
    options = FineTuneOptions(strategy="auto", fine_tune_epochs=2, learning_rate=1e-3)
    fine_tune(dataset, [trained.features], trained.head, out, options)
    return out


def test_auto_measures_and_explains(trained: Trained, chosen: Path) -> None:
    """The tiny backbone is untrained, so its features cannot be better than untrained ones."""
    manifest = ModelManifest.read(chosen)
    measured = manifest.measurements["auto"]
    assert (manifest.requested_strategy, manifest.strategy) == ("auto", "top")
    assert measured["sampled_train"] > measured["sampled_validation"] > 0
    assert 0.0 < measured["chance"] < 0.5
    assert not measured["similar"]
    assert set(manifest.measurements["batch_norm"]) == {"frozen", "adapt"}
    losses = [one["validation_loss"] for one in manifest.measurements["batch_norm"].values()]
    assert manifest.validation_loss == min(losses)
    assert manifest.options["batch_norm"] in ("frozen", "adapt")
    assert "Strategy top was chosen" in " ".join(manifest.reasoning)
    model, _ = load_model(chosen)
    assert model.output_shape == (None, len(manifest.classes))


def test_two_candidates_of_one_strategy_are_compared(
    dataset: Path, trained: Trained, chosen: Path, tmp_path: Path
) -> None:
    candidates = [trained.candidates["top"], chosen]
    evaluate(candidates, dataset, tmp_path / "evaluation", GateOptions())
    result = EvaluationManifest.read(tmp_path / "evaluation")
    assert [candidate.strategy for candidate in result.candidates] == ["top", "top"]
    assert sum(candidate.chosen for candidate in result.candidates) == 1
