"""Strategy `auto`: chosen by the size of the dataset and its similarity to the pretraining data.

Similarity is measured by the features: images similar to the pretraining data are separated by
pretrained features far better than by those of the same backbone untrained.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from regraft_core.backbones.backbone_table import find_backbone
from regraft_core.backbones.build import build_backbone
from regraft_core.formats.manifests.model import ModelManifest, Preprocessing
from regraft_core.formats.options.option_types import HeadKind
from regraft_core.runtime.step_reports import ProgressReporter
from regraft_core.training.feature_store import FeatureRows
from regraft_core.training.heads import pooling_layer
from regraft_core.training.image_source import ImageRows, image_source

Resolved = Literal["head", "top", "full"]
# Minimum number of training images of the median class of a large dataset.
LARGE_CLASS = 500
# Fraction of the errors of untrained features that pretrained ones must avoid on similar images.
MIN_SIMILARITY = 0.5
NEIGHBORS = 5
# Images that go through the untrained backbone, each of which costs a forward pass.
SAMPLE = {"train": 512, "validation": 256}
UNTRAINED_SEED = 1


@dataclass(frozen=True)
class Evidence:
    """The input of `auto`; the scores are validation accuracies of nearest neighbors.

    `pretrained` and `untrained` are measured on the same sampled images.
    """

    per_class: float
    chance: float
    pretrained: float
    untrained: float
    sampled_train: int
    sampled_validation: int

    @property
    def similarity(self) -> float:
        """Fraction of the errors of chance and untrained features that pretrained ones avoid."""
        baseline = max(self.chance, self.untrained)
        return (self.pretrained - baseline) / (1.0 - baseline) if baseline < 1.0 else 0.0

    @property
    def large(self) -> bool:
        """Whether the classes are large enough to train many parameters."""
        return self.per_class >= LARGE_CLASS

    @property
    def similar(self) -> bool:
        """Whether the images are similar to the pretraining data."""
        return self.similarity >= MIN_SIMILARITY

    @property
    def strategy(self) -> Resolved:
        """The strategy by the table of size and similarity."""
        if self.large:
            return "top" if self.similar else "full"
        return "head" if self.similar else "top"

    def measurements(self) -> dict[str, Any]:
        """Return the measurements and conclusions, for the manifest."""
        return {**asdict(self), "similarity": self.similarity, "large": self.large,
                "similar": self.similar, "strategy": self.strategy}  # fmt: skip

    def sentences(self) -> list[str]:
        """Return the reasoning in sentences."""
        size = "large" if self.large else "small"
        similar = "similar to" if self.similar else "dissimilar from"
        reason = {
            "head": "few similar images: the pretrained features are suitable, and training more "
            "layers would overfit",
            "top": "many similar images: the late layers can be trained, the early ones are "
            "suitable"
            if self.similar
            else "few dissimilar images: the late layers must change, and there are too few images "
            "to train all layers",
            "full": "many dissimilar images: all layers must be trained, and can be",
        }[self.strategy]
        return [
            f"The median class has {self.per_class:.0f} training images; datasets with at least "
            f"{LARGE_CLASS} are large, so this one is {size}.",
            f"Nearest neighbors on {self.sampled_train} training and {self.sampled_validation} "
            f"validation images: accuracy {self.pretrained:.3f} with pretrained features, "
            f"{self.untrained:.3f} with the same backbone untrained, {self.chance:.3f} by chance.",
            f"Pretraining avoids {max(self.similarity, 0.0):.0%} of the errors without it; images "
            f"are similar from {MIN_SIMILARITY:.0%}, so these are {similar} the pretraining data.",
            f"Strategy {self.strategy} was chosen: {reason}.",
        ]


def gather_evidence(
    dataset: str | os.PathLike[str],
    features: Sequence[str | os.PathLike[str]],
    head: ModelManifest,
    seed: int,
) -> Evidence:
    """Measure size and similarity; the cached features are the pretrained ones."""
    kind: HeadKind = head.head["pooling"]
    untrained = _untrained_extractor(head, kind)
    pretrained_sets, untrained_sets = [], []
    labels: list[NDArray[np.int32]] = []
    per_class = 0.0
    for split in ("train", "validation"):
        cached, images = FeatureRows(features, split, kind), ImageRows(dataset, split)
        if split == "train":
            counts = np.bincount(images.labels, minlength=len(head.classes))
            per_class = float(np.median(counts))
        chosen = _sample(len(images), SAMPLE[split], seed)
        pretrained_sets.append(cached.rows(chosen).astype(np.float32))
        untrained_sets.append(_features(untrained, images, chosen, head.preprocessing))
        labels.append(images.labels[chosen])
    return Evidence(
        per_class=per_class,
        chance=float(np.bincount(labels[1]).max() / len(labels[1])),
        pretrained=neighbor_accuracy(pretrained_sets, labels),
        untrained=neighbor_accuracy(untrained_sets, labels),
        sampled_train=len(labels[0]),
        sampled_validation=len(labels[1]),
    )


def neighbor_accuracy(
    features: Sequence[NDArray[np.float32]], labels: Sequence[NDArray[np.int32]]
) -> float:
    """Return the validation accuracy of nearest neighbors in standardized features.

    `features` float32 [n, width] and `labels` int32 [n] are those of train and of validation.
    The labels of the five most similar rows (by cosine) vote, weighted by similarity.
    """
    train, validation = features
    train_labels, validation_labels = labels
    if not (np.isfinite(train).all() and np.isfinite(validation).all()):
        return 0.0
    mean, deviation = train.mean(axis=0), train.std(axis=0) + 1e-12
    train, validation = ((rows - mean) / deviation for rows in (train, validation))
    train /= np.linalg.norm(train, axis=1, keepdims=True) + 1e-12
    validation /= np.linalg.norm(validation, axis=1, keepdims=True) + 1e-12
    similarity = validation @ train.T
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :NEIGHBORS]
    votes = np.zeros((len(validation), int(train_labels.max()) + 1), np.float64)
    for column in nearest.T:
        rows = np.arange(len(validation))
        votes[rows, train_labels[column]] += 1.0 + similarity[rows, column]
    return float((votes.argmax(axis=1) == validation_labels).mean())


def _sample(count: int, limit: int, seed: int) -> NDArray[np.int64]:
    chosen = np.random.default_rng(seed).permutation(count)[:limit]
    return np.sort(chosen)


def _untrained_extractor(head: ModelManifest, kind: HeadKind) -> keras.Model:
    row = find_backbone(head.backbone, head.preprocessing.scaling)
    backbone = build_backbone(row, head.preprocessing.image_px, "random", seed=UNTRAINED_SEED)
    return keras.Model(backbone.input, pooling_layer(kind)(backbone.output))


def _features(
    model: keras.Model,
    images: ImageRows,
    chosen: NDArray[np.int64],
    preprocessing: Preprocessing,
    batch_size: int = 32,
) -> NDArray[np.float32]:
    """Return the features, float32 [n, width], of the images at the chosen indices."""
    source = image_source(images, preprocessing)

    @tf.function(input_signature=[source.spec])
    def run(inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        assert source.prepare is not None
        return model(source.prepare(inputs), training=False)

    starts = range(0, len(chosen), batch_size)
    progress = ProgressReporter("fine_tune: images without pretraining", len(chosen))
    features = []
    for first in starts:
        inputs = source.fetch(chosen[first : first + batch_size], 0)[0]
        features.append(run(tf.nest.map_structure(tf.constant, inputs)).numpy())
        progress.advance(len(features[-1]))
    return np.concatenate(features)
