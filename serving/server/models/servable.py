"""A SavedModel loaded as in TF Serving: a graph and a session, in which signatures are run.

TF Serving loads models in the same way, so a model that it cannot restore or run fails here too;
Python's object loader (`tf.saved_model.load`) is less strict.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import rewriter_config_pb2

from regraft_core.formats.fingerprint import LABELS_FILE
from regraft_core.runtime.gpu_setup import session_options
from serving.server.config import BatchingConfig
from serving.server.deadline import remaining_s
from serving.server.memory import WorkMemory
from serving.server.models.batching import add_batching, batchable
from serving.server.models.observation import (
    SELECTED,
    SELECTED_NAMES,
    Observation,
    ObservedSignature,
    Recorder,
    named_labels,
    observed_signatures,
)
from serving.server.protocol.image_sizes import declared_size
from serving.server.protocol.signature import read_signature
from serving.server.protocol.status import Code, ServingError, code_of, invalid, not_found

INIT_SIGNATURE = "__saved_model_init_op"
SERVE_TAG = "serve"
# Decoding a 16-bit RGBA PNG, composing it over white and resizing it takes up to this.
BYTES_PER_PIXEL = 20
_DECODED_TOGETHER = 4  # images of one request
_LONGEST_MS = 24 * 3600 * 1000


class Servable:
    """A SavedModel in a session of its own. Runs are thread-safe; `close` frees it."""

    def __init__(
        self, meta_graph: Any, session: Any, batching: BatchingConfig | None = None
    ) -> None:
        self.meta_graph = meta_graph
        self.signatures = {
            name: read_signature(name, definition)
            for name, definition in meta_graph.signature_def.items()
            if name != INIT_SIGNATURE
        }
        self._session = session
        self.observe: Callable[[float], None] = lambda seconds: None
        self.memory: WorkMemory | None = None
        self.recorder: Recorder | None = None
        self.classes: Sequence[str] = ()  # names, if the folder has them
        self.held: Any = None  # must live as long as the session
        self._observed = observed_signatures(self.signatures)
        self._largest = batching.max_batch_size if batching is not None else 0
        # By the feeds of a signature: the batched tensor of each of its outputs.
        self._batched: dict[tuple[str, ...], dict[str, str]] = {}
        if batching is not None:
            self._add_batching(batching)
        self._callables: dict[tuple[tuple[str, ...], tuple[str, ...]], Callable[..., Any]] = {}
        self._lock = threading.Lock()

    def run(
        self,
        feeds: Mapping[str, np.ndarray],
        fetches: Sequence[str],
        encoded: Sequence[bytes] = (),
    ) -> list[np.ndarray]:
        """Run the graph from the tensors named in `feeds` to those in `fetches`.

        A sample of the requests for predictions of encoded images is given to the recorder.

        Args:
            feeds: arrays by tensor name.
            fetches: tensor names.
            encoded: the byte strings in `feeds`; images among them count by their pixels.

        Raises:
            ServingError: with the code and the first line of TensorFlow's error; INVALID_ARGUMENT
                for an image that would take more memory than all requests may.
        """
        if self.recorder is not None and len(feeds) == 1:
            ((feed, inputs),) = feeds.items()
            observed = self._observed.get(feed)
            # TensorFlow 1's models may use a tensor for the inputs of several signatures.
            if observed and set(fetches) <= set(observed.aliases) and self.recorder.wants_next():
                observation = self._observe(observed, inputs, encoded)
                self.recorder.record(observation)
                return [observation.outputs[observed.aliases[name]] for name in fetches]
        return self._run_held(feeds, fetches, encoded)

    def run_shadow(
        self, signature: str, inputs: np.ndarray, encoded: Sequence[bytes]
    ) -> dict[str, np.ndarray]:
        """Return the outputs of a signature that predicts encoded images, without recording it.

        Raises:
            ServingError: as `run`; UNAVAILABLE if there is no memory to spare, NOT_FOUND if there
                is no such signature.
        """
        for observed in self._observed.values():
            if observed.signature.name == signature:
                plain = ObservedSignature(observed.signature, observed.signature)
                return dict(self._observe(plain, inputs, encoded, spare=True).outputs)
        raise not_found(f"no signature {signature!r} that predicts encoded images")

    def _observe(
        self,
        observed: ObservedSignature,
        inputs: np.ndarray,
        encoded: Sequence[bytes],
        spare: bool = False,
    ) -> Observation:
        values = self._run_held({observed.feed: inputs}, observed.fetches, encoded, spare)
        outputs = dict(zip(observed.run.outputs, values, strict=True))
        if SELECTED in outputs:
            outputs[SELECTED_NAMES] = named_labels(outputs[SELECTED], self.classes)
        return Observation(observed.signature.name, inputs, encoded, outputs)

    def _run_held(
        self,
        feeds: Mapping[str, np.ndarray],
        fetches: Sequence[str],
        encoded: Sequence[bytes],
        spare: bool = False,
    ) -> list[np.ndarray]:
        if self.memory is None:
            return self._run_batched(feeds, fetches)
        arrays = 2 * sum(array.nbytes for array in feeds.values())
        size = arrays + _decoding_size(encoded, self.memory.limit)
        with self.memory.hold_spare(size) if spare else self.memory.hold(size):
            return self._run_batched(feeds, fetches)

    def _run_batched(
        self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str]
    ) -> list[np.ndarray]:
        names = tuple(sorted(feeds))
        batched = self._batched.get(names)
        if batched is not None and all(name in batched for name in fetches):
            rows = {len(feeds[name]) if feeds[name].ndim else 0 for name in names}
            if max(rows) > self._largest:
                raise invalid(
                    f"Task size {max(rows)} is larger than maximum input batch size {self._largest}"
                )
            if len(rows) == 1 and 0 not in rows:
                try:
                    return self._run(names, feeds, [batched[name] for name in fetches])
                except ServingError as error:
                    if error.code in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED):
                        raise
                # Another request of the batch may have failed, so this one is run alone. Models of
                # `export` have a row for an invalid image and do not fail.
        return self._run(names, feeds, fetches)

    def _run(
        self, names: tuple[str, ...], feeds: Mapping[str, np.ndarray], fetches: Sequence[str]
    ) -> list[np.ndarray]:
        call = self._callable(names, tuple(fetches))
        start = time.perf_counter()
        left = remaining_s()
        options = {}
        if left is not None:
            # TensorFlow stops between kernels; a timeout of 0 would be none.
            timeout = max(min(int(left * 1000), _LONGEST_MS), 1)
            options["options"] = tf.compat.v1.RunOptions(timeout_in_ms=timeout)
        try:
            values: list[np.ndarray] = call(*(feeds[name] for name in names), **options)
        except tf.errors.OpError as error:
            raise from_op_error(error) from error
        except (TypeError, ValueError, RuntimeError) as error:
            raise invalid((str(error) or type(error).__name__).splitlines()[0]) from error
        self.observe(time.perf_counter() - start)
        return values

    def _add_batching(self, config: BatchingConfig) -> None:
        for signature in self.signatures.values():
            if batchable(signature):
                feeds = tuple(sorted(spec.tensor for spec in signature.inputs.values()))
                tensors = add_batching(self._session.graph, signature, config)
                self._batched[feeds] = {
                    spec.tensor: tensors[alias] for alias, spec in signature.outputs.items()
                }

    def close(self) -> None:
        """Free the session and its variables."""
        self._callables.clear()
        self._session.close()

    def _callable(self, feeds: tuple[str, ...], fetches: tuple[str, ...]) -> Callable[..., Any]:
        key = (feeds, fetches)
        with self._lock:
            found = self._callables.get(key)
            if found is None:
                graph = self._session.graph
                outputs = [graph.get_tensor_by_name(name) for name in fetches]
                inputs = [graph.get_tensor_by_name(name) for name in feeds]
                found = self._session.make_callable(outputs, feed_list=inputs)
                self._callables[key] = found
            return found


def _decoding_size(encoded: Sequence[bytes], limit: int) -> int:
    """Return the bytes that decoding takes by estimate."""
    largest = limit // BYTES_PER_PIXEL
    pixels = []
    for index, data in enumerate(encoded):
        width, height = declared_size(data)
        if width * height > largest:
            raise invalid(
                f"image {index}: expected at most {largest} pixels, got {width} x {height}"
            )
        pixels.append(width * height)
    return BYTES_PER_PIXEL * sum(sorted(pixels)[-_DECODED_TOGETHER:])


def load_servable(
    folder: str | os.PathLike[str],
    batching: BatchingConfig | None = None,
    intra_op_threads: int = 0,
    mixed_precision: str = "",
) -> Servable:
    """Load the SavedModel in `folder` for serving.

    The first model of a process sets `intra_op_threads`, the threads that compute an operation; 0
    is TensorFlow's choice, one for each core. With `mixed_precision` "bfloat16", convolutions and
    products are computed in bfloat16: the rewrite of the graph that TF Serving applies for the flag
    of this name (`saved_model_bundle_factory.cc` of 2.20).

    Raises:
        ServingError: it is not a SavedModel, a part is missing, or a variable is not restored.
    """
    path = Path(folder)
    _check_complete(path)
    graph = tf.Graph()
    session = tf.compat.v1.Session(
        graph=graph, config=_session_config(intra_op_threads, mixed_precision)
    )
    try:
        with graph.as_default():
            meta_graph = tf.compat.v1.saved_model.load(session, [SERVE_TAG], str(path))
            _check_initialized(session, meta_graph)
        servable = Servable(meta_graph, session, batching)
        servable.classes = _class_names(path)
        return servable
    except tf.errors.OpError as error:
        session.close()
        raise from_op_error(error) from error
    except ServingError:
        session.close()
        raise
    except Exception as error:  # damaged files raise many kinds of errors
        session.close()
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ServingError(Code.INTERNAL, f"cannot load {path}: {line}") from error


def _class_names(folder: Path) -> Sequence[str]:
    """Return the names of a model's classes; none if its folder has no list of them."""
    try:
        return (folder / LABELS_FILE).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return ()


