"""A cost model of runs: the time for more images and nodes, as plain arithmetic.

Each step takes a fixed start-up time (container image, TensorFlow, tracing the graph) and the
slowest of what it does concurrently: computing, reading and writing. Nodes share the bandwidth of
the storage. Feature extraction is divided by whole shards, so one node may have one shard more than
another. All other steps run on one node; strategies run in parallel if there are nodes for them.

    part         = ceil(shards / nodes) * images per shard
    extraction   = start-up + max(part / rate, bytes of the part / bandwidth of a node)
    head         = start-up + pooled bytes / bandwidth + training images / rate
    top, cached  = start-up + cut bytes / bandwidth + epochs * training images / rate
    top, not     = start-up + epochs * training images * (1 / extraction rate + 1 / top rate)

Not included: waiting for a free node, failures and retries, contention within a node, and that the
bandwidth of a bucket depends on the size of its objects.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from regraft_core.runtime.errors import InputError

SHARD = 1000
"""Images per shard of a dataset, as ingest writes them."""


@dataclass(frozen=True)
class Rates:
    """Measured rates of one node, in images per second, and sizes per image.

    The defaults are those of `efficientnet_lite0` at 64 px on two CPU cores, with float16
    activations at its default cut (4 x 4 x 112), from `benchmarks/results`: `ingest` of JPEG
    photos, `demo` and `scale_out`. Photos are assumed to have 100 kB.
    """

    start_s: float = 11.9
    ingest_rate: float = 500.0
    extract_rate: float = 1130.0
    head_rate: float = 1000.0
    top_rate: float = 260.0
    image_kb: float = 100.0
    pooled_kb: float = 13.6
    activation_kb: float = 3.584


@dataclass(frozen=True)
class Plan:
    """The run to estimate. Bandwidths are in megabytes per second."""

    images: int
    nodes: int = 1
    node_mb_s: float = 100.0
    storage_mb_s: float = 1000.0
    cache_gb: float = 20.0
    train_fraction: float = 0.65
    validation_fraction: float = 0.15
    top_epochs: int = 10


@dataclass(frozen=True)
class Estimate:
    """Seconds of each step, and the totals."""

    plan: Plan
    steps: dict[str, float]
    cached: bool
    cut_gb: float
    node_hours: float

    @property
    def total_s(self) -> float:
        """Wall time of the run in seconds."""
        return sum(self.steps.values())

    def as_json(self) -> dict[str, Any]:
        """Return the value that `--json` prints."""
        return {
            "images": self.plan.images,
            "nodes": self.plan.nodes,
            "steps_s": self.steps,
            "total_s": self.total_s,
            "node_hours": self.node_hours,
            "cut_gb": self.cut_gb,
            "cached": self.cached,
        }


def estimate_run(plan: Plan, rates: Rates) -> Estimate:
    """Return the estimated time of each step of a run.

    Raises:
        InputError: a value is not positive.
    """
    _check(plan, rates)
    fractions = plan.train_fraction, plan.validation_fraction
    train, validation = (round(plan.images * fraction) for fraction in fractions)
    test = plan.images - train - validation
    single = _bandwidth(plan, 1)
    cut_gb = (train + validation) * rates.activation_kb / 1e6
    cached = cut_gb <= plan.cache_gb
    stored = rates.pooled_kb + (rates.activation_kb if cached else 0.0)
    shards = math.ceil(train / SHARD) + math.ceil(validation / SHARD)
    workers = min(plan.nodes, max(1, shards))
    part = min(math.ceil(shards / workers) * SHARD, train + validation)
    transfer_kb = rates.image_kb + stored
    steps = {
        "ingest": rates.start_s
        + plan.images * max(1 / rates.ingest_rate, 2 * rates.image_kb / single),
        "extract_features": extraction_s(part, rates, transfer_kb / _bandwidth(plan, workers)),
        "train_head": rates.start_s
        + (train + validation) * rates.pooled_kb / single
        + train / rates.head_rate,
        "fine_tune": _top_s(plan, rates, train, cached),
        "evaluate": rates.start_s + test * max(1 / rates.extract_rate, rates.image_kb / single),
        "export, verify, publish": 3 * rates.start_s,
    }
    on_one_node = sum(steps.values()) - steps["extract_features"]
    hours = (on_one_node + workers * steps["extract_features"]) / 3600
    return Estimate(plan, steps, cached, cut_gb, hours)


def extraction_s(images: int, rates: Rates, transfer_s: float = 0.0) -> float:
    """Return the seconds of one worker; `transfer_s` is for reading and writing one image."""
    return rates.start_s + images * max(1 / rates.extract_rate, transfer_s)


def fit_rates(first: tuple[int, float], second: tuple[int, float], rates: Rates) -> Rates:
    """Return the rates with the start-up time and extraction rate of two measured workers.

    Args:
        first, second: images and seconds of a worker, with different numbers of images.
        rates: the other rates.

    Raises:
        InputError: more images did not take longer.
    """
    images, seconds = first[0] - second[0], first[1] - second[1]
    if images == 0 or images * seconds <= 0:
        raise InputError(f"expected a worker with more images to take longer, got {first} and "
                         f"{second}")  # fmt: skip
    rate = images / seconds
    start = max(0.0, first[1] - first[0] / rate)
    return replace(rates, extract_rate=rate, start_s=start)


def _top_s(plan: Plan, rates: Rates, train: int, cached: bool) -> float:
    if cached:
        reading = train * rates.activation_kb / _bandwidth(plan, 1)
        return rates.start_s + reading + plan.top_epochs * train / rates.top_rate
    return rates.start_s + plan.top_epochs * train * (1 / rates.extract_rate + 1 / rates.top_rate)


def _bandwidth(plan: Plan, nodes: int) -> float:
    """Return the kB per second of each of `nodes` if all read at the same time."""
    return 1e3 * min(plan.node_mb_s, plan.storage_mb_s / nodes)


def _check(plan: Plan, rates: Rates) -> None:
    for name, value in (vars(plan) | vars(rates)).items():
        zero_allowed = name in ("start_s", "cache_gb", "pooled_kb", "activation_kb")
        if not math.isfinite(value) or value < 0 or (value == 0 and not zero_allowed):
            expected = "0 or more" if zero_allowed else "a number above 0"
            raise InputError(f"{name}: expected {expected}, got {value!r}")
    if plan.train_fraction + plan.validation_fraction >= 1:
        raise InputError("expected train_fraction + validation_fraction below 1, got "
                         f"{plan.train_fraction:g} + {plan.validation_fraction:g}")  # fmt: skip
