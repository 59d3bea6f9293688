"""The layers that a strategy makes trainable, and the momentum of their statistics."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np
import pytest

from components.fine_tune.fine_tune import load_parts
from components.fine_tune.strategies import Parts, model_and_data, unfreeze
from components.train_head.train_head import train_head
from regraft_core.backbones.build import build_backbone
from regraft_core.backbones.cuts import cut_points, find_cut, join, split
from regraft_core.formats.manifests.features import FeaturesManifest
from regraft_core.formats.manifests.model import ModelManifest
from regraft_core.formats.options.fine_tune import FineTuneOptions
from regraft_core.formats.options.train_head import HeadOptions
from regraft_core.training.heads import build_head, pooling_layer
from regraft_core.training.linear_head.held_out_scores import log_loss

if TYPE_CHECKING:
    from tests.conftest import Trained


@pytest.fixture
def parts(trained: Trained) -> Parts:
    """A backbone with a head of its pooled feature map."""
    backbone = build_backbone("tiny", 32)
    manifest = ModelManifest.read(trained.head)
    layers = [pooling_layer("gap"), *build_head(backbone.output_shape[-1], 3).layers[1:]]
    features = FeaturesManifest.read(trained.features)
    return Parts("", [], backbone, layers, join(backbone, layers), manifest, features)


def batch_norms(layers: list[keras.layers.Layer]) -> list[keras.layers.Layer]:
    return [one for one in layers if isinstance(one, keras.layers.BatchNormalization)]


@pytest.mark.parametrize(
    ("steps", "momentum"), [(1, 0.5), (10, 0.5), (80, 0.9), (10_000, 0.99)]
)  # fmt: skip
def test_adapting_statistics_have_a_lower_momentum_for_fewer_steps(
    parts: Parts, steps: int, momentum: float
) -> None:
    unfreeze(parts, "top", FineTuneOptions(batch_norm="adapt"), steps)
    bottom, top = split(parts.backbone, parts.features.cut)
    adapting = batch_norms([*top.layers, *parts.head_layers])
    assert [one.momentum for one in adapting] == pytest.approx([momentum] * len(adapting))
    assert all(one.trainable for one in adapting)
    assert "head_standardize" in [one.name for one in adapting]
    assert not any(one.trainable for one in batch_norms(bottom.layers))


def test_frozen_statistics_are_not_trainable(parts: Parts) -> None:
    unfreeze(parts, "full", FineTuneOptions(batch_norm="frozen"), 10)
    assert not any(one.trainable for one in batch_norms(parts.complete.layers))
    assert all(layer.trainable for layer in parts.head_layers if layer.name == "logits")


def test_top_starts_from_the_head_with_all_its_levels(
    dataset: Path, trained: Trained, tmp_path: Path
) -> None:
    """Levels below the cut are inputs, those above are computed from the activations."""
    head = train_head([trained.features], tmp_path / "head", HeadOptions(levels="all"))
    parts = load_parts(dataset, [trained.features], tmp_path / "head")
    model, _, validation = model_and_data(parts, "top", 0)
    cut = find_cut(parts.backbone, parts.features.cut)
    index = {point.name: point.index for point in cut_points(parts.backbone)}
    below = [level for level in head.head["levels"] if index[level["layer"]] < cut.index]
    assert 0 < len(below) < len(head.head["levels"])
    assert [one.shape[-1] for one in model.inputs[1:]] == [level["width"] for level in below]
    inputs, labels = validation.fetch(np.arange(validation.count), 0)
    logits = model(inputs, training=False).numpy()
    assert log_loss(logits, labels) == pytest.approx(head.validation_loss, abs=2e-3)
