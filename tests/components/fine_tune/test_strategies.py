"""The layers that a strategy makes trainable, and the momentum of their statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import pytest

from components.fine_tune.strategies import Parts, unfreeze
from regraft_core.backbones.build import build_backbone
from regraft_core.backbones.cuts import join, split
from regraft_core.formats.manifests import FeaturesManifest, ModelManifest
from regraft_core.formats.options import FineTuneOptions
from regraft_core.training.heads import build_head, pooling_layer

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
