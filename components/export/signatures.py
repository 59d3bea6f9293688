"""The signatures of an exported model: from encoded pictures to labels, all in one graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from components.core.artifacts import Preprocessing
from components.core.preprocess import load_picture, scale

SERVING, IMAGES, CLASSIFY, FEATURES = "serving_default", "images", "classify", "features"
SIGNATURES = (SERVING, IMAGES, CLASSIFY, FEATURES)
EXAMPLE_KEY = "image/encoded"
_CPU = "/CPU:0"
_PARALLEL_DECODES = 8
_Tensors = dict[str, Any]


@dataclass(frozen=True)
class Answering:
    """All that turns a model's logits into answers.

    `familiar_threshold` is what logsumexp(logits) must reach for a familiar picture, or None.
    """

    preprocessing: Preprocessing
    classes: tuple[str, ...]
    temperature: float
    familiar_threshold: float | None


def decode_batch(encoded: tf.Tensor, image_px: int) -> tf.Tensor:
    """Decode a batch of pictures of any sizes and formats, in parallel, on the CPU.

    A `tf.data` pass does it, as that is the only way for a graph to learn which picture failed: one
    picture that cannot be decoded fails the batch, with INVALID_ARGUMENT and its index.

    Args:
        encoded: string [n], n at least 1.
        image_px: side of the pictures wanted.

    Returns:
        float32 [n, image_px, image_px, 3] in 0..255.
    """
    with tf.device(_CPU):
        count = tf.shape(encoded, tf.int64)[0]
        some = tf.debugging.Assert(count > 0, ["expected one picture or more, got none"])
        with tf.control_dependencies([some]):
            encoded = tf.identity(encoded)
        # A sound stand-in at the end keeps the pass from being empty when all pictures fail.
        rows = tf.data.Dataset.from_tensor_slices(encoded).enumerate()
        rows = rows.map(
            lambda index, one: (index, load_picture(one, image_px)),
            num_parallel_calls=_PARALLEL_DECODES,
            deterministic=True,
        ).ignore_errors()
        stand_in = (tf.constant(-1, tf.int64), tf.zeros([image_px, image_px, 3]))
        rows = rows.concatenate(tf.data.Dataset.from_tensors(stand_in))
        indices, pixels = rows.batch(count + 1).with_options(_options()).get_single_element()
        failed = tf.sets.difference(tf.range(count)[None], indices[None]).values
        sound = tf.debugging.Assert(
            tf.equal(tf.size(failed), 0),
            ["expected JPEG, PNG, GIF, BMP or WebP; damaged pictures at index", failed],
            summarize=16,
        )
        with tf.control_dependencies([sound]):
            return tf.ensure_shape(pixels[:-1], [None, image_px, image_px, 3])


def _options() -> tf.data.Options:
    """Return options without the rewriting that would cost each request milliseconds."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return options


def with_features(model: keras.Model, pooling: str) -> keras.Model:
    """Return `model` with two outputs: its pooled features, the output of `pooling`, and logits."""
    return keras.Model(model.input, [model.get_layer(pooling).output, model.output])


def answers(logits: tf.Tensor, answering: Answering) -> _Tensors:
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
    model: keras.Model, pooling: str, answering: Answering
) -> keras.export.ExportArchive:
    """Return the archive of a candidate with all signatures.

    Args:
        model: the backbone's input to logits.
        pooling: name of the layer that gives the pooled features.
        answering: how logits become answers.
    """
    both = with_features(model, pooling)
    archive = keras.export.ExportArchive()
    archive.track(both)
    for name, (fn, spec) in _endpoints(both, answering).items():
        archive.add_endpoint(name, fn, input_signature=[spec])
    return archive


def _endpoints(
    both: keras.Model, answering: Answering
) -> Mapping[str, tuple[Callable[[tf.Tensor], _Tensors], tf.TensorSpec]]:
    px, scaling = answering.preprocessing.image_px, answering.preprocessing.scaling
    texts = tf.constant(answering.classes)

    def run(pixels: tf.Tensor) -> list[tf.Tensor]:
        outputs: list[tf.Tensor] = both(scale(pixels, scaling), training=False)
        return outputs

    def serving_default(image_bytes: tf.Tensor) -> _Tensors:
        return answers(run(decode_batch(image_bytes, px))[1], answering)

    def images(images: tf.Tensor) -> _Tensors:
        pixels = tf.image.resize(images, [px, px], method="bilinear", antialias=True)
        return answers(run(pixels)[1], answering)

    def classify(inputs: tf.Tensor) -> _Tensors:
        with tf.device(_CPU):
            parsed = tf.io.parse_example(
                inputs, {EXAMPLE_KEY: tf.io.FixedLenFeature([], tf.string)}
            )
        found = answers(run(decode_batch(parsed[EXAMPLE_KEY], px))[1], answering)
        with tf.device(_CPU):
            classes = tf.tile(texts[None], [tf.shape(inputs)[0], 1])
        return {"classes": classes, "scores": found["probabilities"]}

    def features(image_bytes: tf.Tensor) -> _Tensors:
        return {"features": tf.cast(run(decode_batch(image_bytes, px))[0], tf.float32)}

    strings = tf.TensorSpec([None], tf.string, name="image_bytes")
    return {
        SERVING: (serving_default, strings),
        IMAGES: (images, tf.TensorSpec([None, None, None, 3], tf.float32, name="images")),
        CLASSIFY: (classify, tf.TensorSpec([None], tf.string, name="inputs")),
        FEATURES: (features, strings),
    }
