"""Models that OpenVINO computes on the CPU."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import queue
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft_core.runtime.errors import RegraftError
from regraft_core.runtime.machine import available_cores

Rows = NDArray[np.float32]


class EngineError(RegraftError):
    """An engine cannot compute a network."""


@contextlib.contextmanager
def engine_errors() -> Iterator[None]:
    """Turn the errors of OpenVINO in the block into one of one line.

    Raises:
        EngineError: OpenVINO does not start, or cannot convert or compile a network.
    """
    try:
        yield
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        # The last line is the cause, or refers to a page below it.
        lines = [line for line in str(error).splitlines() if line.strip() and "https:" not in line]
        cause = lines[-1].strip(" -") if lines else type(error).__name__
        raise EngineError(cause[:200]) from error


def import_openvino() -> Any:
    """Import OpenVINO, which otherwise sends a message to its makers with each import."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    openvino = importlib.import_module("openvino")
    # Its first use of NumPy's types fills a table; two threads that do so at the same time wait for
    # each other forever.
    openvino.Type.f32.to_dtype()
    return openvino


def compile_model(core: Any, model: Any, half: str, streams: int) -> Any:
    """Compile a model for the CPU.

    Args:
        core: OpenVINO's.
        model: the model, with a fixed batch, which is faster.
        half: `bfloat16`, or "" for float32.
        streams: batches that are computed at the same time, each by a part of the cores.
    """
    settings = {
        "INFERENCE_PRECISION_HINT": {"": "f32", "bfloat16": "bf16"}[half],
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": available_cores(),
        # Decoding uses the same cores.
        "ENABLE_CPU_PINNING": False,
    }
    return core.compile_model(model, "CPU", settings)


def read_network(core: Any, graph: Any) -> tuple[Any, list[str]]:
    """Return OpenVINO's model of a concrete function of TensorFlow, and the names of its outputs.

    The weights become constants.

    Args:
        core: OpenVINO's.
        graph: the concrete function.
    """
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    frozen = convert_variables_to_constants_v2(graph)
    with tempfile.TemporaryDirectory(prefix="regraft-openvino-") as folder:
        path = Path(folder) / "network.pb"
        path.write_bytes(frozen.graph.as_graph_def().SerializeToString())
        model = core.read_model(path)
    return model, [tensor.name for tensor in frozen.outputs]


def write_network(path: Path, graph: Any) -> None:
    """Write a concrete function of TensorFlow, with its weights in float32, for `load_network`.

    Args:
        path: the file, which ends with `.xml`; that of the weights ends with `.bin`.
        graph: the concrete function, from float32 [n, px, px, 3] to a list of arrays [n, ...].

    Raises:
        EngineError: OpenVINO does not start, or cannot convert the function.
    """
    with engine_errors():
        openvino = import_openvino()
        model, names = read_network(openvino.Core(), graph)
        for index, name in enumerate(names):
            # Equal outputs become one, which then has several names.
            model.output(name).tensor.add_names({_output_name(index)})
        openvino.save_model(model, path, compress_to_fp16=False)


def load_network(path: Path, half: str) -> Callable[[Rows], list[Rows]]:
    """Return the network that `write_network` wrote, for a batch of any size.

    Each image is computed alone by one core, as many at the same time as there are cores: the
    layers of one image fit into the caches, and no batch is filled up. Several threads may call it.

    Args:
        path: the `.xml` file.
        half: `bfloat16`, or "" for float32.

    Raises:
        EngineError: OpenVINO does not start, or cannot read or compile the file.
    """
    streams = available_cores()
    with engine_errors():
        core = import_openvino().Core()
        model = core.read_model(path)
        model.reshape([1, *list(model.input(0).get_partial_shape())[1:]])
        compiled = compile_model(core, model, half, streams)
        named = {name: port for port in compiled.outputs for name in port.names}
        known = itertools.takewhile(named.__contains__, map(_output_name, itertools.count()))
        ports = [named[name] for name in known]
        idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(streams):
            idle.put(compiled.create_infer_request())
    pool = ThreadPoolExecutor(streams, "openvino")

    def compute(image: Rows) -> list[Rows]:
        request = idle.get()
        try:
            request.infer([image[np.newaxis]], share_inputs=True)
            # The request's memory is that of its next image, too.
            return [request.get_tensor(port).data[0].copy() for port in ports]
        finally:
            idle.put(request)

    def network(pixels: Rows) -> list[Rows]:
        found = [compute(pixels[0])] if len(pixels) == 1 else list(pool.map(compute, pixels))
        return [np.stack(rows) for rows in zip(*found, strict=True)]

    return network


def _output_name(index: int) -> str:
    return f"output_{index}"
