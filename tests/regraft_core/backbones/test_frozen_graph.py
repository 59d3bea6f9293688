"""Signatures of a SavedModel: which one computes the features, and which cannot."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import op_def_registry

from regraft_core.backbones import frozen_graph
from regraft_core.backbones.backbone_table import find_backbone
from regraft_core.backbones.build import build_backbone
from regraft_core.runtime.errors import InputError

PX = 4
IMAGES = np.arange(2 * PX * PX * 3, dtype=np.float32).reshape(2, PX, PX, 3)


class Network(tf.Module):
    """Functions of images, one of which has bytes as its input."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = tf.Variable(0.5)
        self.calls = tf.Variable(0)
        self.mean = tf.constant([0.0, 1.0, 2.0])

    @tf.function(input_signature=[tf.TensorSpec([None, PX, PX, 3], tf.uint8)])
    def features(self, images: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.cast(images, tf.float32) * self.scale, tf.float16)

    @tf.function(input_signature=[tf.TensorSpec([None, PX, PX, 3])])
    def counted(self, images: tf.Tensor) -> tf.Tensor:
        self.calls.assign_add(1)
        return images * self.scale - self.mean

    @tf.function(input_signature=[tf.TensorSpec([None, PX, PX, 3])])
    def noisy(self, images: tf.Tensor) -> tf.Tensor:
        return images * self.scale + tf.random.uniform(tf.shape(images))

    @tf.function(input_signature=[tf.TensorSpec([2, PX, PX, 3])])
    def pair(self, images: tf.Tensor) -> tf.Tensor:
        return images * self.scale

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def text(self, texts: tf.Tensor) -> tf.Tensor:
        return tf.ones_like(texts, tf.float32) * self.scale

    @tf.function(input_signature=[tf.TensorSpec([None, PX, PX, 3])])
    def count(self, images: tf.Tensor) -> tf.Tensor:
        return tf.argmax(images, axis=-1)


def save(folder: Path, **signatures: str) -> Any:
    network = Network()
    functions = {name: getattr(network, method) for name, method in signatures.items()}
    tf.saved_model.save(network, str(folder), signatures=functions)
    return find_backbone(str(folder), "none")


def test_the_default_signature_with_pixels_as_integers(tmp_path: Path) -> None:
    row = save(tmp_path / "saved", serving_default="features", other="text")
    features = np.asarray(build_backbone(row, PX)(IMAGES))
    np.testing.assert_array_equal(features, IMAGES / 2)
    assert features.dtype == np.float32


def test_what_a_graph_counts_is_skipped(tmp_path: Path) -> None:
    """Random layers count their calls, and Normalization has constants."""
    model = build_backbone(save(tmp_path / "saved", serving_default="counted"), PX)
    np.testing.assert_array_equal(np.asarray(model(IMAGES)), IMAGES / 2 - [0, 1, 2])


@pytest.mark.parametrize(
    ("signatures", "message"),
    [
        ({"other": "features"}, "expected a signature serving_default in saved, found other"),
        ({"serving_default": "pair"}, "saved computes 2 images at a time; export it for any num"),
        ({"serving_default": "text"}, r"with one input \[n, 4, 4, 3\], got \[\(None, 'string'\)"),
        ({"serving_default": "noisy"}, "the features of saved are random, because layers such as"),
        ({"serving_default": "count"}, "expected features .* of floats of saved, got .* of int64"),
    ],
)
def test_signatures_that_cannot_be_used(
    signatures: dict[str, str], message: str, tmp_path: Path
) -> None:
    row = save(tmp_path / "saved", **signatures)
    with pytest.raises(InputError, match=message):
        build_backbone(row, PX)


REFUSED = (
    "ReadFile", "WriteFile", "MatchingFiles", "RestoreV2", "SaveV2", "MergeV2Checkpoints",
    "LoadAndRemapMatrix", "DecodeProtoV2", "TFRecordReaderV2", "TFRecordDataset", "HashTableV2",
    "InitializeTableFromTextFileV2", "PyFunc", "PyFuncStateless", "EagerPyFunc", "PrintV2",
    "RemoteCall", "While", "StatelessWhile", "SymbolicGradient", "XlaLaunch", "ParseExample",
    "FIFOQueueV2", "IteratorGetNext", "Send", "Recv", "Assert", "Batch", "DecodeJpeg",
)  # fmt: skip
STATEFUL = {
    "AssignAddVariableOp", "AssignSubVariableOp", "AssignVariableOp", "DisableCopyOnRead", "If",
    "RandomStandardNormal", "RandomUniform", "ReadVariableOp", "RngReadAndSkip",
    "StatefulPartitionedCall", "StatelessRandomGetAlg", "VarHandleOp", "VarIsInitializedOp",
}  # fmt: skip
"""Operations on variables and random states, and calls of functions, which are checked, too."""


@pytest.mark.parametrize("name", REFUSED)
def test_operations_that_do_not_only_compute(name: str) -> None:
    assert op_def_registry.get(name) is not None
    with pytest.raises(InputError, match=f"the graph has operations that are not run.*: {name}"):
        frozen_graph.check_operations(["Conv2D", name], "the graph")


def test_allowed_operations_read_no_names_and_keep_nothing_but_variables() -> None:
    """The name of a file would be a string."""
    allowed = {name: op_def_registry.get(name) for name in frozen_graph._ALLOWED}
    strings = tf.string.as_datatype_enum
    assert [name for name, one in allowed.items()
            if any(given.type == strings for given in one.input_arg)] == []  # fmt: skip
    assert {name for name, one in allowed.items() if one.is_stateful} == STATEFUL


def test_a_function_does_not_hide_an_operation() -> None:
    graph = tf.compat.v1.GraphDef()
    graph.library.function.add().signature.name = "WriteFile"
    graph.node.add(name="written", op="WriteFile")
    encoded = base64.b64encode(graph.SerializeToString()).decode()
    with pytest.raises(InputError, match="has functions named as operations: WriteFile"):
        frozen_graph.FrozenGraph(encoded, [], "image:0", "written:0")
