"""A model for tests of the request log that is exported and loaded within a second.

It classifies the bytes of an "image" by their number, and pixels by the first one. Bytes that start
with `bad` are invalid.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

CLASSES = ("even", "odd")
WIDTH = 5
INVALID = "expected an image"


def export_recorded(folder: Path, *, swapped: bool = False, joined: bool = True) -> Path:
    """Export the model.

    Args:
        folder: the folder of the version.
        swapped: whether images of 7 bytes or more get the other class.
        joined: whether the signatures with features also have the prediction.
    """
    import tensorflow as tf

    names = tf.constant(CLASSES)

    def outputs(image_bytes: Any) -> tuple[dict[str, Any], Any]:
        errors = tf.where(
            tf.strings.regex_full_match(image_bytes, "bad.*"), tf.constant(INVALID), ""
        )
        return outputs_of_size(tf.strings.length(image_bytes), errors)

    def outputs_of_pixels(images: Any) -> tuple[dict[str, Any], Any]:
        sizes = tf.cast(images[:, 0, 0, 0], tf.int32)
        found, pooled = outputs_of_size(sizes, tf.fill(tf.shape(sizes), ""))
        del found["error"]
        return found, pooled

    def outputs_of_size(sizes: Any, errors: Any) -> tuple[dict[str, Any], Any]:
        flipped = tf.cast(sizes >= 7, tf.int32) if swapped else 0
        index = (sizes + flipped) % 2
        valid = errors == ""
        probabilities = tf.where(valid[:, None], tf.one_hot(index, 2) * 0.5 + 0.25, 0.0)
        size = tf.cast(sizes, tf.float32)
        found = {
            "label": tf.where(valid, tf.gather(names, index), ""),
            "confidence": tf.reduce_max(probabilities, axis=-1),
            "probabilities": probabilities,
            "familiarity": tf.where(valid, size, 0.0),
            "familiar": valid & (sizes > 4),
            "error": errors,
        }
        return found, tf.where(valid[:, None], size[:, None] + tf.range(float(WIDTH)), 0.0)

    class Recorded(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")])
        def serve(self, image_bytes: Any) -> Any:
            return outputs(image_bytes)[0]

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")])
        def features(self, image_bytes: Any) -> Any:
            found, pooled = outputs(image_bytes)
            return {"features": pooled, **(found if joined else {"error": found["error"]})}

        @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32, "images")])
        def images(self, images: Any) -> Any:
            return outputs_of_pixels(images)[0]

        @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32, "images")])
        def images_features(self, images: Any) -> Any:
            found, pooled = outputs_of_pixels(images)
            return {"features": pooled, **(found if joined else {})}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "inputs")])
        def classify(self, inputs: Any) -> Any:
            key = "image/encoded"
            parsed = tf.io.parse_example(inputs, {key: tf.io.FixedLenFeature([], tf.string)})
            found = outputs(parsed[key])[0]
            classes = tf.tile(names[None], [tf.shape(inputs)[0], 1])
            valid = (found["error"] == "")[:, None]
            return {"classes": tf.where(valid, classes, ""), "scores": found["probabilities"]}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "texts")])
        def other(self, texts: Any) -> Any:
            return {"label": tf.strings.upper(texts)}

    module = Recorded()
    signatures = {
        "serving_default": module.serve,
        "features": module.features,
        "images": module.images,
        "images_features": module.images_features,
        "classify": module.classify,
        "other": module.other,
    }
    tf.saved_model.save(module, str(folder), signatures)
    return folder
