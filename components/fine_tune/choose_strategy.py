"""Strategy `auto`: chosen by the size of the dataset and its likeness to the backbone's own data.

Likeness is told by the features: images that resemble what a backbone learned from are told
apart by its pretrained features far better than by those of the same backbone untrained.
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

from regraft_core.backbones.build import build_backbone
from regraft_core.backbones.table import find_backbone
from regraft_core.formats.manifests import ModelManifest, Preprocessing
from regraft_core.formats.options import HeadKind
from regraft_core.training.feature_store import FeatureRows
from regraft_core.training.heads import pooling_layer
from regraft_core.training.image_source import ImageRows, image_source

Resolved = Literal["head", "top", "full"]
# Training images of the median class from which on a dataset counts as large.
LARGE_CLASS = 500
# Share of the untrained features' mistakes that pretrained ones must avoid to count as similar.
SIMILAR_SHARE = 0.5
NEIGHBOURS = 5
# Images that go through the untrained backbone: it costs a forward pass each.
SAMPLE = {"train": 512, "validation": 256}
UNTRAINED_SEED = 1


@dataclass(frozen=True)
class Evidence:
    """What `auto` looks at; the scores are accuracies of nearest neighbors on validation.

    `pretrained` and `untrained` are measured on the same sampled images.
    """

    per_class: float
    chance: float
    pretrained: float
    untrained: float
    sampled_train: int
    sampled_validation: int

    @property
    def likeness(self) -> float:
        """Share of the mistakes of chance and of untrained features that pretrained ones avoid."""
        floor = max(self.chance, self.untrained)
        return (self.pretrained - floor) / (1.0 - floor) if floor < 1.0 else 0.0

    @property
    def large(self) -> bool:
        """Whether the classes are large enough to train many weights."""
        return self.per_class >= LARGE_CLASS

    @property
    def similar(self) -> bool:
        """Whether the images are like those that the backbone learned from."""
        return self.likeness >= SIMILAR_SHARE

    @property
    def strategy(self) -> Resolved:
        """The strategy by the table of size and likeness."""
        if self.large:
            return "top" if self.similar else "full"
        return "head" if self.similar else "top"

    def figures(self) -> dict[str, Any]:
        """Return what was measured and concluded, for the manifest."""
        return {**asdict(self), "likeness": self.likeness, "large": self.large,
                "similar": self.similar, "strategy": self.strategy}  # fmt: skip

    def sentences(self) -> list[str]:
        """Return the reasoning in plain sentences."""
        size = "large" if self.large else "small"
        like = "similar to" if self.similar else "unlike"
        why = {
            "head": "few similar images: the pretrained features fit, and more training would "
            "rather overfit",
            "top": "many similar images: the late layers can be fitted to them, the early ones "
            "fit already"
            if self.similar
            else "few images of another kind: the late layers must change, and there are too "
            "few images to train all",
            "full": "many images of another kind: all layers must and can be fitted to them",
        }[self.strategy]
        return [
            f"The median class has {self.per_class:.0f} training images; from {LARGE_CLASS} on a "
            f"set counts as large, so this one is {size}.",
            f"Nearest neighbors on {self.sampled_train} training and {self.sampled_validation} "
            f"validation images: {self.pretrained:.3f} right by pretrained features, "
            f"{self.untrained:.3f} by the same backbone untrained, {self.chance:.3f} by chance.",
            f"Pretraining avoids {max(self.likeness, 0.0):.0%} of the mistakes that are left "
            f"without it; from {SIMILAR_SHARE:.0%} on images count as similar, so these are "
            f"{like} the backbone's own.",
            f"Strategy {self.strategy} was chosen: {why}.",
        ]


def gather_evidence(
    dataset: str | os.PathLike[str],
    features: Sequence[str | os.PathLike[str]],
    head: ModelManifest,
    seed: int,
) -> Evidence:
    """Measure size and likeness; the cached features serve as the pretrained ones."""
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
    """Return the accuracy on validation of the nearest neighbors in standardized features.

    `features` float32 [n, width] and `labels` int32 [n] are those of train and of validation.
    The labels of the five most similar rows (by cosine) vote, each by its similarity.
    """
    train, validation = features
    train_labels, validation_labels = labels
    if not (np.isfinite(train).all() and np.isfinite(validation).all()):
        return 0.0
    mean, spread = train.mean(axis=0), train.std(axis=0) + 1e-12
    near, far = ((rows - mean) / spread for rows in (train, validation))
    near /= np.linalg.norm(near, axis=1, keepdims=True) + 1e-12
    far /= np.linalg.norm(far, axis=1, keepdims=True) + 1e-12
    similarity = far @ near.T
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :NEIGHBOURS]
    votes = np.zeros((len(far), int(train_labels.max()) + 1), np.float64)
    for column in nearest.T:
        rows = np.arange(len(far))
        votes[rows, train_labels[column]] += 1.0 + similarity[rows, column]
    return float((votes.argmax(axis=1) == validation_labels).mean())


def _sample(count: int, most: int, seed: int) -> NDArray[np.int64]:
    chosen = np.random.default_rng(seed).permutation(count)[:most]
    return np.sort(chosen)


def _untrained_extractor(head: ModelManifest, kind: HeadKind) -> keras.Model:
    backbone = build_backbone(
        find_backbone(head.backbone), head.preprocessing.image_px, "random", seed=UNTRAINED_SEED
    )
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
    batches = [source.fetch(chosen[first : first + batch_size], 0)[0] for first in starts]
    return np.concatenate([run(tf.nest.map_structure(tf.constant, b)).numpy() for b in batches])
