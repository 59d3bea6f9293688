"""The signatures of an exported model: from encoded images to labels, all in one graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from regraft_core.formats.manifests import Preprocessing
from regraft_core.images.preprocess import load_images, scale

SERVING, IMAGES, CLASSIFY, FEATURES = "serving_default", "images", "classify", "features"
SIGNATURES = (SERVING, IMAGES, CLASSIFY, FEATURES)
EXAMPLE_KEY = "image/encoded"
_CPU = "/CPU:0"
_Tensors = dict[str, Any]


@dataclass(frozen=True)
class Postprocessing:
    """All that turns a model's logits into answers.

    `familiar_threshold` is what logsumexp(logits) must reach for a familiar image, or None.
    """

    preprocessing: Preprocessing
    classes: tuple[str, ...]
    temperature: float
    familiar_threshold: float | None


def with_features(model: keras.Model, pooling: str) -> keras.Model:
    """Return `model` with two outputs: its pooled features, the output of `pooling`, and logits."""
    return keras.Model(model.input, [model.get_layer(pooling).output, model.output])


def postprocess(logits: tf.Tensor, answering: Postprocessing) -> _Tensors:
    """Turn logits float [n, classes] into label, confidence and probabilities (see `export`)."""
    logits = tf.cast(logits, tf.float32)
    probabilities = tf.nn.softmax(logits / answering.temperature)
    best = tf.argmax(logits, axis=-1)
    with tf.device(_CPU):  # there are no strings on a GPU
        label = tf.gather(tf.constant(answering.classes), best)
    found = {
        "label": label,
        "confidence": tf.reduce_max(probabilities, axis=-1),
        "probabilities": probabilities,
    }
    if answering.familiar_threshold is not None:
        score = tf.reduce_logsumexp(logits, axis=-1)
        found["familiarity"] = score
        found["familiar"] = score >= answering.familiar_threshold
    return found


def build_archive(
    model: keras.Model, pooling: str, answering: Postprocessing
) -> keras.export.ExportArchive:
    """Return the archive of a candidate with all signatures.

    Args:
        model: the backbone's input to logits.
        pooling: name of the layer that gives the pooled features.
        answering: how logits become answers.
    """
    both = with_features(model, pooling)
    archive = keras.export.ExportArchive()
    # Not archive.track(both): the variables that the endpoints use are saved anyway, and tracking
    # would save each of them a second time, through Keras' own wrapper of it.
    for name, (fn, spec) in _endpoints(both, answering).items():
        archive.add_endpoint(name, fn, input_signature=[spec])
    return archive


def _some(batch: tf.Tensor) -> tf.Tensor:
    """Return `batch`, or fail where it is empty: not every kernel takes an empty batch."""
    with tf.device(_CPU):
        text = "expected one image or more, got none"
        there = tf.debugging.Assert(tf.shape(batch)[0] > 0, [text])
    with tf.control_dependencies([there]):
        return tf.identity(batch)


def _endpoints(
    both: keras.Model, answering: Postprocessing
) -> Mapping[str, tuple[Callable[[tf.Tensor], _Tensors], tf.TensorSpec]]:
    px, scaling = answering.preprocessing.image_px, answering.preprocessing.scaling
    texts = tf.constant(answering.classes)
    # Traced once for all signatures.
    decode = tf.function(
        lambda encoded: load_images(_some(encoded), px, name_damaged=True),
        input_signature=[tf.TensorSpec([None], tf.string)],
        autograph=False,
    )

    def run(pixels: tf.Tensor) -> list[tf.Tensor]:
        outputs: list[tf.Tensor] = both(scale(pixels, scaling), training=False)
        return outputs

    def serving_default(image_bytes: tf.Tensor) -> _Tensors:
        return postprocess(run(decode(image_bytes))[1], answering)

    def images(images: tf.Tensor) -> _Tensors:
        pixels = tf.image.resize(_some(images), [px, px], method="bilinear", antialias=True)
        return postprocess(run(pixels)[1], answering)

    def classify(inputs: tf.Tensor) -> _Tensors:
        with tf.device(_CPU):
            parsed = tf.io.parse_example(
                inputs, {EXAMPLE_KEY: tf.io.FixedLenFeature([], tf.string)}
            )
        found = postprocess(run(decode(parsed[EXAMPLE_KEY]))[1], answering)
        with tf.device(_CPU):
            classes = tf.tile(texts[None], [tf.shape(inputs)[0], 1])
        return {"classes": classes, "scores": found["probabilities"]}

    def features(image_bytes: tf.Tensor) -> _Tensors:
        return {"features": tf.cast(run(decode(image_bytes))[0], tf.float32)}

    strings = tf.TensorSpec([None], tf.string, name="image_bytes")
    return {
        SERVING: (serving_default, strings),
        IMAGES: (images, tf.TensorSpec([None, None, None, 3], tf.float32, name="images")),
        CLASSIFY: (classify, tf.TensorSpec([None], tf.string, name="inputs")),
        FEATURES: (features, strings),
    }
