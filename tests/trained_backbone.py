"""A candidate trained with any backbone by the steps in this process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from components.extract_features.extract_features import extract_features
from components.fine_tune.fine_tune import fine_tune
from components.train_head.train_head import train_head
from regraft_core.formats.manifests.features import FeaturesManifest
from regraft_core.formats.manifests.model import ModelManifest
from regraft_core.formats.options.extract_features import FeatureOptions
from regraft_core.formats.options.fine_tune import FineTuneOptions, Strategy
from regraft_core.formats.options.train_head import HeadOptions
from tests.components.export.building import CLASSES, encode, write_dataset


def colored_image(seed: int, kind: str = "PNG") -> bytes:
    """Return an encoded image of noise, whose color is that of its class in `write_dataset`."""
    pixels = np.random.default_rng(seed).integers(0, 128, (32, 32, 3), np.uint8)
    pixels[..., seed % 100 % len(CLASSES)] += 120
    return encode(pixels, kind)


def write_colors(folder: Path) -> Path:
    """Write a dataset of 27 images that any network can tell apart; return its folder."""
    return write_dataset(folder, draw=colored_image)


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
    folder = out / "candidate"
    candidate = fine_tune(dataset, [out / "features"], out / "head", folder, training)
    keras.backend.clear_session()
    return TrainedBackbone(folder, candidate, features)
