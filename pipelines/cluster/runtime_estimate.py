"""How long a run takes on more nodes and for more images: a cost model as plain arithmetic.

Each step takes a fixed start (image, TensorFlow, one trace of the graph) and the slowest of what
it does at once: computing, reading and writing. Nodes share the storage's bandwidth. Extraction is
divided by whole shards, so one node may have a shard more than another. All else runs on one node;
strategies run side by side where there are nodes for them.

    share       = ceil(shards / nodes) * shard size
    extraction  = start + max(share / rate, bytes of the share / bandwidth of a node)
    head        = start + pooled bytes / bandwidth + epochs * training images / rate
    top, cached = start + cut bytes / bandwidth + epochs * training images / rate
    top, not    = start + epochs * training images * (1 / extraction rate + 1 / rate of the top)

Not in it: waiting for a free node, failures and retries, contention in a node, and that bandwidth
to a bucket depends on the size of its objects.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from regraft_core.runtime.errors import InputError

SHARD = 1000
"""Images in a shard of a dataset, as ingest writes them."""


@dataclass(frozen=True)
class Rates:
    """What one node does, measured. Rates are images a second, sizes those of one image.

    The defaults are about what `efficientnet_lite0` at 64 px does on two CPU cores, with float16
    activations at its own cut (4 x 4 x 112), from `benchmarks/results`: `ingest` of JPEG photos,
    `demo` and `scale_out`. Photos are taken as 100 kB.
    """

    start_s: float = 11.9
    ingest_rate: float = 500.0
    extract_rate: float = 1130.0
    head_rate: float = 20_000.0
    top_rate: float = 260.0
    image_kb: float = 100.0
    pooled_kb: float = 2.56
    activation_kb: float = 3.584


@dataclass(frozen=True)
class Plan:
    """The run whose time is asked for. Bandwidths are megabytes for a second."""

    images: int
    nodes: int = 1
    node_mb_s: float = 100.0
    storage_mb_s: float = 1000.0
    cache_gb: float = 20.0
    train_share: float = 0.65
    validation_share: float = 0.15
    head_epochs: int = 20
    top_epochs: int = 10


@dataclass(frozen=True)
class Estimate:
    """Seconds of each step, and what they come to."""

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
        """Return it as `--json` prints it."""
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
    """Return the time of a run's steps.

    Raises:
        InputError: a value is not positive.
    """
    _check(plan, rates)
    shares = plan.train_share, plan.validation_share
    train, validation = (round(plan.images * share) for share in shares)
    test = plan.images - train - validation
    single = _bandwidth(plan, 1)
    cut_gb = (train + validation) * rates.activation_kb / 1e6
    cached = cut_gb <= plan.cache_gb
    stored = rates.pooled_kb + (rates.activation_kb if cached else 0.0)
    shards = math.ceil(train / SHARD) + math.ceil(validation / SHARD)
    workers = min(plan.nodes, max(1, shards))
    share = min(math.ceil(shards / workers) * SHARD, train + validation)
    reading = rates.image_kb + stored
    steps = {
        "ingest": rates.start_s
        + plan.images * max(1 / rates.ingest_rate, 2 * rates.image_kb / single),
        "extract_features": extraction_s(share, rates, reading / _bandwidth(plan, workers)),
        "train_head": rates.start_s
        + (train + validation) * rates.pooled_kb / single
        + plan.head_epochs * train / rates.head_rate,
        "fine_tune": _top_s(plan, rates, train, cached),
        "evaluate": rates.start_s + test * max(1 / rates.extract_rate, rates.image_kb / single),
        "export, verify, publish": 3 * rates.start_s,
    }
    alone = sum(steps.values()) - steps["extract_features"]
    hours = (alone + workers * steps["extract_features"]) / 3600
    return Estimate(plan, steps, cached, cut_gb, hours)


def extraction_s(share: int, rates: Rates, transfer_s: float = 0.0) -> float:
    """Return the seconds of one worker; `transfer_s` is reading and writing for one image."""
    return rates.start_s + share * max(1 / rates.extract_rate, transfer_s)


def fitted(first: tuple[int, float], second: tuple[int, float], rates: Rates) -> Rates:
    """Return the rates with start and extraction rate of two measured workers.

    Args:
        first, second: images and seconds of a worker, with different numbers of images.
        rates: the rest.

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
    """Return the kB a second that each of `nodes` gets when all read at once."""
    return 1e3 * min(plan.node_mb_s, plan.storage_mb_s / nodes)


def _check(plan: Plan, rates: Rates) -> None:
    for name, value in (vars(plan) | vars(rates)).items():
        may_be_0 = name in ("start_s", "cache_gb", "pooled_kb", "activation_kb")
        if not math.isfinite(value) or value < 0 or (value == 0 and not may_be_0):
            expected = "0 or more" if may_be_0 else "a number above 0"
            raise InputError(f"{name}: expected {expected}, got {value!r}")
    if plan.train_share + plan.validation_share >= 1:
        raise InputError("expected train_share + validation_share below 1")
