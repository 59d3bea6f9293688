"""An OpenVINO model in 8-bit integers, quantized by NNCF."""

from __future__ import annotations

import importlib
import logging
import os
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.export.int8 import (
    CALIBRATION_IMAGES,
    Int8Test,
    calibration_records,
    check_int8,
    load_record,
)
from regraft_core.formats.served_thresholds import ServedThresholds
from regraft_core.runtime.openvino_models import import_openvino, read_network


def write_openvino_int8(
    path: Path,
    model: keras.Model,
    dataset: str | os.PathLike[str],
    margin: float,
    thresholds: ServedThresholds,
) -> Int8Test:
    """Write a model in int8 and test it, see `check_int8`.

    Activations have an offset of their own (NNCF's preset `mixed`), because those of many networks
    are not symmetric.

    Args:
        path: the file, which ends with `.xml`; that of the weights ends with `.bin`.
        model, dataset, margin, thresholds: as for `check_int8`; the training images of the dataset
            calibrate.

    Raises:
        DataError: a split that is needed is empty.
    """
    openvino = import_openvino()
    nncf = importlib.import_module("nncf")
    nncf.set_log_level(logging.ERROR)
    image_px = int(model.input.shape[1])
    core = openvino.Core()
    exact, outputs = read_network(core, _graph(model, image_px))
    images = nncf.Dataset(
        calibration_records(dataset), lambda record: load_record(record, image_px)
    )
    quantized = nncf.quantize(
        exact, images, preset=nncf.QuantizationPreset.MIXED, subset_size=CALIBRATION_IMAGES
    )
    quantized.input(0).tensor.set_names({"pixels"})
    quantized.output(outputs[0]).tensor.set_names({"probabilities"})
    openvino.save_model(quantized, path)
    compiled = core.compile_model(path, "CPU")

    def run(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(compiled(pixels)["probabilities"])

    files = [path, path.with_suffix(".bin")]
    return check_int8("openvino_int8", files, run, model, dataset, margin, thresholds)


def _graph(model: keras.Model, image_px: int) -> tf.types.experimental.ConcreteFunction:
    spec = tf.TensorSpec([None, image_px, image_px, 3], tf.float32, name="pixels")
    call = tf.function(
        lambda pixels: [model(pixels, training=False)], input_signature=[spec], autograph=False
    )
    return call.get_concrete_function()
