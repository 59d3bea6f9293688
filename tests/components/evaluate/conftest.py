"""Manifests and predictions to evaluate, without any model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from components.evaluate.assessment import ChampionResult, Cost, LabeledLogits, assess
from components.evaluate.evaluation_manifest import build_manifest
from components.evaluate.gate.selection import choose
from components.evaluate.metrics.ood_score import OodScores
from components.evaluate.report.report_data import GalleryItem, ReliabilityBin, ReportData
from regraft_core.formats.manifest_storage import MadeBy
from regraft_core.formats.manifests.dataset import DatasetManifest, SplitInfo
from regraft_core.formats.manifests.model import Epoch, ModelManifest, Parameters, Preprocessing
from regraft_core.formats.options.evaluate import GateOptions

# One gray pixel.
TINY_PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)
CLASSES = ["cat", "dog", "owl"]


def dataset_manifest(classes: list[str] = CLASSES, per_class: int = 20) -> DatasetManifest:
    """Return a manifest of as many images in each class, without shards."""
    counts = {"train": per_class * 3, "validation": per_class, "test": per_class}
    return DatasetManifest(
        digest="d" * 64,
        made_by=MadeBy(step="ingest", version="0", seconds=1.0),
        classes=classes,
        splits={
            split: SplitInfo(
                count=count * len(classes), by_class=dict.fromkeys(classes, count), shards=[]
            )
            for split, count in counts.items()
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
            "head": {"pooling": "gap"},
            "options": {"seed": 0},
            "parameters": Parameters(total=1000, trainable=100, frozen=900),
            "head_parameters": {"gap": 51, "flatten": 771},
            "history": history,
            "validation_accuracy": accuracy,
            "validation_loss": loss,
        }
        return ModelManifest(**(values | changes))

    return build


@pytest.fixture
def report_of(candidate_of) -> Callable[..., ReportData]:
    """A factory of report data: predictions of ten classes from a known seed."""

    def build(margin=5.5, classes=10, images=360, gallery=6, champion=True, **options):
        rng = np.random.default_rng(7)
        names = [f"digit {k}" for k in range(classes)]

        def predict(count: int) -> LabeledLogits:
            true_labels = rng.integers(0, classes, count)
            logits = rng.normal(0, 1, (count, classes)) * 1.6
            logits[np.arange(count), true_labels] += margin
            return LabeledLogits(logits, true_labels)

        validation, test = predict(images), predict(images)
        gate = GateOptions(**options)
        assessment = assess(
            validation, test, names, gate,
            cost=Cost(model_mb=13.6, latency_ms=9.2, validation_accuracy=0.98,
                      head_validation_accuracy=0.95),
            champion=ChampionResult("digits version 3", rng.random(images) < 0.93)
            if champion else None,
            ood_scores=OodScores(rng.normal(0, 1, 360), rng.normal(0, 1, 360),
                                 rng.normal(-3, 1, 100)),
        )  # fmt: skip
        data = dataset_manifest(names, max(1, images // classes))
        gain = {"images": 200, "difference": -0.1, "standard_error": 0.02}
        models = [
            candidate_of(
                strategy, accuracy, loss, classes=names, digest=strategy * 16, measurements=measured
            )
            for strategy, accuracy, loss, measured in (
                ("head", 0.95, 0.5, {}),
                ("top", 0.98, 0.4, {"against_head": gain}),
            )
        ]
        evaluation = build_manifest(assessment, models, choose(models), data, None, 3.1)
        image = "data:image/png;base64," + TINY_PNG
        return ReportData(
            evaluation=evaluation,
            dataset=data,
            models=models,
            reliability_before=[ReliabilityBin(**asdict(b)) for b in assessment.reliability_before],
            reliability_after=[ReliabilityBin(**asdict(b)) for b in assessment.reliability_after],
            gallery=[
                GalleryItem(path=f"digits/{k}/{k:04}.png", true_label=names[k % classes],
                            label=names[(k + 1) % classes], confidence=0.9 - k / 50,
                            true_label_probability=0.05, image=image, overlay=image)
                for k in range(gallery)
            ],
            versions={"python": "3.13", "tensorflow": "2.21.0"},
            options=gate.model_dump(),
        )  # fmt: skip

    return build


@pytest.fixture
def publish(dataset, tmp_path):
    """Publish a model that predicts all test images correctly, or the first class for each."""
    import tensorflow as tf

    from regraft_core.formats.records import read_split

    class Published(tf.Module):
        """Predicts some images by their bytes."""

        def __init__(self, labels: dict[bytes, str], default: str) -> None:
            super().__init__()
            pairs = labels or {b"-": "-"}
            initial = tf.lookup.KeyValueTensorInitializer(list(pairs), list(pairs.values()))
            self.table = tf.lookup.StaticHashTable(initial, default)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
        def serve(self, image_bytes):
            return {"label": self.table.lookup(image_bytes)}

    data = DatasetManifest.read(dataset)

    def build(version: int, *, correct: bool, classes: list[str] | None = None) -> Path:
        folder = tmp_path / "models" / "shapes" / str(version)
        labels = {r.encoded: data.classes[r.label] for r in read_split(dataset, "test")}
        module = Published(labels if correct else {}, data.classes[0])
        tf.saved_model.save(module, str(folder), {"serving_default": module.serve})
        (folder / "assets").mkdir(exist_ok=True)
        names = classes or list(reversed(data.classes))
        (folder / "assets" / "labels.txt").write_text("\n".join(names) + "\n")
        return folder

    return build
