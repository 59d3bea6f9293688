"""A small exported model for tests, with the signatures of a real export and some unusual ones.

The one marked `even` has the outputs `familiar` and `abstain`, which are true for bright images,
and `label_set`.

`python -m tests.serving.tiny_model DIR` writes what the conformance suite needs on any server:
versions 1 and 2 of the model `tiny` and a `models.config` that serves both with labels.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

SIDE = 8
CLASSES = 3
BRIGHT = 105.0  # mean of the pixels
IN_SET = 0.3
LABELS = {"stable": 1, "canary": 2}


def class_names(mark: str) -> list[str]:
    return [f"{mark}-{name}" for name in ("circle", "cross", "square")]


def export_tiny(folder: Path, mark: str) -> Path:
    """Export the model; its labels start with `mark`."""
    import keras
    import tensorflow as tf

    from regraft_core.images.preprocess import load_images

    keras.utils.set_random_seed(7)
    model = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(CLASSES),
        ]
    )
    names = tf.constant(class_names(mark))

    def decode(encoded: Any) -> Any:
        def one(data: Any) -> Any:
            image = tf.io.decode_image(data, channels=3, expand_animations=False)
            return tf.image.resize(image, (SIDE, SIDE))

        spec = tf.TensorSpec((SIDE, SIDE, 3), tf.float32)
        return tf.map_fn(one, encoded, fn_output_signature=spec)

    def postprocess(pixels: Any) -> dict[str, Any]:
        probabilities = tf.nn.softmax(model(pixels / 255.0, training=False))
        best = tf.argmax(probabilities, axis=-1)
        outputs = {
            "label": tf.gather(names, best),
            "confidence": tf.reduce_max(probabilities, axis=-1),
            "probabilities": probabilities,
        }
        if mark == "even":
            outputs["familiar"] = tf.reduce_mean(pixels, axis=[1, 2, 3]) > BRIGHT
            outputs["label_set"] = probabilities >= IN_SET
            outputs["abstain"] = tf.reduce_mean(pixels, axis=[1, 2, 3]) > BRIGHT
        return outputs

    def examples(inputs: Any) -> Any:
        key = "image/encoded"
        parsed = tf.io.parse_example(inputs, {key: tf.io.FixedLenFeature([], tf.string)})
        return postprocess(decode(parsed[key]))["probabilities"]

    def classify(inputs: Any) -> dict[str, Any]:
        scores = examples(inputs)
        return {"classes": tf.tile(names[None], [tf.shape(inputs)[0], 1]), "scores": scores}

    def regress(inputs: Any) -> dict[str, Any]:
        return {"outputs": tf.reduce_max(examples(inputs), axis=-1)}

    def mix(a: Any, b: Any) -> dict[str, Any]:
        return {"sum": a + tf.cast(b, tf.float32), "twice": 2 * b}

    def odd(x: Any) -> dict[str, Any]:
        return {"total": tf.reduce_sum(x), "same": x}

    def texts(x: Any) -> dict[str, Any]:
        return {"raw_bytes": x, "text": tf.strings.join(["<", x, ">"])}

    images = tf.TensorSpec([None], tf.string, "image_bytes")
    inputs = tf.TensorSpec([None], tf.string, "inputs")
    archive = keras.export.ExportArchive()
    archive.track(model)
    endpoints = {
        "serving_default": (lambda image_bytes: postprocess(decode(image_bytes)), [images]),
        "images": (postprocess, [tf.TensorSpec([None, SIDE, SIDE, 3], tf.float32, "images")]),
        "classify": (classify, [inputs]),
        "regress": (regress, [inputs]),
        "features": (
            lambda image_bytes: {"features": model.layers[2](
                model.layers[1](model.layers[0](decode(image_bytes)), training=False)
            )},
            [images],
        ),
        "mix": (
            mix,
            [tf.TensorSpec([None], tf.float32, "a"), tf.TensorSpec([None], tf.int32, "b")],
        ),
        "odd": (odd, [tf.TensorSpec([None], tf.float32, "x")]),
        "texts": (texts, [tf.TensorSpec([None], tf.string, "x")]),
        "flags": (lambda x: {"not": tf.logical_not(x)}, [tf.TensorSpec([None], tf.bool, "x")]),
        "half": (lambda x: {"y": x * 2}, [tf.TensorSpec([None], tf.float16, "x")]),
        "small": (lambda x: {"y": x}, [tf.TensorSpec([None], tf.int8, "x")]),
        "guarded": (
            lambda image_bytes: {"mean": tf.reduce_mean(
                load_images(image_bytes, SIDE), axis=[1, 2, 3]
            )},
            [images],
        ),
        "large": (lambda x: {"y": x}, [tf.TensorSpec([None], tf.int64, "x")]),
        "pair": (
            lambda a, b: {"joined": tf.strings.join([a, b])},
            [tf.TensorSpec([None], tf.string, "a"), tf.TensorSpec([None], tf.string, "b")],
        ),
        "scaled": (
            lambda x, factor: {"y": x * factor},
            [tf.TensorSpec([None], tf.float32, "x"), tf.TensorSpec([None], tf.float32, "factor")],
        ),
        "matrix": (
            lambda x: {"y": tf.reduce_sum(x, axis=1)},
            [tf.TensorSpec([None, None], tf.float32, "x")],
        ),
        "brain": (lambda x: {"y": x * 2}, [tf.TensorSpec([None], tf.bfloat16, "x")]),
        "unsigned": (lambda x: {"y": x}, [tf.TensorSpec([None], tf.uint16, "x")]),
        "complex": (lambda x: {"y": x * 2}, [tf.TensorSpec([None], tf.complex64, "x")]),
    }  # fmt: skip
    for name, (function, signature) in endpoints.items():
        archive.add_endpoint(name, function, input_signature=signature)
    archive.write_out(str(folder), verbose=False)
    _add_default(folder, "scaled", "factor", tf.make_tensor_proto([2.0]))
    return folder


def _add_default(folder: Path, signature: str, alias: str, value: Any) -> None:
    """Give an input of an exported signature a default value."""
    from tensorflow.core.protobuf import saved_model_pb2

    path = folder / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    (meta_graph,) = model.meta_graphs
    meta_graph.signature_def[signature].defaults[alias].CopyFrom(value)
    path.write_bytes(model.SerializeToString())


def models_config(base: Path) -> str:
    """Return a models.config that serves versions 1 and 2 of `tiny` with labels."""
    labels = "".join(
        f'    version_labels {{ key: "{label}" value: {version} }}\n'
        for label, version in LABELS.items()
    )
    return (
        "model_config_list {\n  config {\n"
        f'    name: "tiny"\n    base_path: "{base / "tiny"}"\n    model_platform: "tensorflow"\n'
        "    model_version_policy { specific { versions: 1 versions: 2 } }\n"
        f"{labels}  }}\n}}\n"
    )


def lay_out(base: Path, odd: Path, even: Path) -> Path:
    """Write the folder of the conformance suite's model; return its models.config."""
    shutil.copytree(odd, base / "tiny" / "1")
    shutil.copytree(even, base / "tiny" / "2")
    config = base / "models.config"
    config.write_text(models_config(base), encoding="utf-8")
    return config


if __name__ == "__main__":
    target = Path(sys.argv[1]).resolve()
    exports = [export_tiny(target / "exports" / mark, mark) for mark in ("odd", "even")]
    print(lay_out(target, *exports))
