"""Manifests and predictions to evaluate, without any model."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from components.core.artifacts import (
    DatasetManifest,
    Epoch,
    MadeBy,
    ModelManifest,
    Parameters,
    Preprocessing,
    SplitInfo,
)

CLASSES = ["cat", "dog", "owl"]


def dataset_manifest(classes: list[str] = CLASSES, per_class: int = 20) -> DatasetManifest:
    """Return a manifest of as many pictures in each class, without shards."""
    shares = {"train": per_class * 3, "validation": per_class, "test": per_class}
    return DatasetManifest(
        digest="d" * 64,
        made_by=MadeBy(step="ingest", version="0", seconds=1.0),
        classes=classes,
        splits={
            split: SplitInfo(
                count=count * len(classes), by_class=dict.fromkeys(classes, count), shards=[]
            )
            for split, count in shares.items()
        },
        sources=["sample:digits"],
    )


@pytest.fixture
def dataset_of() -> Callable[..., DatasetManifest]:
    """A factory of dataset manifests."""
    return dataset_manifest


@pytest.fixture
def candidate_of() -> Callable[..., ModelManifest]:
    """A factory of manifests of complete candidates: strategy, validation accuracy and loss."""

    def build(strategy, accuracy, loss=0.5, **changes):
        history = [
            Epoch(phase=phase, epoch=epoch, loss=1 / epoch, accuracy=1 - 0.5 / epoch,
                  validation_loss=1.1 / epoch, validation_accuracy=accuracy - 0.1 / epoch,
                  seconds=0.5)
            for phase in ("head", strategy)[: 1 + (strategy != "head")]
            for epoch in range(1, 6)
        ]  # fmt: skip
        values = {
            "digest": f"{strategy}-{accuracy}",
            "made_by": MadeBy(step="fine_tune", version="0", seconds=1.0),
            "kind": "candidate",
            "strategy": strategy,
            "requested_strategy": strategy,
            "backbone": "tiny",
            "weights": "random",
            "weights_digest": "w" * 64,
            "preprocessing": Preprocessing(image_px=32, scaling="tiny"),
            "classes": CLASSES,
            "dataset_digest": "d" * 64,
            "cut": "block2",
            "head": {"kind": "gap"},
            "options": {"seed": 0},
            "parameters": Parameters(total=1000, trainable=100, frozen=900),
            "head_parameters": {"gap": 51, "flatten": 771},
            "history": history,
            "validation_accuracy": accuracy,
            "validation_loss": loss,
        }
        return ModelManifest(**(values | changes))

    return build
