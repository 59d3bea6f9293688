"""An exported model whose network another engine computes; all else stays TensorFlow's graph.

The network is one function of the graph, which all signatures call. Its body is replaced by a call
of Python, so that decoding, batching, and what follows the network are those of TensorFlow.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from regraft_core.formats.openvino_files import NETWORK_FUNCTION
from regraft_core.runtime.openvino_models import EngineError

GRAPH_FILE = "saved_model.pb"
Network = Callable[[np.ndarray], list[np.ndarray]]


@dataclass(frozen=True)
class Replaced:
    """A SavedModel folder with a replaced network, and what must live as long as its graph."""

    folder: Path
    body: Any


@contextlib.contextmanager
def replaced_network(folder: Path, network: Network) -> Iterator[Replaced]:
    """Yield a copy of a SavedModel whose network is `network`; it is removed after the block.

    Args:
        folder: the exported model.
        network: from pixels, float32 [n, px, px, 3] in 0..255, to the outputs of the function.

    Raises:
        EngineError: the graph has no such function.
    """
    saved = saved_model_pb2.SavedModel.FromString((folder / GRAPH_FILE).read_bytes())
    body = None
    for meta_graph in saved.meta_graphs:
        for function in meta_graph.graph_def.library.function:
            if NETWORK_FUNCTION in function.signature.name:
                body = _replace(function, network)
    if body is None:
        raise EngineError("the exported graph has no function of the network alone; run it again")
    with tempfile.TemporaryDirectory(prefix="regraft-network-") as work:
        for entry in folder.iterdir():
            if entry.name != GRAPH_FILE:
                (Path(work) / entry.name).symlink_to(entry.resolve())
        (Path(work) / GRAPH_FILE).write_bytes(saved.SerializeToString())
        yield Replaced(Path(work), body)


def _replace(function: Any, network: Network) -> Any:
    """Give a function of a graph a new body, with the same inputs and outputs; return the body."""
    types = [tf.as_dtype(output.type) for output in function.signature.output_arg]
    pixels = function.signature.input_arg[0].name
    spec = tf.TensorSpec([None, None, None, 3], tf.float32, name=pixels)

    @tf.function(input_signature=[spec], autograph=False)
    def call(pixels: tf.Tensor) -> list[tf.Tensor]:
        return list(tf.numpy_function(network, [pixels], types))

    body = call.get_concrete_function()
    definition = body.function_def
    (source,) = definition.signature.input_arg
    for node in definition.node_def:
        inputs = [pixels if name == source.name else name for name in node.input]
        node.ClearField("input")
        node.input.extend(inputs)
    results = [definition.ret[output.name] for output in definition.signature.output_arg]
    function.ClearField("node_def")
    function.node_def.extend(definition.node_def)
    for output, result in zip(function.signature.output_arg, results, strict=True):
        function.ret[output.name] = result
    function.ClearField("control_ret")
    function.signature.ClearField("control_output")
    return body
