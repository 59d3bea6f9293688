"""Batching inside the graph, by the batch operation of TF Serving's own batching library.

Requests that arrive at the same time are run as one batch of their inputs, as in TF Serving.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from serving.server.config import BatchingConfig
from serving.server.protocol.signature import Signature


def batchable(signature: Signature) -> bool:
    """Return whether each row of the inputs yields a row of the outputs, by the shapes."""
    shapes = [spec.shape for spec in signature.inputs.values()]
    results = [spec.shape for spec in signature.outputs.values()]
    return (
        bool(shapes)
        and all(shape and shape[0] == -1 for shape in shapes)
        and all(shape and shape[0] == -1 for shape in results)
    )


def add_batching(graph: Any, signature: Signature, config: BatchingConfig) -> dict[str, str]:
    """Add the batched form of a signature to its graph; return its tensor name by output alias.

    The feeds stay those of the signature.
    """
    with graph.as_default(), tf.name_scope(f"batched/{signature.name}"):
        part, results = _part(graph, signature)
        names = [spec.tensor for spec in signature.inputs.values()]

        @tf.nondifferentiable_batch_function(
            config.num_batch_threads,
            config.max_batch_size,
            config.batch_timeout_micros,
            allowed_batch_sizes=_batch_sizes(config),
            max_enqueued_batches=config.max_enqueued_batches,
            autograph=False,
            enable_large_batch_splitting=config.enable_large_batch_splitting,
        )
        def together(*arguments: Any) -> list[Any]:
            found: list[Any] = tf.graph_util.import_graph_def(
                part,
                input_map=dict(zip(names, arguments, strict=True)),
                return_elements=results,
                name="",
            )
            return found

        outputs = together(*(graph.get_tensor_by_name(name) for name in names))
        outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
        return {
            alias: tf.identity(output).name
            for alias, output in zip(signature.outputs, outputs, strict=True)
        }


def _batch_sizes(config: BatchingConfig) -> list[int] | None:
    """Return the sizes of the batches that are run, of which the last is the largest.

    The operation has no other attribute for the largest batch that is run. With all sizes up to it,
    no batch is padded.
    """
    if config.allowed_batch_sizes:
        return list(config.allowed_batch_sizes)
    if config.largest_batch < config.max_batch_size:
        return list(range(1, config.largest_batch + 1))
    return None


def _part(graph: Any, signature: Signature) -> tuple[Any, list[str]]:
    """Return the part of the graph that computes a signature, and the names of its outputs."""
    outputs = [spec.tensor for spec in signature.outputs.values()]
    names = sorted({name.split(":")[0] for name in outputs})
    definition = graph.as_graph_def(add_shapes=True)
    return tf.compat.v1.graph_util.extract_sub_graph(definition, names), outputs
