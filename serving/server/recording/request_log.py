"""The request log: a sample of the requests, written by a thread of its own.

A request only puts references into a bounded queue. If the queue is full or the disk fails, samples
are dropped and counted.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from regraft_core.formats.request_log import LoggedAnswer, LoggedRequest, log_line
from regraft_core.runtime.errors import RegraftError
from serving.server.metrics import Metrics
from serving.server.models.observation import FEATURES, SELECTED_NAMES, Observation
from serving.server.recording.bounded_queue import BoundedQueue
from serving.server.recording.log_files import LogFiles

COUNTER = "request_log_count"
WRITTEN, DROPPED = "written", "dropped"
EXAMPLE_KEY = "image/encoded"
MAX_WAITING, MAX_WAITING_BYTES = 4096, 64 << 20
_FLUSH_S, _RETRY_S, _CLOSE_S = 1.0, 10.0, 10.0
_MAX_HALF = float(np.finfo(np.float16).max)
_INVALID = "the image cannot be decoded"  # the Classify API has no reason

Outputs = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class ShadowOutputs:
    """The version that received a copy of a request, and its outputs."""

    version: int
    outputs: Outputs


@dataclass(frozen=True)
class Sample:
    """A recorded request: the model, the version that answered it, and the time (`time.time`)."""

    model: str
    version: int
    time: float
    observation: Observation
    shadow: ShadowOutputs | None = None

    @property
    def size(self) -> int:
        """The bytes that it keeps in memory, about."""
        observation = self.observation
        arrays = sum(array.nbytes for array in observation.outputs.values())
        inputs = observation.inputs
        return arrays + (sum(map(len, inputs)) if inputs.dtype == object else inputs.nbytes)


class RequestLog:
    """Writes samples to files until `close`."""

    def __init__(
        self,
        files: LogFiles,
        metrics: Metrics,
        log: Callable[[str], None],
        *,
        with_images: bool = False,
    ) -> None:
        self._files = files
        self._metrics = metrics
        self._log = log
        self._with_images = with_images
        self._queue: BoundedQueue[Sample] = BoundedQueue(MAX_WAITING, MAX_WAITING_BYTES)
        self._unflushed = 0
        self._blocked_until = 0.0
        self._problem = ""
        self._thread = threading.Thread(target=self._write_all, name="request log", daemon=True)
        self._thread.start()

    def add(self, sample: Sample) -> None:
        """Take a sample, or drop and count it; never waits."""
        if not self._queue.offer(sample, sample.size):
            self._metrics.count_own(COUNTER, DROPPED)

    def close(self) -> None:
        """Write what waits, and complete the file."""
        self._queue.close()
        self._thread.join(_CLOSE_S)

    def _write_all(self) -> None:
        flushed = time.monotonic()
        while not self._queue.ended:
            sample = self._queue.take(_FLUSH_S)
            if sample is not None:
                self._guarded(functools.partial(self._write, sample))
            if time.monotonic() - flushed >= _FLUSH_S:
                self._guarded(self._flush)
                flushed = time.monotonic()
        self._guarded(self._close_files)

    def _write(self, sample: Sample) -> None:
        if time.monotonic() < self._blocked_until:
            self._metrics.count_own(COUNTER, DROPPED)
            return
        try:
            lines = list(log_lines(sample, self._with_images))
        except Exception as error:  # outputs of an unusual model
            self._metrics.count_own(COUNTER, DROPPED)
            self._report(error)
            return
        self._unflushed += 1
        written = [self._files.write(line) for line in lines]
        if not all(written):
            self._unflushed -= 1
            self._metrics.count_own(COUNTER, DROPPED)

    def _flush(self) -> None:
        self._files.flush()
        self._count_written()

    def _close_files(self) -> None:
        self._files.close()
        self._count_written()

    def _count_written(self) -> None:
        if self._unflushed:
            self._metrics.count_own(COUNTER, WRITTEN, self._unflushed)
            self._unflushed = 0
            self._problem = ""

    def _guarded(self, work: Callable[[], None]) -> None:
        """Do a part of the work; after an error, samples are dropped for a while."""
        try:
            work()
        except Exception as error:  # the server continues whatever happens here
            if self._unflushed:
                self._metrics.count_own(COUNTER, DROPPED, self._unflushed)
                self._unflushed = 0
            self._blocked_until = time.monotonic() + _RETRY_S
            self._report(error)

    def _report(self, error: Exception) -> None:
        """Log an error, but once for all attempts in a row that end with it."""
        reason = " ".join(str(error).split())
        if not isinstance(error, OSError | RegraftError):
            reason = f"{type(error).__name__}: {reason}"
        if reason != self._problem:
            self._problem = reason
            self._log(f"request log: {reason}; samples are dropped")


@dataclass(frozen=True)
class VersionRecorder:
    """Samples the requests to one version of a model."""

    model: str
    version: int
    fraction: float
    add: Callable[[Sample], None]

    def wants_next(self) -> bool:
        """Implement `Recorder.wants_next`."""
        return random.random() < self.fraction  # noqa: S311 (a sample, not a secret)

    def record(self, observation: Observation) -> None:
        """Implement `Recorder.record`."""
        self.add(Sample(self.model, self.version, time.time(), observation))


def log_lines(sample: Sample, with_images: bool) -> Iterator[bytes]:
    """Yield the log's line of each image of a request."""
    observation, shadow = sample.observation, sample.shadow
    moment = datetime.datetime.fromtimestamp(sample.time, datetime.UTC)
    stamp = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    features = observation.outputs.get(FEATURES)
    shape = observation.inputs.shape[1:] or None
    for row, data in enumerate(observation.inputs):
        if shape:
            image = data.astype("<f4").tobytes()
        else:
            image = _image_in(data) if "classes" in observation.outputs else data
        answer = _answer(sample.version, observation.outputs, row)
        yield log_line(
            LoggedRequest(
                time=stamp,
                model=sample.model,
                signature=observation.signature,
                sha256=hashlib.sha256(image).hexdigest(),
                answer=answer,
                features=None if features is None or answer.error else _half(features[row]),
                image=image if with_images else None,
                shape=shape,
                shadow=None if shadow is None else _answer(shadow.version, shadow.outputs, row),
            )
        )


