"""A loaded SavedModel: a graph and a session, as TF Serving holds it, and runs of its signatures.

The session path is TF Serving's own: what it cannot restore or run fails here too, while Python's
object loader (`tf.saved_model.load`) would forgive it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from serving.server.config import BatchingConfig
from serving.server.status import Code, ServingError, code_of, invalid

DEFAULT_SIGNATURE = "serving_default"
INIT_SIGNATURE = "__saved_model_init_op"
SERVE_TAG = "serve"


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a signature. `shape` None is of unknown rank, a dimension -1 open."""

    tensor: str
    dtype: tf.DType
    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a signature by alias, in order of their names."""

    name: str
    method: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]


class Servable:
    """A SavedModel in a session of its own. Runs are thread-safe; `close` frees it."""

    def __init__(self, meta_graph: Any, session: Any) -> None:
        self.meta_graph = meta_graph
        self.signatures = {
            name: _signature(name, definition)
            for name, definition in meta_graph.signature_def.items()
            if name != INIT_SIGNATURE
        }
        self._session = session
        self._callables: dict[tuple[tuple[str, ...], tuple[str, ...]], Callable[..., Any]] = {}
        self._lock = threading.Lock()

    def run(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str]) -> list[np.ndarray]:
        """Run the graph from the tensors named in `feeds` to those in `fetches`.

        Raises:
            ServingError: with the code and the first line of TensorFlow's error.
        """
        names = tuple(sorted(feeds))
        call = self._callable(names, tuple(fetches))
        try:
            return call(*(feeds[name] for name in names))
        except tf.errors.OpError as error:
            raise from_op_error(error) from error
        except (TypeError, ValueError, RuntimeError) as error:
            raise invalid(str(error).splitlines()[0]) from error

    def close(self) -> None:
        """Free the session and its variables."""
        self._callables.clear()
        self._session.close()

    def _callable(self, feeds: tuple[str, ...], fetches: tuple[str, ...]) -> Callable[..., Any]:
        key = (feeds, fetches)
        with self._lock:
            made = self._callables.get(key)
            if made is None:
                graph = self._session.graph
                tensors = [graph.get_tensor_by_name(name) for name in fetches]
                sources = [graph.get_tensor_by_name(name) for name in feeds]
                made = self._session.make_callable(tensors, feed_list=sources)
                self._callables[key] = made
            return made


def load_servable(
    folder: str | os.PathLike[str], batching: BatchingConfig | None = None
) -> Servable:
    """Load the SavedModel in `folder` for serving.

    Raises:
        ServingError: it is no SavedModel, a part is missing, or a variable is not restored.
    """
    path = Path(folder)
    _check_complete(path)
    graph = tf.Graph()
    session = tf.compat.v1.Session(graph=graph, config=_session_config())
    try:
        with graph.as_default():
            meta_graph = tf.compat.v1.saved_model.load(session, [SERVE_TAG], str(path))
            _check_initialized(session, meta_graph)
        return Servable(meta_graph, session)
    except tf.errors.OpError as error:
        session.close()
        raise from_op_error(error) from error
    except ServingError:
        session.close()
        raise
    except Exception as error:  # a damaged file surfaces as one of many kinds
        session.close()
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ServingError(Code.INTERNAL, f"cannot load {path}: {line}") from error


def from_op_error(error: tf.errors.OpError) -> ServingError:
    """Turn TensorFlow's error into ours: the same code, the message without its stack."""
    message = str(error.message or error).split("\n\nOriginal stack trace")[0]
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return ServingError(code_of(error.error_code), " ".join(lines)[:1000] or type(error).__name__)


def _session_config() -> Any:
    return tf.compat.v1.ConfigProto(allow_soft_placement=True)


def _check_complete(path: Path) -> None:
    if not (path / "saved_model.pb").exists() and not (path / "saved_model.pbtxt").exists():
        raise ServingError(
            Code.NOT_FOUND,
            f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {path}",
        )


def _check_initialized(session: Any, meta_graph: Any) -> None:
    """Refuse a model of which a signature reads a variable that nothing restored."""
    graph = session.graph
    fetches = [
        info.name.removeprefix("^").split(":")[0]
        for name, definition in meta_graph.signature_def.items()
        if name != INIT_SIGNATURE
        for info in definition.outputs.values()
        if info.name
    ]
    needed = tf.compat.v1.graph_util.extract_sub_graph(graph.as_graph_def(), sorted(set(fetches)))
    handles = [node.name for node in needed.node if node.op == "VarHandleOp"]
    if not handles:
        return
    ready = [
        tf.raw_ops.VarIsInitializedOp(resource=graph.get_tensor_by_name(f"{name}:0"))
        for name in handles
    ]
    missing = [name for name, ok in zip(handles, session.run(ready), strict=True) if not ok]
    if missing:
        raise ServingError(
            Code.FAILED_PRECONDITION,
            f"{len(missing)} of {len(handles)} variables were not restored: Could not find "
            f"variable {missing[0]}",
        )


def _signature(name: str, definition: Any) -> Signature:
    def specs(infos: Any) -> dict[str, TensorSpec]:
        return {alias: _tensor_spec(infos[alias]) for alias in sorted(infos)}

    return Signature(
        name, definition.method_name, specs(definition.inputs), specs(definition.outputs)
    )


def _tensor_spec(info: Any) -> TensorSpec:
    shape = info.tensor_shape
    dims = None if shape.unknown_rank else tuple(int(d.size) for d in shape.dim)
    return TensorSpec(info.name, tf.as_dtype(info.dtype), dims)
