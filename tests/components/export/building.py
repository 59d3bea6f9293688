"""Builds a small dataset, candidate and verdict like the steps before the export."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from regraft_core.backbones.backbone_table import find_backbone
from regraft_core.backbones.build import build_backbone
from regraft_core.backbones.cuts import join
from regraft_core.formats.manifest_storage import MadeBy, digest_file
from regraft_core.formats.manifests.dataset import DatasetManifest, Shard, SplitInfo
from regraft_core.formats.manifests.evaluation import Check, ClassMetrics, EvaluationManifest
from regraft_core.formats.manifests.model import ModelManifest, Preprocessing
from regraft_core.formats.records import ImageRecord, write_records
from regraft_core.images.preprocess import load_images, scale
from regraft_core.training.heads import build_head, pooling_layer, standardize
from regraft_core.training.model_files import count_parameters, save_model
from regraft_core.training.ood_detector import SCORE, fit_ood_detector

CLASSES = ["café", "cat", "dog"]
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
PX = 32
# Between the OOD scores of the images in the tests.
THRESHOLD = -1.1
# Between their probabilities, and between their confidences.
SET_PROBABILITY, ACCEPTED_CONFIDENCE = 0.32, 0.4
MADE = MadeBy(step="test", version="0", seconds=1.0)


@dataclass(frozen=True)
class Built:
    """Folders of dataset, candidate and verdict."""

    dataset: Path
    candidate: Path
    evaluation: Path


def encode(pixels: np.ndarray, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def image(seed: int, kind: str = "PNG") -> bytes:
    """Return an encoded image of random colored blocks, whose size depends on the seed."""
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return encode(blocks.repeat(9 + seed % 7, axis=0).repeat(8 + seed % 5, axis=1), kind)


def write_dataset(
    folder: Path, per_split: int = 9, draw: Callable[[int, str], bytes] = image
) -> Path:
    folder.mkdir(parents=True)
    splits = {}
    for number, split in enumerate(("train", "validation", "test")):
        records = [
            ImageRecord(
                encoded=draw(100 * number + i, FORMATS[i % len(FORMATS)]),
                label=i % len(CLASSES),
                id=f"{100 * number + i:064x}",
                path=f"{split}/{i}",
            )
            for i in range(per_split)
        ]
        name = f"{split}.tfrecord"
        write_records(folder / name, records)
        splits[split] = SplitInfo(
            count=per_split,
            by_class={name: per_split // len(CLASSES) for name in CLASSES},
            shards=[Shard(file=name, count=per_split, sha256=digest_file(folder / name))],
        )
    DatasetManifest(
        digest="d" * 64, made_by=MADE, classes=CLASSES, splits=splits, sources=["test"]
    ).write(folder)
    return folder


def write_candidate(folder: Path, backbone: str = "tiny", px: int = PX, seed: int = 1) -> Path:
    folder.mkdir(parents=True)
    row = find_backbone(backbone)
    part = build_backbone(row, px, "imagenet")
    head = build_head(row.width, len(CLASSES), seed)
    # Random statistics and weights, so that predictions differ between images.
    pixels = load_images(tf.constant([image(i) for i in range(20)]), px)
    maps = np.asarray(part(scale(pixels, row.scaling), training=False))
    pooled = maps.mean(axis=(1, 2))
    standardize(head, pooled.mean(axis=0), pooled.var(axis=0))
    random = np.random.default_rng(seed)
    weights = random.normal(size=(row.width, len(CLASSES)), scale=2 / row.width**0.5)
    head.get_layer("logits").set_weights([weights, np.zeros(len(CLASSES))])
    detector = fit_ood_detector(
        {"head_gap": row.width}, pooled, np.arange(20) % len(CLASSES), pooled[:9]
    )
    assert detector is not None
    model = join(part, [pooling_layer("gap"), *head.layers[1:]])
    ModelManifest(
        digest=save_model(model, folder),
        made_by=MADE,
        kind="candidate",
        strategy="head",
        requested_strategy="head",
        backbone=backbone,
        weights="imagenet",
        weights_digest="w" * 64,
        preprocessing=Preprocessing(image_px=px, scaling=row.scaling),
        classes=CLASSES,
        dataset_digest="d" * 64,
        cut=None,
        head={"pooling": "gap"},
        options={},
        parameters=count_parameters(model),
        head_parameters={},
        history=[],
        validation_accuracy=0.9,
        validation_loss=0.3,
        ood_detector=detector.write(folder),
    ).write(folder)
    keras.backend.clear_session()
    return folder


def write_evaluation(folder: Path, candidate: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True)
    values: dict[str, Any] = {
        "digest": "e" * 64,
        "made_by": MADE,
        "verdict": "accepted",
        "checks": [Check(name="accuracy", expected=">= 0.5", received="0.9", passed=True)],
        "strategy": "head",
        "model_digest": ModelManifest.read(candidate).digest,
        "dataset_digest": "d" * 64,
        "classes": CLASSES,
        "candidates": [],
        "metrics": {"test_accuracy": 0.9, "test_accuracy_low": 0.8, "test_accuracy_high": 0.95},
        "per_class": [
            ClassMetrics(
                name=name, support=3, precision=0.9, recall=0.9, f1=0.9,
                recall_low=0.5, recall_high=1.0,
            )
            for name in CLASSES
        ],
        "confusion": [[3, 0, 0], [0, 3, 0], [0, 0, 3]],
        "temperature": 1.7,
        "details": {
            "ood": {"score": SCORE, "threshold": THRESHOLD},
            "prediction_sets": {"threshold": SET_PROBABILITY},
            "abstention": {"threshold": ACCEPTED_CONFIDENCE},
        },
    }  # fmt: skip
    EvaluationManifest(**(values | changes)).write(folder)
    return folder


def build(folder: Path, **candidate: Any) -> Built:
    made = write_candidate(folder / "candidate", **candidate)
    return Built(
        dataset=write_dataset(folder / "dataset"),
        candidate=made,
        evaluation=write_evaluation(folder / "evaluation", made),
    )
