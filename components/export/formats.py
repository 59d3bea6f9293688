"""Additional formats of the exported model (LiteRT, ONNX, OpenVINO), compared with the model."""

from __future__ import annotations

import contextlib
import importlib
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.export.int8 import Int8Test
from components.export.litert_int8 import write_litert_int8
from components.export.openvino_int8 import write_openvino_int8
from components.export.signatures import Postprocessing
from regraft_core.formats.options.export import ExportOptions
from regraft_core.images.preprocess import load_images, scale
from regraft_core.runtime.errors import InputError, ParityError
from regraft_core.runtime.step_reports import log_progress

FILES = {
    "litert": "assets.extra/model.tflite",
    "litert_int8": "assets.extra/model_int8.tflite",
    "onnx": "assets.extra/model.onnx",
    "openvino_int8": "assets.extra/model_openvino_int8.xml",
}
_INT8 = {"litert_int8": write_litert_int8, "openvino_int8": write_openvino_int8}
_PACKAGES = {
    "litert": "tensorflow",
    "onnx": "tf2onnx, onnx and onnxruntime",
    "openvino_int8": "openvino and nncf",
}
_TOLERANCE = 1e-4


def pixels_model(model: keras.Model, postprocessing: Postprocessing) -> keras.Model:
    """Return the model for these formats, which have no image decoders.

    It is from pixels float32 [n, px, px, 3] in 0..255 to probabilities float32 [n, classes].
    """
    px = postprocessing.preprocessing.image_px
    pixels = keras.Input((px, px, 3), name="pixels")
    logits = model(scale(pixels, postprocessing.preprocessing.scaling), training=False)
    name = "probabilities"
    if postprocessing.thresholds.by_label is None:
        activation = keras.layers.Softmax(name=name)
    else:
        activation = keras.layers.Activation("sigmoid", name=name)
    probabilities = activation(logits / postprocessing.temperature)
    return keras.Model(pixels, probabilities)


def write_formats(
    folder: str | os.PathLike[str],
    model: keras.Model,
    postprocessing: Postprocessing,
    options: ExportOptions,
    images: Sequence[bytes],
    dataset: str | os.PathLike[str],
) -> dict[str, float | Int8Test]:
    """Write `model` in each of the formats into `folder`.

    Args:
        folder: the SavedModel.
        model: the candidate, the backbone's input to logits.
        postprocessing: preprocessing and temperature.
        options: the formats, and the loss of accuracy that is allowed in int8.
        images: encoded images to compare predictions on.
        dataset: the dataset, for int8.

    Returns:
        by format, the maximum difference of probabilities, or the test in int8.

    Raises:
        InputError: a format needs a package that is not installed, or cannot have the network.
        ParityError: a format's probabilities differ from the model's.
    """
    if not options.formats:
        return {}
    whole = pixels_model(model, postprocessing)
    pixels = load_images(tf.constant(list(images)), postprocessing.preprocessing.image_px).numpy()
    expected = np.asarray(whole(pixels, training=False))
    found: dict[str, float | Int8Test] = {}
    for name in options.formats:
        log_progress(f"export: writing and running {name}")
        path = Path(folder) / FILES[name]
        path.parent.mkdir(exist_ok=True)
        try:
            if write_int8 := _INT8.get(name):
                with _quiet_converters():
                    found[name] = write_int8(
                        path, whole, dataset, options.int8_margin, postprocessing.thresholds
                    )
                continue
            received = _write_and_run(name, whole, path, pixels)
        except ImportError as error:
            raise InputError(
                f"format {name} needs {_PACKAGES[name]}, which is not installed: {error}"
            ) from error
        difference = float(np.max(np.abs(received - expected)))
        if not difference <= _TOLERANCE:
            raise ParityError(
                f"format {name}: expected probabilities within {_TOLERANCE:g}, "
                f"got a difference of {difference:.3g}"
            )
        found[name] = difference
    return found


def _write_and_run(
    name: str, model: keras.Model, path: Path, pixels: NDArray[np.float32]
) -> NDArray[np.float32]:
    with _quiet_converters():
        if name == "onnx":
            return _onnx(model, path, pixels)
        return _litert(model, path, pixels)


@contextlib.contextmanager
def _quiet_converters() -> Iterator[None]:
    """Hide the warnings of converters, which use names that their own libraries deprecate."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _litert(model: keras.Model, path: Path, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    model.export(path, format="litert", verbose=False)
    run = tf.lite.Interpreter(str(path)).get_signature_runner()
    (alias,) = run.get_input_details()
    (output,) = run(**{alias: pixels}).values()
    probabilities: NDArray[np.float32] = output
    return probabilities


def _onnx(model: keras.Model, path: Path, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    onnxruntime = importlib.import_module("onnxruntime")  # an extra, unknown to the type checker
    spec = keras.InputSpec(shape=(None, *pixels.shape[1:]), dtype="float32")
    model.export(path, format="onnx", verbose=False, input_signature=[spec])
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    model_input, *captured = session.get_inputs()
    if captured:  # such as the statistics of a layer Normalization
        names = ", ".join(one.name for one in captured)
        raise InputError(
            f"formats: the ONNX model has inputs other than the images ({names}), because a layer "
            "of the backbone keeps values outside its weights; leave onnx out of --formats"
        )
    probabilities: NDArray[np.float32] = session.run(None, {model_input.name: pixels})[0]
    return probabilities
