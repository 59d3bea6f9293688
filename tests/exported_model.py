"""A small exported model to publish: a real SavedModel with warm-up, manifest and fingerprint."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from regraft_core.formats.fingerprint import write_fingerprint
from regraft_core.formats.manifest_storage import MadeBy
from regraft_core.formats.manifests.model import Preprocessing
from regraft_core.formats.manifests.saved_model import SavedModelManifest


class Doubling(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = tf.Variable(tf.fill([64], 2.0))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": x * self.factor[0]}


def write_warmup(folder: Path, value: float, rows: int = 1) -> None:
    log = prediction_log_pb2.PredictionLog()
    request = log.predict_log.request
    request.model_spec.signature_name = "serving_default"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([value] * rows, tf.float32))
    (folder / "assets.extra").mkdir(exist_ok=True)
    path = folder / "assets.extra" / "tf_serving_warmup_requests"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(log.SerializeToString())


def write_manifest(folder: Path, strategy: str = "head") -> SavedModelManifest:
    manifest = SavedModelManifest(
        digest=write_fingerprint(folder),
        made_by=MadeBy(step="export", version="0", seconds=1.5),
        model_digest="m" * 64,
        evaluation_digest="e" * 64,
        dataset_digest="d" * 64,
        strategy=strategy,
        backbone="tiny",
        weights_digest="w" * 64,
        classes=["a", "b"],
        preprocessing=Preprocessing(image_px=8, scaling="tiny"),
        temperature=1.0,
        metrics={},
        checks=[],
        signatures=["serving_default"],
        versions={},
    )
    manifest.write(folder)
    return manifest


@pytest.fixture(scope="session")
def exported_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "saved_model"
    module = Doubling()
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})
    write_warmup(folder, 3.0)
    write_manifest(folder)
    return folder


@pytest.fixture
def exported(exported_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported_once, tmp_path / "exported"))


@pytest.fixture
def reseal() -> Callable[[Path], SavedModelManifest]:
    return write_manifest
