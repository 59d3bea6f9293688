"""A network that OpenVINO computes on the CPU, made from TensorFlow's graph."""

from __future__ import annotations

import importlib
import queue
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft_core.runtime.errors import RegraftError
from regraft_core.runtime.machine import available_cores


class EngineError(RegraftError):
    """An engine cannot compute a network."""


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
    try:
        compiled, ports = _compile(graph, batch_size, half, streams)
        idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(streams):
            idle.put(compiled.create_infer_request())
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise EngineError(lines[-1][:200]) from error

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


def import_openvino() -> Any:
    """Import OpenVINO, which otherwise sends a message to its makers with each import."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    openvino = importlib.import_module("openvino")
    # Its first use of NumPy's types fills a table; two threads that do so at the same time wait for
    # each other forever.
    openvino.Type.f32.to_dtype()
    return openvino


def _compile(graph: Any, batch_size: int, half: str, streams: int) -> tuple[Any, dict[str, Any]]:
    """Return the compiled model and its outputs by name."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    core = import_openvino().Core()
    frozen = convert_variables_to_constants_v2(graph)
    with tempfile.TemporaryDirectory(prefix="regraft-openvino-") as folder:
        path = Path(folder) / "network.pb"
        path.write_bytes(frozen.graph.as_graph_def().SerializeToString())
        model = core.read_model(path)
        model.reshape([batch_size, *graph.inputs[0].shape[1:]])
        settings = {
            "INFERENCE_PRECISION_HINT": {"": "f32", "bfloat16": "bf16"}[half],
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": available_cores(),
            # Decoding uses the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        compiled = core.compile_model(model, "CPU", settings)
    # TensorFlow sorts the outputs of a function by their names.
    names = sorted(graph.structured_outputs)
    return compiled, {name: compiled.output(tensor.name)
                      for name, tensor in zip(names, frozen.outputs, strict=True)}  # fmt: skip
