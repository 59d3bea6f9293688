"""A cost model of runs: time and price for more images and nodes, as plain arithmetic.

Each step takes a fixed start-up time (container image, TensorFlow, tracing the graph) and the
slowest of what it does concurrently: computing, reading and writing. Nodes share the bandwidth of
the storage. Feature extraction is divided by whole shards, so one node may have one shard more than
another. With a Ray cluster, ingest is divided, too; all other steps run on one node. Strategies run
in parallel if there are nodes for them.

    part         = ceil(shards / nodes) * images per shard
    extraction   = start-up + max(part / rate, bytes of the part / bandwidth of a node)
    head         = start-up + pooled bytes / bandwidth + images of all fits / rate
    top, cached  = start-up + cut bytes / bandwidth + epochs * training images / rate
    top, not     = start-up + epochs * training images * (1 / extraction rate + 1 / top rate)

A head is compared with others on at most `COMPARED` images and then fitted to all. The time of its
fits grows with the square of the images as long as these are few.

`top` first tries a few learning rates, and goes on only if one of them gains on the head, which
runs of fewer images do not show. So two ends are estimated: after all epochs, and after the trials.

Without a content store (`--work-dir`), KFP's launcher downloads all input artifacts of a step
before it starts: each worker the whole dataset. Interruptions lengthen each step as in
`interruptions.py`. A node is paid while its step runs; the nodes of a Ray cluster are paid from its
start to the end of the run.

Not included: waiting for a free node, contention within a node, and that the bandwidth of a bucket
depends on the size of its objects.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pipelines.cluster.interruptions import Interruptions
from pipelines.cluster.retry_policy import RETRY_POLICIES
from regraft_core.runtime.errors import InputError

SHARD = 1000
"""Images per shard of a dataset, as ingest writes them."""
COMPARED = 3000
"""Images on which heads are compared at most, as `train_head` does."""
FEW = 2400
"""Images up to which the time of a head's fits grows with their square."""
COMPARISONS = 2.35
"""What the comparisons of a head take, relative to its fits to as many images."""
LEARNING_RATES = 3
"""Learning rates that `top` tries."""
TRIAL_FRACTION = 1 / 9
"""The length of such a trial, as a fraction of the epochs; at least one epoch."""
RELEASE = "export, verify, publish"
RELEASE_STEPS = ("export", "verify", "publish")
MEAN_WAIT = 0.75  # of the longest wait before a retry, see `step_process`
_ZERO_ALLOWED = {"start_s", "ray_start_s", "cache_gb", "pooled_kb", "activation_kb", "node_price",
                 "per_hour", "restart_s"}  # fmt: skip


@dataclass(frozen=True)
class Rates:
    """Measured rates of one node, in images per second, and sizes per image.

    The defaults are those of `efficientnet_lite0` at 64 px on two CPU cores, with float16
    activations at its default cut (4 x 4 x 112), from `benchmarks/results`: `ingest` of JPEG
    photos, `demo`, `scale_out`, and `estimate` for `head_rate`, which is that of many images, and
    `top_rate`. Photos are assumed to have 100 kB. Without `evaluate_rate`, it is that of
    extraction. `starts` are the start-up times of single steps, where they differ from `start_s`.
    """

    start_s: float = 11.9
    ingest_rate: float = 500.0
    extract_rate: float = 1130.0
    head_rate: float = 200.0
    top_rate: float = 750.0
    image_kb: float = 100.0
    pooled_kb: float = 13.6
    activation_kb: float = 3.584
    evaluate_rate: float | None = None
    ray_start_s: float = 120.0
    starts: Mapping[str, float] = field(default_factory=dict)

    def start_of(self, step: str) -> float:
        """Return the start-up time of a step, in seconds."""
        return self.starts.get(step, self.start_s)


@dataclass(frozen=True)
class Plan:
    """The run to estimate. Bandwidths are in megabytes per second, the price is per node and hour.

    `work_dir` is whether the run has a content store, from which steps read only what they need.
    With `ray`, the nodes are a Ray cluster, else workers of Kubeflow. `top_epochs` are those after
    the trials of learning rates.
    """

    images: int
    nodes: int = 1
    node_mb_s: float = 100.0
    storage_mb_s: float = 1000.0
    cache_gb: float = 20.0
    train_fraction: float = 0.65
    validation_fraction: float = 0.15
    top_epochs: int = 10
    source_mb_s: float = 1000.0
    work_dir: bool = True
    ray: bool = False
    node_price: float = 0.0
    interruptions: Interruptions = field(default_factory=Interruptions)

    @property
    def counts(self) -> tuple[int, int, int]:
        """Images for training, validation and test."""
        fractions = self.train_fraction, self.validation_fraction
        train, validation = (round(self.images * fraction) for fraction in fractions)
        return train, validation, self.images - train - validation


