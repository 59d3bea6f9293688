"""A network that OpenVINO computes on the CPU, made from TensorFlow's graph."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft_core.runtime.openvino_models import (
    compile_model,
    engine_errors,
    import_openvino,
    read_network,
)


def build_openvino_network(
    graph: Any, batch_size: int, half: str, streams: int
) -> Callable[[Any], dict[str, NDArray[np.float32]]]:
    """Return the network of a concrete function from pixels to arrays by name.

    OpenVINO's network has a fixed batch, which is faster; a smaller batch is filled up with zeros.

    Args:
        graph: the concrete function of TensorFlow; its weights become constants.
        batch_size: the most images of a batch.
        half: `bfloat16`, or "" for float32.
        streams: batches that are computed at the same time, each by a part of the cores.

    Raises:
        EngineError: OpenVINO does not start, or cannot convert or compile the graph.
    """
    with engine_errors():
        compiled, ports = _compile(graph, batch_size, half, streams)
        idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(streams):
            idle.put(compiled.create_infer_request())

    def network(pixels: Any) -> dict[str, NDArray[np.float32]]:
        batch = np.asarray(pixels)
        count = len(batch)
        if count < batch_size:
            fill = np.zeros((batch_size - count, *batch.shape[1:]), np.float32)
            batch = np.concatenate([batch, fill])
        request = idle.get()
        try:
            request.infer([batch], share_inputs=True)
            # The request's memory is that of its next batch, too.
            return {name: request.get_tensor(port).data[:count].copy()
                    for name, port in ports.items()}  # fmt: skip
        finally:
            idle.put(request)

    return network


def _compile(graph: Any, batch_size: int, half: str, streams: int) -> tuple[Any, dict[str, Any]]:
    """Return the compiled model and its outputs by name."""
    core = import_openvino().Core()
    model, outputs = read_network(core, graph)
    model.reshape([batch_size, *graph.inputs[0].shape[1:]])
    compiled = compile_model(core, model, half, streams)
    # TensorFlow sorts the outputs of a function by their names.
    names = sorted(graph.structured_outputs)
    return compiled, {name: compiled.output(output)
                      for name, output in zip(names, outputs, strict=True)}  # fmt: skip
