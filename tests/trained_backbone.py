"""A candidate trained with any backbone by the steps in this process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import keras

from components.extract_features.extract_features import extract_features
from components.fine_tune.fine_tune import fine_tune
from components.train_head.train_head import train_head
from regraft_core.formats.manifests.features import FeaturesManifest
from regraft_core.formats.manifests.model import ModelManifest
from regraft_core.formats.options.extract_features import FeatureOptions
from regraft_core.formats.options.fine_tune import FineTuneOptions, Strategy
from regraft_core.formats.options.train_head import HeadOptions


@dataclass(frozen=True)
class TrainedBackbone:
    """The folder of a candidate, its manifest, and that of its features."""

    folder: Path
    candidate: ModelManifest
    features: FeaturesManifest


def train_backbone(
    dataset: Path, out: Path, options: FeatureOptions, strategy: Strategy = "top"
) -> TrainedBackbone:
    """Extract features, fit the head, and train with a strategy, one epoch at one learning rate.

    Args:
        dataset: the dataset.
        out: an empty folder.
        options: name the backbone.
        strategy: how it is trained.
    """
    features = extract_features(dataset, out / "features", options)
    train_head([out / "features"], out / "head", HeadOptions())
    training = FineTuneOptions(
        strategy=strategy, fine_tune_epochs=1, learning_rate=1e-3, precision="float32"
    )
    candidate = fine_tune(dataset, [out / "features"], out / "head", out / strategy, training)
    keras.backend.clear_session()
    return TrainedBackbone(out / strategy, candidate, features)
