"""The signatures of an exported model: from encoded images to labels, all in one graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from regraft_core.formats.manifests.model import Preprocessing
from regraft_core.formats.openvino_files import NETWORK_FUNCTION
from regraft_core.formats.served_thresholds import (
    ABSTAIN,
    LABEL_SET,
    NO_THRESHOLDS,
    SELECTED,
    ServedThresholds,
)
from regraft_core.images.preprocess import load_each_image, scale
from regraft_core.images.valid_rows import map_valid_rows
from regraft_core.training.ood_detector import OodDetector

SERVING, IMAGES, CLASSIFY, FEATURES = "serving_default", "images", "classify", "features"
IMAGES_FEATURES = "images_features"
SIGNATURES = (SERVING, IMAGES, CLASSIFY, FEATURES, IMAGES_FEATURES)
EXAMPLE_KEY = "image/encoded"
ERROR = "error"
_CPU = "/CPU:0"
_Tensors = dict[str, Any]


@dataclass(frozen=True)
class OodRule:
    """An image is in-distribution if the detector's score reaches the threshold."""

    detector: OodDetector
    threshold: float


@dataclass(frozen=True)
class Postprocessing:
    """How encoded images become inputs, and logits become outputs.

    `ood` is how images similar to the training data are recognized, or None; `thresholds` are those
    of labels, sets of labels and abstention.
    """

    preprocessing: Preprocessing
    classes: tuple[str, ...]
    temperature: float
    ood: OodRule | None
    thresholds: ServedThresholds = NO_THRESHOLDS

    def probabilities(self, logits: tf.Tensor) -> tf.Tensor:
        """Return the probabilities of logits, both float [n, classes].

        With several labels an image each class has its own, otherwise they sum to 1.
        """
        activation = tf.nn.softmax if self.thresholds.by_label is None else tf.sigmoid
        return activation(logits / self.temperature)


def with_features(model: keras.Model, pooling: str, postprocessing: Postprocessing) -> keras.Model:
    """Return `model` with more outputs.

    They are the pooled features (output of `pooling`), the logits, and what the OOD detector reads.
    """
    read = postprocessing.ood.detector.inputs(model) if postprocessing.ood else []
    return keras.Model(model.input, [model.get_layer(pooling).output, model.output, *read])


def postprocess(
    logits: tf.Tensor, postprocessing: Postprocessing, read: Sequence[tf.Tensor] = ()
) -> _Tensors:
    """Turn logits float [n, classes] into label, confidence and probabilities (see `export`).

    With an OOD rule, also what its detector has `read` into its score and flag; with thresholds,
    also which labels are selected or in the set bool [n, classes], and whether to abstain bool [n].
    """
    logits = tf.cast(logits, tf.float32)
    probabilities = postprocessing.probabilities(logits)
    best = tf.argmax(logits, axis=-1)
    with tf.device(_CPU):  # GPUs do not support strings
        label = tf.gather(tf.constant(postprocessing.classes), best)
    thresholds = postprocessing.thresholds
    outputs = {
        "label": label,
        "confidence": tf.reduce_max(probabilities, axis=-1),
        "probabilities": probabilities,
    }
    if postprocessing.ood is not None:
        score = postprocessing.ood.detector.scores(read)
        outputs["familiarity"] = score
        outputs["familiar"] = score >= postprocessing.ood.threshold
    if thresholds.by_label is not None:
        outputs[SELECTED] = probabilities >= tf.constant(thresholds.by_label, tf.float32)
    if thresholds.set_probability is not None:
        predicted = tf.one_hot(best, len(postprocessing.classes), True, False, dtype=tf.bool)
        outputs[LABEL_SET] = predicted | (probabilities >= thresholds.set_probability)
    if thresholds.accepted_confidence is not None:
        outputs[ABSTAIN] = outputs["confidence"] < thresholds.accepted_confidence
    return outputs


def blank_invalid(outputs: _Tensors, errors: tf.Tensor) -> _Tensors:
    """Return `outputs` with empty strings, zeros and False in the rows of invalid images.

    Args:
        outputs: tensors `[n, ...]`.
        errors: string `[n]`, the reasons of `load_each_image`.
    """
    with tf.device(_CPU):
        valid = errors == ""

        def blank(values: tf.Tensor) -> tf.Tensor:
            rows = tf.reshape(valid, [-1] + [1] * (len(values.shape) - 1))
            return tf.where(rows, values, tf.zeros([], values.dtype))

        return {name: blank(values) for name, values in outputs.items()}


@dataclass(frozen=True)
class Built:
    """The archive of a candidate, its signature `features`, the number of these, and its network.

    The network is a function of the graph that all signatures call, see `_network`.
    """

    archive: keras.export.ExportArchive
    features: Callable[[tf.Tensor], _Tensors]
    width: int
    network: Any