@dataclass(frozen=True)
class Estimate:
    """Seconds of each step, and the totals, if `top` is trained to its end.

    `without_gain_s` is the total if it ends after its trials of learning rates. `failure` is the
    chance that interruptions end the run, which then has to be resumed.
    """

    plan: Plan
    steps: dict[str, float]
    without_gain_s: float
    cached: bool
    cut_gb: float
    node_hours: float
    downloads_gb: float
    failure: float

    @property
    def total_s(self) -> float:
        """Wall time of the run in seconds."""
        return sum(self.steps.values())

    @property
    def cost(self) -> float:
        """Price of all nodes, in the currency of `node_price`."""
        return self.node_hours * self.plan.node_price

    def as_json(self) -> dict[str, Any]:
        """Return the value that `--json` prints."""
        return {
            "images": self.plan.images,
            "nodes": self.plan.nodes,
            "steps_s": self.steps,
            "total_s": self.total_s,
            "total_without_gain_s": self.without_gain_s,
            "node_hours": self.node_hours,
            "cost": self.cost,
            "cut_gb": self.cut_gb,
            "cached": self.cached,
            "downloads_gb": self.downloads_gb,
            "failure": self.failure,
        }


@dataclass(frozen=True)
class _Step:
    """Start-up, download and work of a step on each of its nodes, in seconds.

    `segment_s` is the most work that an interruption loses.
    """

    start_s: float
    download_s: float
    work_s: float
    nodes: int = 1
    segment_s: float = math.inf

    def expected_s(self, interruptions: Interruptions, wait_s: float) -> float:
        """Seconds with interruptions, after which the start-up and the download are repeated."""
        again = interruptions.restart_s + wait_s + self.start_s + self.download_s
        of_node = replace(interruptions, restart_s=again)
        return self.start_s + self.download_s + of_node.expected_s(self.work_s, self.segment_s)


def estimate_run(plan: Plan, rates: Rates) -> Estimate:
    """Return the estimated time of each step of a run.

    Raises:
        InputError: a value is not positive, or the run would never end.
    """
    _check(plan, rates)
    train, validation, _ = plan.counts
    cut_gb = (train + validation) * rates.activation_kb / 1e6
    cached = cut_gb <= plan.cache_gb
    parts = _steps(plan, rates, cached)
    trials = replace(parts["fine_tune"], work_s=_top_s(plan, rates, cached, trial_epochs(plan)))
    interruptions = plan.interruptions
    if not plan.work_dir:  # where checkpoints are
        interruptions = replace(interruptions, checkpoint_s=math.inf)
    steps = {name: part.expected_s(interruptions, _wait_s(name)) for name, part in parts.items()}
    trials_s = trials.expected_s(interruptions, _wait_s("fine_tune"))
    total_s = sum(steps.values())
    if not math.isfinite(total_s):
        raise InputError(f"interruptions: with {plan.interruptions.per_hour:g} per hour no step "
                         "would end; expected a lower rate or more checkpoints")  # fmt: skip
    paid_s = sum(parts[name].nodes * seconds for name, seconds in steps.items())
    if plan.ray:
        # The worker nodes, and the pod of each step; the head is small.
        paid_s = total_s * plan.nodes + total_s
    failure = _failure(plan, parts, steps)
    downloads_gb = _downloads_gb(plan, rates, cached, parts["extract_features"].nodes)
    without_gain_s = total_s - steps["fine_tune"] + trials_s
    return Estimate(
        plan, steps, without_gain_s, cached, cut_gb, paid_s / 3600, downloads_gb, failure
    )


def _steps(plan: Plan, rates: Rates, cached: bool) -> dict[str, _Step]:
    """Return the parts of each step, in the order of the pipeline."""
    train, validation, test = plan.counts
    single = _bandwidth(plan, 1)
    stored = rates.pooled_kb + (rates.activation_kb if cached else 0.0)
    shards = math.ceil(train / SHARD) + math.ceil(validation / SHARD)
    workers = min(plan.nodes, max(1, shards))
    part = min(math.ceil(shards / workers) * SHARD, train + validation)
    # From local files, reading is not slower than computing.
    read_kb = rates.image_kb if plan.work_dir else 0.0
    shared = _bandwidth(plan, workers)
    extraction = max(1 / rates.extract_rate, (read_kb + stored) / shared)
    ray_nodes = plan.nodes if plan.ray else 1
    ingest = max(1 / rates.ingest_rate,
                 rates.image_kb / (1e3 * min(plan.node_mb_s, plan.source_mb_s / ray_nodes))
                 + rates.image_kb / _bandwidth(plan, ray_nodes))  # fmt: skip
    evaluate_rate = rates.evaluate_rate or rates.extract_rate
    evaluation = max(1 / evaluate_rate, read_kb / single)
    downloads = {name: 1e6 * gb / (shared if name == "extract_features" else single)
                 for name, gb in _artifact_gb(plan, rates, cached).items()}  # fmt: skip

    def step(name: str, work_s: float, nodes: int = 1, segment_s: float = math.inf) -> _Step:
        # With Ray, the start is that of the step's own pod.
        return _Step(rates.start_of(name), downloads.get(name, 0.0), work_s, nodes, segment_s)

    ray = {"start_ray": _Step(rates.ray_start_s, 0.0, 0.0)} if plan.ray else {}
    epochs = trial_epochs(plan) + plan.top_epochs
    pooled_s = (train + validation) * rates.pooled_kb / single if plan.work_dir else 0.0
    return ray | {
        "ingest": step("ingest", math.ceil(plan.images / ray_nodes) * ingest, ray_nodes),
        "extract_features": step(
            "extract_features", part * extraction, workers,
            SHARD * extraction if plan.work_dir else math.inf
        ),
        "train_head": step("train_head", pooled_s + head_images(train) / rates.head_rate),
        "fine_tune": step("fine_tune", _top_s(plan, rates, cached, epochs)),
        "evaluate": step("evaluate", test * evaluation),
        RELEASE: _Step(
            sum(map(rates.start_of, RELEASE_STEPS)),
            sum(downloads.get(name, 0.0) for name in RELEASE_STEPS), 0.0
        ),
    }  # fmt: skip


