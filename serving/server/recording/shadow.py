"""The shadow: another version predicts copies of the recorded requests, one at a time.

Requests never wait for it. It takes copies from a bounded queue, drops them if that is full, and
runs only while at least half of the memory for requests is free.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

from serving.server.deadline import deadline_at
from serving.server.metrics import Metrics
from serving.server.models.catalog import Catalog, ModelSpec
from serving.server.protocol.status import Code, ServingError
from serving.server.recording.bounded_queue import BoundedQueue
from serving.server.recording.request_log import DROPPED, Sample, ShadowOutputs

COUNTER = "shadow_count"
PREDICTED, FAILED = "predicted", "failed"
MAX_WAITING, MAX_WAITING_BYTES = 64, 64 << 20
DEADLINE_S = 5.0


class Shadow:
    """Adds the outputs of the version with a label to samples, and passes all samples on."""

    def __init__(
        self, catalog: Catalog, label: str, metrics: Metrics, pass_on: Callable[[Sample], None]
    ) -> None:
        self._catalog = catalog
        self._label = label
        self._metrics = metrics
        self._pass_on = pass_on
        self._queue: BoundedQueue[Sample] = BoundedQueue(MAX_WAITING, MAX_WAITING_BYTES)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._predict_all, name="shadow", daemon=True)
        self._thread.start()

    def add(self, sample: Sample) -> None:
        """Take a sample; pass it on as it is if its version is the shadow, or the queue is full."""
        shadow = self._catalog.labels(sample.model).get(self._label)
        if shadow is None or shadow == sample.version:
            self._pass_on(sample)
        elif not self._queue.offer(sample, sample.size):
            self._metrics.count_own(COUNTER, DROPPED)
            self._pass_on(sample)

    def close(self) -> None:
        """Pass on what waits, without predicting it."""
        self._stopped.set()
        self._queue.close()
        self._thread.join(2 * DEADLINE_S)

    def _predict_all(self) -> None:
        while not self._queue.ended:
            sample = self._queue.take()
            if sample is not None:
                self._pass_on(sample if self._stopped.is_set() else self._with_shadow(sample))

    def _with_shadow(self, sample: Sample) -> Sample:
        observation = sample.observation
        spec = ModelSpec(sample.model, label=self._label)
        try:
            with deadline_at(time.monotonic() + DEADLINE_S), self._catalog.lease(spec) as lease:
                outputs = lease.servable.run_shadow(
                    observation.signature, observation.inputs, observation.byte_values
                )
                shadow = ShadowOutputs(lease.version, outputs)
        except Exception as error:  # the first version has answered, and the server continues
            busy = isinstance(error, ServingError) and error.code is Code.UNAVAILABLE
            self._metrics.count_own(COUNTER, DROPPED if busy else FAILED)
            return sample
        self._metrics.count_own(COUNTER, PREDICTED)
        return replace(sample, shadow=shadow)
