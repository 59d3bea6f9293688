"""The parts of a running server that both ports share, and the measurement of a call."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from serving.server.metrics import Metrics
from serving.server.models.catalog import Catalog
from serving.server.protocol.status import Code, ServingError
from serving.server.thread_pool import Workers

Result = TypeVar("Result")


@dataclass
class ServerState:
    """The catalog, the worker threads and the metrics of one running server."""

    catalog: Catalog = field(default_factory=Catalog)
    workers: Workers = field(default_factory=Workers)
    metrics: Metrics = field(default_factory=Metrics)

    async def measured(
        self, model: str, api: str, entrypoint: str, call: Callable[[], Awaitable[Result]]
    ) -> Result:
        """Await `call()` and record its status, and its latency if it succeeds.

        A model that is not configured is counted without its name, so that requests cannot create
        metrics without limit.
        """
        start = time.perf_counter()
        label = model if self.catalog.has(model) else ""
        try:
            result = await call()
        except ServingError as error:
            self.metrics.count(label, error.code.name)
            raise
        except BaseException:
            self.metrics.count(label, Code.CANCELLED.name)
            raise
        self.metrics.count(label, Code.OK.name)
        self.metrics.request_latency(label, api, entrypoint, time.perf_counter() - start)
        return result