def _artifact_gb(plan: Plan, rates: Rates, cached: bool) -> dict[str, float]:
    """Return the GB that KFP's launcher downloads before each step; manifests are negligible."""
    if plan.work_dir:
        return {}
    train, validation, _ = plan.counts
    dataset = plan.images * rates.image_kb / 1e6
    stored = rates.pooled_kb + (rates.activation_kb if cached else 0.0)
    features = (train + validation) * stored / 1e6
    return {
        "extract_features": dataset,
        "train_head": features,
        "fine_tune": dataset + features,
        "evaluate": dataset,
        "export": dataset,
        "verify": dataset,
    }


def _downloads_gb(plan: Plan, rates: Rates, cached: bool, workers: int) -> float:
    """Return the GB that all pods download, with those of the source."""
    dataset = plan.images * rates.image_kb / 1e6
    if plan.work_dir:  # each image and its features once
        train, validation, _ = plan.counts
        stored = rates.pooled_kb + (rates.activation_kb if cached else 0.0)
        return 2 * dataset + (train + validation) * stored / 1e6
    artifacts = _artifact_gb(plan, rates, cached)
    copies = 1 if plan.ray else workers
    return dataset + sum(artifacts.values()) + (copies - 1) * artifacts["extract_features"]


def _failure(plan: Plan, parts: Mapping[str, _Step], steps: Mapping[str, float]) -> float:
    """Return the chance that a pod is interrupted more often than its step is repeated."""
    survived = 1.0
    for name, seconds in steps.items():
        pods = 1 if plan.ray else parts[name].nodes  # KubeRay replaces other nodes without a limit
        policy = RETRY_POLICIES.get(name, RETRY_POLICIES["publish"])
        survived *= (1 - plan.interruptions.more_than(policy.retries, seconds)) ** pods
    return 1 - survived


def _wait_s(step: str) -> float:
    """Return the mean wait before the first retry of a step, in seconds."""
    return MEAN_WAIT * RETRY_POLICIES.get(step, RETRY_POLICIES["publish"]).wait_s(0)


def head_images(train: int) -> float:
    """Return as how many of many images the fits of a head to `train` images count.

    The shape is that of heads of 425 to 8,500 images, with 2,752 and 5,504 features, on two cores.
    """
    compared = min(train, COMPARED)
    return (train * min(train, FEW) + COMPARISONS * compared**2) / FEW


def extraction_s(images: int, rates: Rates, transfer_s: float = 0.0) -> float:
    """Return the seconds of one worker; `transfer_s` is for reading and writing one image."""
    start_s = rates.start_of("extract_features")
    return start_s + images * max(1 / rates.extract_rate, transfer_s)


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


def trial_epochs(plan: Plan) -> int:
    """Return the epochs of all trials of learning rates together."""
    return LEARNING_RATES * max(round(plan.top_epochs * TRIAL_FRACTION), 1)


def _top_s(plan: Plan, rates: Rates, cached: bool, epochs: int) -> float:
    train, _, _ = plan.counts
    if cached:
        reading = train * rates.activation_kb / _bandwidth(plan, 1) if plan.work_dir else 0.0
        return reading + epochs * train / rates.top_rate
    return epochs * train * (1 / rates.extract_rate + 1 / rates.top_rate)


def _bandwidth(plan: Plan, nodes: int) -> float:
    """Return the kB per second of each of `nodes` if all read at the same time."""
    return 1e3 * min(plan.node_mb_s, plan.storage_mb_s / nodes)


def _check(plan: Plan, rates: Rates) -> None:
    values = asdict(plan) | asdict(rates) | asdict(plan.interruptions) | dict(rates.starts)
    for name, value in values.items():
        if value is None or isinstance(value, bool | dict):
            continue
        zero_allowed = name in _ZERO_ALLOWED or name in rates.starts
        if not math.isfinite(value) or value < 0 or (value == 0 and not zero_allowed):
            expected = "0 or more" if zero_allowed else "a number above 0"
            raise InputError(f"{name}: expected {expected}, got {value!r}")
    if plan.train_fraction + plan.validation_fraction >= 1:
        raise InputError("expected train_fraction + validation_fraction below 1, got "
                         f"{plan.train_fraction:g} + {plan.validation_fraction:g}")  # fmt: skip