def build_archive(model: keras.Model, pooling: str, postprocessing: Postprocessing) -> Built:
    """Build the archive of a candidate with all signatures.

    Args:
        model: the backbone's input to logits.
        pooling: name of the layer that returns the pooled features.
        postprocessing: how logits become outputs.
    """
    both = with_features(model, pooling, postprocessing)
    archive = keras.export.ExportArchive()
    # Not archive.track(both): the variables that the endpoints use are saved anyway, and tracking
    # would save each of them a second time, through its Keras wrapper.
    network = _network(both, postprocessing.preprocessing)
    graphs = {
        name: archive.add_endpoint(name, fn, input_signature=[spec])
        for name, (fn, spec) in _endpoints(network, postprocessing).items()
    }
    return Built(archive, graphs[FEATURES], math.prod(both.output_shape[0][1:]), network)


def _network(both: keras.Model, preprocessing: Preprocessing) -> Any:
    """Return the function from pixels, float32 [n, px, px, 3] in 0..255, to the outputs of `both`.

    It has a name of its own in the graph, so that a server can compute it with another engine.
    """
    px, scaling = preprocessing.image_px, preprocessing.scaling

    def network(pixels: tf.Tensor) -> list[tf.Tensor]:
        return list(both(scale(pixels, scaling), training=False))

    network.__name__ = NETWORK_FUNCTION
    pixels = tf.TensorSpec([None, px, px, 3], tf.float32, name="pixels")
    return traced(network, pixels)


def traced(function: Callable[..., Any], spec: tf.TensorSpec) -> Any:
    """Return a function traced once; TensorFlow traces a nested `tf.function` twice."""
    wrapped = tf.function(function, input_signature=[spec], autograph=False)
    return wrapped.get_concrete_function()


def _not_empty(batch: tf.Tensor) -> tf.Tensor:
    """Return `batch`, or fail if it is empty: not every kernel accepts an empty batch."""
    with tf.device(_CPU):
        text = "expected one image or more, got none"
        check = tf.debugging.Assert(tf.shape(batch)[0] > 0, [text])
    with tf.control_dependencies([check]):
        return tf.identity(batch)


def _encoded_of_examples(serialized: tf.Tensor) -> tf.Tensor:
    """Return the encoded images of serialized examples, string `[n]`; "" if there is none."""

    def parse(row: tuple[tf.Tensor, ...]) -> tf.Tensor:
        features = {EXAMPLE_KEY: tf.io.FixedLenFeature([], tf.string)}
        return tf.io.parse_single_example(row[0], features)[EXAMPLE_KEY]

    with tf.device(_CPU):
        indices, encoded = map_valid_rows(parse, (serialized,), tf.TensorSpec([], tf.string))
        empty = tf.fill(tf.shape(serialized), "")
        return tf.tensor_scatter_nd_update(empty, indices[:, tf.newaxis], encoded)


def _endpoints(
    network: Any, postprocessing: Postprocessing
) -> Mapping[str, tuple[Callable[[tf.Tensor], _Tensors], tf.TensorSpec]]:
    px = postprocessing.preprocessing.image_px
    texts = tf.constant(postprocessing.classes)

    def decode(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return load_each_image(_not_empty(encoded), px)

    def run(pixels: tf.Tensor) -> tuple[tf.Tensor, _Tensors]:
        pooled, logits, *read = network(pixels)
        return pooled, postprocess(logits, postprocessing, read)

    decode = traced(decode, tf.TensorSpec([None], tf.string))
    run = traced(run, tf.TensorSpec([None, px, px, 3], tf.float32))

    def with_pooled(pooled: tf.Tensor, outputs: _Tensors) -> _Tensors:
        # With the outputs of a prediction, so that one forward pass returns both.
        return {"features": tf.cast(pooled, tf.float32), **outputs}

    def resized(images: tf.Tensor) -> tf.Tensor:
        return tf.image.resize(_not_empty(images), [px, px], method="bilinear", antialias=True)

    def serving_default(image_bytes: tf.Tensor) -> _Tensors:
        pixels, errors = decode(image_bytes)
        _, outputs = run(pixels)
        return {**blank_invalid(outputs, errors), ERROR: errors}

    def images(images: tf.Tensor) -> _Tensors:
        return run(resized(images))[1]

    def images_features(images: tf.Tensor) -> _Tensors:
        return with_pooled(*run(resized(images)))

    def classify(inputs: tf.Tensor) -> _Tensors:
        # The Classify API allows no output besides these two (PreProcessClassification in
        # servables/tensorflow/classifier.cc of TF Serving 2.20), so there is no reason for the row
        # of an invalid image: all of its labels are empty.
        pixels, errors = decode(_encoded_of_examples(inputs))
        scores = run(pixels)[1]["probabilities"]
        with tf.device(_CPU):
            classes = tf.tile(texts[None], [tf.shape(inputs)[0], 1])
        return blank_invalid({"classes": classes, "scores": scores}, errors)

    def features(image_bytes: tf.Tensor) -> _Tensors:
        pixels, errors = decode(image_bytes)
        return {**blank_invalid(with_pooled(*run(pixels)), errors), ERROR: errors}

    strings = tf.TensorSpec([None], tf.string, name="image_bytes")
    floats = tf.TensorSpec([None, None, None, 3], tf.float32, name="images")
    return {
        SERVING: (serving_default, strings),
        IMAGES: (images, floats),
        IMAGES_FEATURES: (images_features, floats),
        CLASSIFY: (classify, tf.TensorSpec([None], tf.string, name="inputs")),
        FEATURES: (features, strings),
    }
