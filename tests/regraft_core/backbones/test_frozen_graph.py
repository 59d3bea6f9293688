"""Signatures of a SavedModel: which one computes the features, and which cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from regraft_core.backbones.backbone_table import find_backbone
from regraft_core.backbones.build import build_backbone
from regraft_core.runtime.errors import InputError

PX = 4
IMAGES = np.arange(2 * PX * PX * 3, dtype=np.float32).reshape(2, PX, PX, 3)


class Network(tf.Module):
    """Functions of images, one of which has bytes as its input."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = tf.Variable(0.5)

    @tf.function(input_signature=[tf.TensorSpec([None, PX, PX, 3], tf.uint8)])
    def features(self, images: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.cast(images, tf.float32) * self.scale, tf.float16)

    @tf.function(input_signature=[tf.TensorSpec([2, PX, PX, 3])])
    def pair(self, images: tf.Tensor) -> tf.Tensor:
        return images * self.scale

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def text(self, texts: tf.Tensor) -> tf.Tensor:
        return tf.ones_like(texts, tf.float32) * self.scale

    @tf.function(input_signature=[tf.TensorSpec([None, PX, PX, 3])])
    def count(self, images: tf.Tensor) -> tf.Tensor:
        return tf.argmax(images, axis=-1)


def save(folder: Path, **signatures: str) -> Any:
    network = Network()
    functions = {name: getattr(network, method) for name, method in signatures.items()}
    tf.saved_model.save(network, str(folder), signatures=functions)
    return find_backbone(str(folder), "none")


def test_the_default_signature_with_pixels_as_integers(tmp_path: Path) -> None:
    row = save(tmp_path / "saved", serving_default="features", other="text")
    features = np.asarray(build_backbone(row, PX)(IMAGES))
    np.testing.assert_array_equal(features, IMAGES / 2)
    assert features.dtype == np.float32


@pytest.mark.parametrize(
    ("signatures", "message"),
    [
        ({"other": "features"}, "expected a signature serving_default in saved, found other"),
        ({"serving_default": "pair"}, "saved computes 2 images at a time; export it for any num"),
        ({"serving_default": "text"}, r"with one input \[n, 4, 4, 3\], got \[\(None, 'string'\)"),
        ({"serving_default": "count"}, "expected features .* of floats of saved, got .* of int64"),
    ],
)
def test_signatures_that_cannot_be_used(
    signatures: dict[str, str], message: str, tmp_path: Path
) -> None:
    row = save(tmp_path / "saved", **signatures)
    with pytest.raises(InputError, match=message):
        build_backbone(row, PX)