def _answer(version: int, outputs: Outputs, row: int) -> LoggedAnswer:
    if "classes" in outputs:
        classes, scores = outputs["classes"][row], outputs["scores"][row]
        best = int(np.argmax(scores)) if scores.size else -1
        predicted, confidence = (classes[best], scores[best]) if best >= 0 else (b"", 0.0)
        error = b"" if any(classes) else _INVALID.encode()
    else:
        predicted, confidence = outputs["label"][row], outputs["confidence"][row]
        error = outputs["error"][row] if "error" in outputs else b""
    familiarity = outputs["familiarity"][row] if "familiarity" in outputs else None
    selected = outputs[SELECTED_NAMES][row] if SELECTED_NAMES in outputs else None
    return LoggedAnswer(
        version, _text(predicted), _number(confidence), _number(familiarity), _text(error), selected
    )


def _image_in(example: bytes) -> bytes:
    """Return the image of a serialized example, b"" if it has none."""
    try:
        values = tf.train.Example.FromString(example).features.feature[EXAMPLE_KEY].bytes_list.value
    except Exception:  # protobuf's errors are of several unrelated classes
        return b""
    return bytes(values[0]) if values else b""


def _half(values: np.ndarray) -> bytes:
    # Without infinities, which no distance could be computed with.
    return np.clip(values, -_MAX_HALF, _MAX_HALF).astype("<f2").tobytes()


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _number(value: Any) -> float | None:
    """Return a number that JSON has; None for another."""
    if value is None or not math.isfinite(value):
        return None
    return float(value)
