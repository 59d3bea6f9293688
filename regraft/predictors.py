"""Models as functions from encoded images to predictions; imports TensorFlow."""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from components.export.signatures import ERROR, Postprocessing, blank_invalid, postprocess
from regraft_client.predict_files import reason_of
from regraft_client.results import Prediction, join_outputs
from regraft_core.formats.manifests.saved_model import SavedModelManifest
from regraft_core.formats.served_thresholds import ABSTAIN, LABEL_SET, SELECTED, ServedThresholds
from regraft_core.formats.serving_engines import check_serving_engine
from regraft_core.images.preprocess import load_each_image, scale
from regraft_core.runtime.errors import InputError, RegraftError
from regraft_core.runtime.gpu_setup import GpuSetup, set_up_gpus
from regraft_core.training.model_files import load_model
from serving.server.models.engine_choice import EngineLoader
from serving.server.models.servable import from_op_error
from serving.server.protocol.signature import DEFAULT_SIGNATURE
from serving.server.protocol.status import Code, ServingError

Outputs = Mapping[str, Any]
# What TensorFlow adds to the message of an operation.
_GRAPH_NODES = re.compile(r"^Graph execution error: |\{\{function_node \S+\}\} ?|\s*\[\[\{\{.*$")


@dataclass(frozen=True)
class Predictor:
    """A loaded model. `predict` raises InputError if an image of the batch cannot be decoded."""

    classes: Sequence[str]
    image_px: int
    metrics: dict[str, float]
    predict: Callable[[Sequence[bytes]], list[Prediction]]


def load_exported(folder: Path, engine: str = "tf") -> Predictor:
    """Load an exported model as the embedded server does, so that predictions are the same.

    Args:
        folder: the exported model.
        engine: that of `EngineLoader`.

    Raises:
        InputError: it is not a model that a server can load, or not with this engine.
    """
    check_serving_engine(engine, "serving-engine")
    manifest = SavedModelManifest.read(folder)
    outputs = load_signature(folder, DEFAULT_SIGNATURE, engine)
    return Predictor(
        classes=manifest.classes,
        image_px=manifest.preprocessing.image_px,
        metrics=manifest.metrics,
        predict=lambda encoded: _predict(outputs, encoded),
    )


def load_signature(
    folder: Path, name: str, engine: str = "tf"
) -> Callable[[Sequence[bytes]], Outputs]:
    """Return a signature of an exported model, from encoded images to its outputs.

    Raises:
        InputError: it is not a model that a server can load, lacks the signature, or was not
            verified with the engine.
    """
    set_up_gpus(GpuSetup(tf32=False))
    try:
        with _no_deprecation_warnings():
            servable = EngineLoader(engine, log=_log).load(folder)
        signature = servable.signatures[name]
        (feed,) = [spec.tensor for spec in signature.inputs.values()]
    except (ServingError, KeyError, ValueError) as error:
        raise InputError(f"{folder}: cannot load the exported model: {error}") from error
    fetches = {alias: spec.tensor for alias, spec in signature.outputs.items()}

    def outputs(encoded: Sequence[bytes]) -> Outputs:
        try:
            values = servable.run({feed: np.array(encoded, object)}, list(fetches.values()))
        except ServingError as error:
            raise _readable(error) from error
        return dict(zip(fetches, values, strict=True))

    return outputs


def load_candidate(folder: Path) -> Predictor:
    """Load a trained candidate, with the preprocessing and the outputs that its export would have.

    Raises:
        InputError: it is damaged, or only a head.
    """
    set_up_gpus(GpuSetup(tf32=False))
    model, manifest = load_model(folder)
    if manifest.kind != "candidate":
        raise InputError(f"{folder}: expected a complete candidate, got a {manifest.kind}")
    preprocessing = manifest.preprocessing
    by_label = tuple(manifest.thresholds) if manifest.activation == "sigmoid" else None
    plain = Postprocessing(
        preprocessing, tuple(manifest.classes), temperature=1.0, ood=None,
        thresholds=ServedThresholds(by_label=by_label),
    )  # fmt: skip

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def graph(encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        pixels, errors = load_each_image(encoded, preprocessing.image_px)
        logits = model(scale(pixels, preprocessing.scaling), training=False)
        return {**blank_invalid(postprocess(logits, plain), errors), ERROR: errors}

    def outputs(encoded: Sequence[bytes]) -> Outputs:
        try:
            return {name: value.numpy() for name, value in graph(tf.constant(encoded)).items()}
        except tf.errors.OpError as error:
            raise _readable(from_op_error(error)) from error

    return Predictor(
        classes=manifest.classes,
        image_px=preprocessing.image_px,
        metrics={
            "validation_accuracy": manifest.validation_accuracy,
            "validation_loss": manifest.validation_loss,
        },
        predict=lambda encoded: _predict(outputs, encoded),
    )


def _predict(
    outputs: Callable[[Sequence[bytes]], Outputs], encoded: Sequence[bytes]
) -> list[Prediction]:
    """Turn the outputs of `serving_default` into predictions.

    Raises:
        InputError: an image cannot be decoded.
        RegraftError: the model failed, such as for lack of memory.
    """
    found = outputs(encoded)
    for reason in found.get(ERROR, ()):
        if reason:
            raise InputError(reason.decode("utf-8"))
    decided = {
        name: found[name].tolist()
        for name in ("familiar", LABEL_SET, ABSTAIN, SELECTED)
        if name in found
    }
    return join_outputs(
        [label.decode("utf-8") for label in found["label"]],
        found["confidence"],
        found["probabilities"],
        decided.get("familiar"),
        label_sets=decided.get(LABEL_SET),
        abstain=decided.get(ABSTAIN),
        selected=decided.get(SELECTED),
    )


def _log(line: str) -> None:
    print(f"[regraft] {line}", file=sys.stderr, flush=True)


def _readable(error: ServingError) -> RegraftError:
    """Return the error of a model as one line: of an image that it cannot decode, an InputError."""
    if error.code is Code.INVALID_ARGUMENT:
        return InputError(_GRAPH_NODES.sub("", reason_of(error.message)))
    return RegraftError(f"the model failed: {error.code.name}: {error.message}")


@contextlib.contextmanager
def _no_deprecation_warnings() -> Iterator[None]:
    """Silence TensorFlow's logger: TF Serving's way to load a model is deprecated in Python."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
