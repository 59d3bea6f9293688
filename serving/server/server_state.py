"""The parts of a running server that both ports share, and the measurement of a call."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from serving.server.memory import BodyMemory, WorkMemory
from serving.server.metrics import Metrics
from serving.server.models.catalog import Catalog
from serving.server.protocol.status import Code, ServingError
from serving.server.thread_pool import Workers

Result = TypeVar("Result")


@dataclass
class RequestLabels:
    """How a request is counted; `model` is "" until it is known."""

    api: str
    entrypoint: str
    model: str = ""


@dataclass
class ServerState:
    """The catalog, the worker threads, the memory and the metrics of one running server."""

    bodies: BodyMemory
    memory: WorkMemory
    catalog: Catalog = field(default_factory=Catalog)
    workers: Workers = field(default_factory=Workers)
    metrics: Metrics = field(default_factory=Metrics)

    async def measured(
        self, labels: RequestLabels, call: Callable[[], Awaitable[Result]]
    ) -> Result:
        """Await `call()` and record its status, and its latency if it succeeds.

        A model that is not configured is counted without its name, so that requests cannot create
        metrics without limit.
        """
        start = time.perf_counter()
        try:
            result = await call()
        except ServingError as error:
            self.metrics.count(self._configured(labels.model), error.code.name)
            raise
        except BaseException:
            self.metrics.count(self._configured(labels.model), Code.CANCELLED.name)
            raise
        model = self._configured(labels.model)
        self.metrics.count(model, Code.OK.name)
        seconds = time.perf_counter() - start
        self.metrics.request_latency(model, labels.api, labels.entrypoint, seconds)
        return result

    def _configured(self, model: str) -> str:
        return model if self.catalog.has(model) else ""
