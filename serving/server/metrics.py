"""Counts and latencies under TF Serving's names, and counts of our own, for Prometheus."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

_PREFIX = ":tensorflow:serving:"
_OWN_PREFIX = ":regraft:serving:"
BUCKETS = tuple(10 * 1.8**power for power in range(33))
Labels = tuple[tuple[str, str], ...]


@dataclass
class _Histogram:
    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    sum: float = 0.0

    def add(self, value: float) -> None:
        index = next((i for i, limit in enumerate(BUCKETS) if value < limit), len(BUCKETS))
        self.counts[index] += 1
        self.sum += value


class Metrics:
    """All metrics of one server. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: dict[Labels, int] = {}
        self._own: dict[str, dict[Labels, int]] = {}
        self._latencies: dict[str, dict[Labels, _Histogram]] = {
            "request_latency": {},
            "runtime_latency": {},
        }

    def count(self, model: str, status: str) -> None:
        """Count one request of a model that ended with `status` (the name of a code)."""
        labels = (("model_name", model), ("status", status))
        with self._lock:
            self._requests[labels] = self._requests.get(labels, 0) + 1

    def count_own(self, name: str, outcome: str, number: int = 1) -> None:
        """Add to a counter that TF Serving does not have."""
        labels = (("outcome", outcome),)
        with self._lock:
            counts = self._own.setdefault(name, {})
            counts[labels] = counts.get(labels, 0) + number

    def request_latency(self, model: str, api: str, entrypoint: str, seconds: float) -> None:
        """Add the duration of a whole request."""
        labels = (("model_name", model), ("API", api), ("entrypoint", entrypoint))
        self._add("request_latency", labels, seconds)

    def runtime_latency(self, model: str, api: str, seconds: float) -> None:
        """Add the duration of TensorFlow's part of a request."""
        labels = (("model_name", model), ("API", api), ("runtime", "TF1"))
        self._add("runtime_latency", labels, seconds)

    def page(self) -> str:
        """Return all metrics as text."""
        with self._lock:
            lines = _counter_lines(f"{_PREFIX}request_count", self._requests)
            for name, counts in self._own.items():
                lines.extend(_counter_lines(f"{_OWN_PREFIX}{name}", counts))
            for name, histograms in self._latencies.items():
                lines.append(f"# TYPE {_PREFIX}{name} histogram")
                for labels, histogram in sorted(histograms.items()):
                    lines.extend(_histogram_lines(f"{_PREFIX}{name}", labels, histogram))
        return "\n".join(lines) + "\n"

    def _add(self, name: str, labels: Labels, seconds: float) -> None:
        with self._lock:
            self._latencies[name].setdefault(labels, _Histogram()).add(seconds * 1e6)


def _counter_lines(name: str, counts: Mapping[Labels, int]) -> list[str]:
    lines = [f"{name}{_braces(labels)} {value}" for labels, value in sorted(counts.items())]
    return [f"# TYPE {name} counter", *lines]


def _histogram_lines(name: str, labels: Labels, histogram: _Histogram) -> list[str]:
    lines, total = [], 0
    for limit, count in zip((*BUCKETS, None), histogram.counts, strict=True):
        total += count
        edge = "+Inf" if limit is None else f"{limit:g}"
        lines.append(f"{name}_bucket{_braces((*labels, ('le', edge)))} {total}")
    lines.append(f"{name}_sum{_braces(labels)} {histogram.sum:g}")
    lines.append(f"{name}_count{_braces(labels)} {total}")
    return lines


def _braces(labels: Labels) -> str:
    def escaped(text: str) -> str:
        return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

    return "{" + ",".join(f'{name}="{escaped(value)}"' for name, value in labels) + "}"
