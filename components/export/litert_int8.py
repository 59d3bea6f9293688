"""A LiteRT model in 8-bit integers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.export.int8 import Int8Test, calibration_records, check_int8, load_record
from regraft_core.formats.served_thresholds import ServedThresholds
from regraft_core.runtime.machine import available_cores


def write_litert_int8(
    path: Path,
    model: keras.Model,
    dataset: str | os.PathLike[str],
    margin: float,
    thresholds: ServedThresholds,
) -> Int8Test:
    """Write a model in int8 and test it, see `check_int8`.

    Args:
        path: the file.
        model, dataset, margin, thresholds: as for `check_int8`; the training images of the dataset
            calibrate.

    Raises:
        DataError: a split that is needed is empty.
    """

    def calibration() -> Iterator[list[NDArray[np.float32]]]:
        for record in calibration_records(dataset):
            yield [load_record(record, int(model.input.shape[1]))]

    model.export(
        path, format="litert", verbose=False, optimizations=[tf.lite.Optimize.DEFAULT],
        representative_dataset=calibration,
    )  # fmt: skip
    interpreter = tf.lite.Interpreter(str(path), num_threads=available_cores())
    run = interpreter.get_signature_runner()
    (alias,) = run.get_input_details()

    def quantized(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        (probabilities,) = run(**{alias: pixels}).values()
        return np.asarray(probabilities)

    return check_int8("litert_int8", [path], quantized, model, dataset, margin, thresholds)
