"""Ingest and extraction on one machine and on Ray nodes, with the same digests.

    regraft bench scale --json benchmarks/results/scale.json
    regraft bench scale --json benchmarks/results/scale.json --only nodes

Nodes are Ray nodes of this machine, each with cores of its own; the step itself runs on the cores
of the first node, as on machines that have no others. Ingest reads photographs of 0.2 megapixels
(copies of 200, each with another comment), because the small images of Fashion-MNIST, which
extraction reads, take it no longer than the start of a worker. TensorFlow runs the backbone on all
nodes. Seconds are those of the step's function. Before it, each worker does the same with a few
images, so that the start of Ray, Python and TensorFlow is not counted; the load of the backbone is.

`nodes`: one node of one core against two, and against two of which one is killed after half of the
tasks of each step. `executors`: local processes against one node, each with all cores. Both are the
medians of rounds in turn. `reads`: the bytes that one of eight workers of the fan-out on Kubeflow
downloads from a counting server.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.export import write_large_photos, write_photo_copies
from benchmarks.result import Measurement, Metric, read_metrics, run_benchmark
from pipelines.local.environment import set_variables
from regraft_core.parallel.executor import Executor
from regraft_core.parallel.ray_cluster import RayCluster
from regraft_core.parallel.ray_executor import RAY_VARIABLE, ray_executor
from regraft_core.runtime.machine import available_cores

PARTS = ("nodes", "executors", "reads")
STEPS = ("ingest", "extraction")
WARM_UP_IMAGES, FEW_PHOTOS = 200, 200
WORKERS, WORKERS_IMAGES = 8, 60_000
"""Workers of the fan-out, and images: each of 8 workers has several shards of 1,000."""
PHOTO_SIDES = 512, 384


@dataclass(frozen=True)
class Work:
    """What is measured: photographs to ingest, images to extract, a few of both for the start."""

    root: Path
    photos: Path
    few_photos: Path
    images: Path
    few: Path
    backbone: str
    image_px: int


@dataclass(frozen=True)
class Measured:
    """Seconds and digest by step."""

    seconds: dict[str, float]
    digests: dict[str, str]


@dataclass(frozen=True)
class Measurements:
    """The rounds of one run."""

    name: str
    rounds: list[Measured]

    def seconds(self, step: str) -> float:
        """Return the median."""
        return statistics.median(measured.seconds[step] for measured in self.rounds)


class LosingExecutor(Executor):
    """An executor that loses a node after half of the tasks of each `map`."""

    def __init__(self, executor: Executor, cluster: RayCluster) -> None:
        self._executor, self._cluster, self._lost = executor, cluster, False

    def __exit__(self, *error: object) -> None:
        """Do nothing: the executor has a context of its own."""

    def map(self, function: Any, tasks: Iterable[Any], what: str, size: Any = len) -> Iterator[Any]:
        """Map, and stop a node on the way; only `map` with a size is the reading of images."""
        if size is len:
            return self._executor.map(function, tasks, what)
        every = list(tasks)
        return self._lose_half_way(self._executor.map(function, every, what, size), len(every))

    def map_prepared(
        self, prepare: Any, setup: Any, tasks: Iterable[Any], what: str
    ) -> Iterator[Any]:
        """Map, and stop a node on the way."""
        every = list(tasks)
        results = self._executor.map_prepared(prepare, setup, every, what)
        return self._lose_half_way(results, len(every))

    def _lose_half_way(self, results: Iterator[Any], count: int) -> Iterator[Any]:
        for number, result in enumerate(results):
            if number == count // 2:
                self._cluster.stop_node()
                self._lost = True
            yield result

    def restore(self) -> None:
        """Replace the node, if it was lost."""
        if self._lost:
            self._cluster.add_node()
            self._lost = False


def main(arguments: list[str] | None = None) -> None:
    """Measure and write the result."""
    run_benchmark("scale", __doc__, _add_options, _measure, arguments)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--photos", type=int, default=30_000, help="Photographs for ingest.")
    parser.add_argument(
        "--images", type=int, default=20_000, help="Images of Fashion-MNIST for training."
    )
    parser.add_argument("--backbone", default="efficientnet_lite0", help="Backbone to run.")
    parser.add_argument("--image-px", type=int, default=128, help="Input image size in pixels.")
    parser.add_argument("--rounds", type=int, default=2, help="Measurements of each duration.")
    parser.add_argument("--only", choices=PARTS, help="Measure only this part.")


def _measure(options: argparse.Namespace) -> Measurement:
    from components.ingest.sources.samples import write_fashion

    metrics = read_metrics(options.json)
    parts = (options.only,) if options.only else PARTS
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_fashion(root / "images", limit=options.images)
        write_fashion(root / "few", limit=WARM_UP_IMAGES)
        write_large_photos(root / "few-photos", FEW_PHOTOS, *PHOTO_SIDES)
        write_photo_copies(root / "few-photos", root / "photos", options.photos)
        work = Work(root, root / "photos", root / "few-photos", root / "images", root / "few",
                    options.backbone, options.image_px)  # fmt: skip
        for part in parts:
            metrics |= _PARTS[part](work, options.rounds)
    return Measurement(
        "as many photographs and images of Fashion-MNIST as in each part's command, "
        f"{options.backbone} at {options.image_px} px; medians of its rounds",
        metrics, parts,
    )  # fmt: skip


def _nodes(work: Work, rounds: int) -> dict[str, Metric]:
    one, two, lost = _in_turn(
        {
            "1_node": partial(_on_nodes, work, 1),
            "2_nodes": partial(_on_nodes, work, 2),
            "lost_node": partial(_on_nodes, work, 2, losing=True),
        },
        rounds,
    )
    metrics = _seconds(one, two, lost) | {"equal_digests_nodes": _equal(one, two, lost)}
    for step in STEPS:
        speedup = one.seconds(step) / two.seconds(step)
        metrics[f"{step}_speedup_2_nodes"] = Metric(speedup, "", ">= 1.8")
        ratio = lost.seconds(step) / two.seconds(step)
        metrics[f"{step}_lost_node_relative_time"] = Metric(ratio, "", "<= 1.6")
    return metrics


def _executors(work: Work, rounds: int) -> dict[str, Metric]:
    here, by_ray = _in_turn(
        {"processes": partial(_run, work, None), "ray": partial(_by_ray, work)}, rounds
    )
    metrics = _seconds(here, by_ray) | {"equal_digests_executors": _equal(here, by_ray)}
    for step in STEPS:
        ratio = by_ray.seconds(step) / here.seconds(step)
        metrics[f"{step}_ray_relative_time"] = Metric(ratio, "", "<= 1.1")
    return metrics


def _reads(work: Work, rounds: int) -> dict[str, Metric]:
    from benchmarks.small_images import write_small_images
    from benchmarks.step_downloads import measure_worker

    write_small_images(work.root / "many", WORKERS_IMAGES)
    values = {"sources": (str(work.root / "many"),), "backbone": "tiny", "image_px": 32}
    ratio = measure_worker(work.root / "reads", values, WORKERS)
    return {"read_by_a_worker_of_8": Metric(ratio * WORKERS, "", "<= 1.05")}


_PARTS: dict[str, Callable[[Work, int], dict[str, Metric]]] = {
    "nodes": _nodes,
    "executors": _executors,
    "reads": _reads,
}


def _in_turn(runs: Mapping[str, Callable[[], Measured]], rounds: int) -> list[Measurements]:
    """Measure in rounds, each run in a process of its own: TensorFlow keeps its threads."""
    found: dict[str, list[Measured]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                found[name].append(pool.submit(run).result())
    return [Measurements(name, each) for name, each in found.items()]


def _on_nodes(work: Work, nodes: int, losing: bool = False) -> Measured:
    """Measure on some nodes of one core each; with `losing`, the last one is lost on the way."""
    with _cluster(1) as cluster:
        for _ in range(nodes - 1):
            cluster.add_node()
        # The core of the first node; the cluster has chosen it in the same order.
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        with ray_executor(work.root) as executor:
            assert executor
            return _run(work, executor, LosingExecutor(executor, cluster) if losing else None)


def _by_ray(work: Work) -> Measured:
    """Measure on one node with all cores."""
    with _cluster(available_cores()), ray_executor(work.root) as executor:
        return _run(work, executor)


@contextlib.contextmanager
def _cluster(cpus: int) -> Iterator[RayCluster]:
    """Start a cluster that this process uses."""
    with (
        RayCluster(cpus, own_cores=True) as cluster,
        set_variables({**cluster.environment, RAY_VARIABLE: cluster.address}),
    ):
        yield cluster


def _run(work: Work, executor: Executor | None, losing: LosingExecutor | None = None) -> Measured:
    """Run both steps, each after a start with few images, which loses no node."""
    with tempfile.TemporaryDirectory(dir=work.root) as out:
        return _run_in(Path(out), work, executor, losing)


def _run_in(
    out: Path, work: Work, executor: Executor | None, losing: LosingExecutor | None
) -> Measured:
    from components.extract_features.extract_features import extract_features
    from components.ingest.ingest import ingest
    from regraft_core.formats.options.extract_features import FeatureOptions
    from regraft_core.formats.options.ingest import IngestOptions

    # Without a race of engines, which only the first extraction on a machine has.
    options = FeatureOptions(
        backbone=work.backbone, image_px=work.image_px, feature_engine="tf", precision="float32"
    )
    all_kept = IngestOptions(near_duplicates="off")
    ingest([str(work.few_photos)], out / "few-photos", all_kept, executor=executor)
    start = time.perf_counter()
    ingested = ingest([str(work.photos)], out / "photos", all_kept, executor=losing or executor)
    ingest_s = time.perf_counter() - start
    if losing:
        losing.restore()
    ingest([str(work.few)], out / "few", IngestOptions(), executor=executor)
    ingest([str(work.images)], out / "dataset", IngestOptions(), executor=executor)
    extract_features(out / "few", out / "few-features", options, executor=executor)
    start = time.perf_counter()
    features = extract_features(
        out / "dataset", out / "features", options, executor=losing or executor
    )
    extraction_s = time.perf_counter() - start
    stored = sorted(
        (shard.stem, *sorted((shard.sha256 or {}).items())) for shard in features.shards
    )
    return Measured(
        {"ingest": ingest_s, "extraction": extraction_s},
        {"ingest": ingested.digest, "extraction": f"{features.digest} {stored}"},
    )


def _seconds(*runs: Measurements) -> dict[str, Metric]:
    return {f"{step}_{run.name}": Metric(run.seconds(step), "s") for run in runs for step in STEPS}


def _equal(*runs: Measurements) -> Metric:
    """Return for how many steps all digests are equal."""
    every = [measured.digests for run in runs for measured in run.rounds]
    equal = sum(len({digests[step] for digests in every}) == 1 for step in STEPS)
    return Metric(equal, "", f">= {len(STEPS)}")


if __name__ == "__main__":
    main()
