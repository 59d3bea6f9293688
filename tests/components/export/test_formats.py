from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from components.export.formats import FILES, write_formats
from components.export.signatures import Postprocessing
from regraft_core.formats.manifests import EvaluationManifest
from regraft_core.images.preprocess import load_images
from regraft_core.runtime.errors import InputError
from regraft_core.training.model_files import load_model
from tests.components.export.building import CLASSES, PX, Built, image

IMAGES = [image(i) for i in range(3)]


def written(built: Built, folder: Path, name: str) -> dict[str, float]:
    model, manifest = load_model(built.candidate)
    temperature = EvaluationManifest.read(built.evaluation).temperature
    postprocessing = Postprocessing(manifest.preprocessing, tuple(CLASSES), temperature, None)
    return write_formats(folder, model, postprocessing, [name], IMAGES)


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
def test_litert_equals_the_exported_model(
    built: Built, loaded: tf.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert written(built, tmp_path, "litert")["litert"] <= 1e-5
    assert "[regraft] export: writing and running litert" in capsys.readouterr().out
    run = tf.lite.Interpreter(str(tmp_path / FILES["litert"])).get_signature_runner()
    pixels = load_images(tf.constant(IMAGES), PX).numpy()
    (got,) = run(pixels=pixels).values()
    served = loaded.signatures["serving_default"](image_bytes=tf.constant(IMAGES))
    np.testing.assert_allclose(got, served["probabilities"], atol=1e-5)


def test_onnx_equals_the_model(built: Built, tmp_path: Path) -> None:
    assert written(built, tmp_path, "onnx")["onnx"] <= 1e-5


def test_onnx_without_its_packages_names_them(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match="format onnx needs tf2onnx, onnx and onnxruntime"):
        written(built, tmp_path, "onnx")
