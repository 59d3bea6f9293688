"""Networks of files with OpenVINO, in other formats, explained, served, and as the champion."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from components.evaluate.evaluate import evaluate
from components.evaluate.report.report_data import ReportData
from components.export.export import export
from components.verify.verify import verify
from regraft_core.formats.options.evaluate import GateOptions
from regraft_core.formats.options.export import ExportOptions
from regraft_core.formats.options.extract_features import FeatureOptions
from regraft_core.formats.options.fine_tune import Strategy
from regraft_core.formats.options.verify import VerifyOptions
from tests.trained_backbone import train_backbone, write_colors

PX = 24
GATE = GateOptions(baseline_rule="off", recall_floor=0.0, corruption_images=0)
FORMATS = ExportOptions(formats=("onnx", "litert"), serving_engine="openvino")


def network(*, augmented: bool) -> keras.Model:
    """Return a network with a nested model, BatchNormalization, a head, and augmentation."""
    keras.utils.set_random_seed(0)
    stem = keras.Sequential(
        [layers.Input((PX, PX, 3)), layers.Conv2D(8, 3), layers.BatchNormalization()], name="stem"
    )
    inputs = layers.Input((PX, PX, 3))
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.RandomFlip()(x) if augmented else x
    x = shortcut = layers.Conv2D(12, 3, strides=2)(stem(x))
    x = layers.Add(name="joined")([layers.Conv2D(12, 1)(x), shortcut])
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(5, activation="softmax")(x), name="mine")


@pytest.mark.long(seconds=40)
@pytest.mark.parametrize(("name", "strategy"), [("mine.keras", "top"), ("mine", "head")])
def test_an_own_network_in_all_formats(name: str, strategy: Strategy, tmp_path: Path) -> None:
    dataset, model = write_colors(tmp_path / "dataset"), network(augmented=strategy == "top")
    given = {}
    if name == "mine":
        given = {"scaling": "none", "image_px": PX}
        features = keras.Model(model.input, model.get_layer("joined").output)
        features.export(tmp_path / name, verbose=False)
    else:
        model.save(tmp_path / name)
    options = FeatureOptions(
        backbone=str(tmp_path / name), feature_engine="openvino", precision="float32", **given
    )
    trained = train_backbone(dataset, tmp_path, options, strategy)
    assert trained.features.engine == "openvino"

    evaluate([trained.folder], dataset, tmp_path / "evaluation", GATE)
    report = ReportData.model_validate_json(
        (tmp_path / "evaluation" / ReportData.file_name).read_text(encoding="utf-8")
    )
    assert report.gallery and all(item.overlay for item in report.gallery)
    inputs = trained.folder, tmp_path / "evaluation", dataset
    version = tmp_path / "models" / "mine" / "1"
    exported = export(*inputs, version, FORMATS)
    assert exported.serving_engines == ["tf", "openvino"]
    assert set(exported.details["formats"]) == {
        "assets.extra/model.onnx", "assets.extra/model.tflite"
    }  # fmt: skip
    parity = verify(
        version, *inputs, tmp_path / "parity", VerifyOptions(engine="embedded", verify_images=4)
    )
    assert max(parity.max_abs_diff.values()) < 1e-5
    assert max(parity.openvino_max_abs_diff.values()) < 1e-4

    again = evaluate(
        [trained.folder], dataset, tmp_path / "again", GATE, str(tmp_path / "models" / "mine")
    )
    (check,) = (one for one in again.checks if one.name == "champion")
    assert check.passed
    assert np.isclose(again.metrics["champion_accuracy"], again.metrics["test_accuracy"])
