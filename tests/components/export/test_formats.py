from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from components.export.formats import FILES, write_formats
from components.export.signatures import Postprocessing
from regraft_core.formats.manifest_storage import digest_file
from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.manifests.evaluation import EvaluationManifest
from regraft_core.formats.options.export import ExportOptions
from regraft_core.formats.records import read_split, write_records
from regraft_core.images.preprocess import load_images, scale
from regraft_core.runtime.errors import InputError
from regraft_core.training.model_files import load_model
from tests.components.export.building import CLASSES, PX, Built, image, write_dataset

IMAGES = [image(i) for i in range(3)]


def written(
    built: Built, folder: Path, name: str, dataset: Path | None = None, **options: Any
) -> dict[str, Any]:
    model, manifest = load_model(built.candidate)
    temperature = EvaluationManifest.read(built.evaluation).temperature
    postprocessing = Postprocessing(manifest.preprocessing, tuple(CLASSES), temperature, None)
    chosen = ExportOptions(formats=[name], **options)
    return write_formats(folder, model, postprocessing, chosen, IMAGES, dataset or built.dataset)


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


def predicted_dataset(built: Built, folder: Path, per_split: int) -> Path:
    """Return a dataset whose labels are the predictions of the model, so its accuracy is 1."""
    dataset = write_dataset(folder, per_split)
    model, manifest = load_model(built.candidate)
    records = list(read_split(dataset, "test"))
    pixels = load_images(tf.constant([record.encoded for record in records]), PX)
    logits = np.asarray(model(scale(pixels, manifest.preprocessing.scaling), training=False))
    labeled = [
        record._replace(label=int(label))
        for record, label in zip(records, logits.argmax(axis=1), strict=True)
    ]
    write_records(dataset / "test.tfrecord", labeled)
    read = DatasetManifest.read(dataset)
    (shard,) = read.splits["test"].shards
    changed = shard.model_copy(update={"sha256": digest_file(dataset / shard.file)})
    split = read.splits["test"].model_copy(update={"shards": [changed]})
    read.model_copy(update={"splits": {**read.splits, "test": split}}).write(dataset)
    return dataset


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
@pytest.mark.parametrize("name", ["litert_int8", "openvino_int8"])
def test_int8_is_released_if_a_loss_is_excluded(
    built: Built, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = predicted_dataset(built, tmp_path / "dataset", 120)
    found = written(built, tmp_path, name, dataset, int8_margin=0.5)[name]
    assert found.passed and found.model_accuracy == 1.0 and found.images == 120
    assert found.difference == pytest.approx(found.accuracy - 1.0)
    assert found.difference_low < found.difference <= found.difference_high
    model, _ = load_model(built.candidate)
    files = list((tmp_path / "assets.extra").iterdir())
    assert tmp_path / FILES[name] in files
    size = sum(file.stat().st_size for file in files)
    assert found.mb == pytest.approx(size / 1e6)
    weights = [file for file in files if file.suffix != ".xml"]
    assert sum(file.stat().st_size for file in weights) < 0.7 * 4 * model.count_params()
    assert found.images_per_s > 0 and found.model_images_per_s > 0
    assert sys.modules.get("openvino_telemetry") is None


def test_int8_is_left_out_if_a_loss_may_be_above_the_margin(
    built: Built, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nine images cannot exclude a loss of 2 points."""
    found = written(built, tmp_path, "litert_int8")["litert_int8"]
    assert not found.passed and found.images == 9
    assert not (tmp_path / FILES["litert_int8"]).exists()
    assert "litert_int8 is left out, because it has accuracy" in capsys.readouterr().out