def from_op_error(error: tf.errors.OpError) -> ServingError:
    """Return the serving error of a TensorFlow error: its code, its message without the stack."""
    message = str(error.message or error).split("\n\nOriginal stack trace")[0]
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return ServingError(code_of(error.error_code), " ".join(lines)[:1000] or type(error).__name__)


def _session_config(intra_op_threads: int, mixed_precision: str) -> Any:
    config = tf.compat.v1.ConfigProto(
        allow_soft_placement=True,
        # A session has GPU options of its own: without them it takes all memory of the card.
        gpu_options=session_options(),
        intra_op_parallelism_threads=intra_op_threads,
    )
    if mixed_precision:
        rewriter = rewriter_config_pb2.RewriterConfig
        rewrites = config.graph_options.rewrite_options
        rewrites.auto_mixed_precision_onednn_bfloat16 = rewriter.ON
    else:
        # Only the part of the graph that a run needs is optimized: versions load in half the time.
        # Graphs that are pruned so are not rewritten.
        config.graph_options.place_pruned_graph = True
    return config


def _check_complete(path: Path) -> None:
    if not (path / "saved_model.pb").exists() and not (path / "saved_model.pbtxt").exists():
        raise ServingError(
            Code.NOT_FOUND,
            f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {path}",
        )


def _check_initialized(session: Any, meta_graph: Any) -> None:
    """Reject a model with a signature that reads a variable that was not restored."""
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
