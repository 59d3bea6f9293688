"""The overhead of kfp's local runner, and the speedup from parallel workers.

    regraft bench orchestration --json benchmarks/results/orchestration.json
    regraft bench orchestration --json benchmarks/results/orchestration.json --only container-image

Digits on `efficientnet_lite0` at 64 px with strategy `head`, so that the steps run one after the
other. The overhead is the wall time minus the seconds in the steps' manifests: kfp, starting
Python, importing kfp and TensorFlow. The same run is then repeated without a change.

Extraction is measured on more work (`--workers-px`, three views of each training image), from the
end of ingest to the start of head training. One TensorFlow process uses all cores, so the
efficiency of two workers is relative to one worker on one core; the time of one worker on all
cores is measured too. kfp's local runner runs two iterations of a loop at a time on any machine.

The compiled pipeline is measured with one and with eight workers: the status of a run repeats parts
of it for each task, and has a size limit.

The downloads of the steps are measured with a local S3 server that counts; see `step_downloads.py`.

`--only cluster --server URL --run RUN_ID` measures a run on a real backend, with one worker, after
its end: the seconds from its creation to its end minus those in its steps, which are for the
scheduling, the starts of pods and of Python, and the imports.

`--only container-image` builds the container image without a cache; it needs a Docker engine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cluster_run import cluster_metrics
from benchmarks.result import Measurement, Metric, read_metrics, run_benchmark
from regraft_core.runtime.errors import InputError

CHECKOUT = Path(__file__).resolve().parents[1]
PARTS = ("pipeline", "downloads", "run", "workers", "container-image", "cluster")


@dataclass(frozen=True)
class Run:
    """Seconds of a whole run and of its extraction, and the steps that ran."""

    wall_s: float
    extraction_s: float
    steps: tuple[str, ...]


def timed_run(out: Path, **values: Any) -> Run:
    """Run the pipeline on the digits with the local runner; write to `out`."""
    from pipelines.local.run import run_locally
    from pipelines.recipes.recipe import make_recipe

    recipe = make_recipe(
        sources=("sample:digits",), strategies=("head",), model_name="digits",
        destination=str(out / "models"), work_dir=str(out / "work"), **values,
    )  # fmt: skip
    first_seen: dict[str, float] = {}

    def listen(line: str) -> None:
        first_seen.setdefault(line.split(" in ")[0], time.perf_counter())

    start = time.perf_counter()
    summary = run_locally(recipe, out, listen)
    wall_s = time.perf_counter() - start
    ingested, extracted = (
        first_seen.get(line, start) for line in ("ingest: done", "train_head: start")
    )
    return Run(wall_s, extracted - ingested, tuple(summary.timings))


def steps_s(out: Path) -> float:
    """Return the seconds of all steps of the run in `out`, from the manifests."""
    seconds: dict[str, float] = {}
    for file in (out / "steps").rglob("*.json"):
        content = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(content, dict) and (made_by := content.get("made_by")):
            step = made_by["step"]
            seconds[step] = max(seconds.get(step, 0.0), made_by["seconds"])
    return sum(seconds.values())


@contextlib.contextmanager
def on_one_core() -> Iterator[None]:
    """Run this process, and the processes that it starts, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def worker_metrics(folder: Path, values: dict[str, Any]) -> dict[str, Metric]:
    """Measure extraction with one worker on one core, one on all cores, and two workers."""
    more = values | {
        "views": 3,
        "augment": "light",
        "min_accuracy": 0.9999,
    }  # the run ends with evaluate
    with on_one_core():
        one_core = timed_run(folder / "one-core", workers=1, **more).extraction_s
    alone = timed_run(folder / "alone", workers=1, **more).extraction_s
    both = timed_run(folder / "two", workers=2, **more).extraction_s
    return {
        "extraction_1_worker_1_core": Metric(one_core, "s"),
        "extraction_1_worker": Metric(alone, "s"),
        "extraction_2_workers": Metric(both, "s"),
        "efficiency_2_workers": Metric(one_core / (2 * both)),
    }


def pipeline_metrics(folder: Path) -> dict[str, Metric]:
    """Measure the size of the compiled pipeline."""
    from pipelines.cluster.compilation import compile_pipeline
    from pipelines.recipes.recipe import make_recipe

    metrics = {}
    for workers, name in ((1, "1_worker"), (8, "8_workers")):
        file = folder / f"{name}.yaml"
        compile_pipeline(make_recipe(sources=("sample:digits",), workers=workers), file)
        metrics[f"pipeline_size_{name}"] = Metric(file.stat().st_size / 1e3, "kB")
    return metrics


def download_metrics(folder: Path, values: dict[str, Any]) -> dict[str, Metric]:
    """Measure what each step downloads on a cluster, relative to the files that it reads."""
    from benchmarks.step_downloads import measure_downloads

    metrics = {}
    accepted = {"sources": ("sample:digits",), "min_accuracy": 0.1}
    for step, one in measure_downloads(folder, values | accepted).items():
        metrics[f"downloaded_{step}"] = Metric(one.downloaded / 1e6, "MB")
        metrics[f"download_ratio_{step}"] = Metric(one.ratio, "", "<= 1.05")
    return metrics


def run_metrics(folder: Path, values: dict[str, Any]) -> dict[str, Metric]:
    """Measure one run, then the same run again."""
    out = folder / "run"
    first = timed_run(out, **values)
    steps = steps_s(out)
    again = timed_run(out, **values)
    return {
        "wall_time": Metric(first.wall_s, "s"),
        "steps_time": Metric(steps, "s"),
        "overhead_per_step": Metric((first.wall_s - steps) / len(first.steps), "s", "<= 5"),
        "unchanged_rerun": Metric(again.wall_s, "s", "<= 15"),
        "steps": Metric(len(first.steps)),
        "unchanged_rerun_steps": Metric(len(again.steps)),
    }


def container_image_metrics() -> dict[str, Metric]:
    """Build the container image without a cache; its size is that of the unpacked files."""
    import docker

    from regraft_core.runtime.container_image import IMAGE

    start = time.perf_counter()
    subprocess.run(["make", "image", "BUILD_FLAGS=--no-cache"], check=True, cwd=CHECKOUT)
    seconds = time.perf_counter() - start
    size = float(docker.from_env().images.get(IMAGE).attrs["Size"])
    return {
        "container_image_build": Metric(seconds, "s"),
        "container_image_size": Metric(size / 1e9, "GB"),
    }


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--only", choices=PARTS, help="Measure only this part.")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--image-px", type=int, default=64)
    parser.add_argument("--server", help="Address of the server, for `--only cluster`.")
    parser.add_argument("--run", help="ID of a run that has ended, for `--only cluster`.")
    parser.add_argument("--workers-px", type=int, default=128, help="Image size for the workers.")


def measure(options: argparse.Namespace) -> Measurement:
    """Measure the run and the workers, or only the part that `--only` names.

    The metrics of the other parts stay in the result.
    """
    metrics = read_metrics(options.json)
    values = {"backbone": options.backbone, "image_px": options.image_px}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.only in (None, "pipeline"):
            metrics |= pipeline_metrics(folder)
        if options.only in (None, "downloads"):
            (folder / "downloads").mkdir()
            metrics |= download_metrics(folder / "downloads", values)
        if options.only in (None, "run"):
            metrics |= run_metrics(folder, values)
        if options.only in (None, "workers"):
            metrics |= worker_metrics(folder, values | {"image_px": options.workers_px})
    if options.only == "container-image":
        metrics |= container_image_metrics()
    if options.only == "cluster":
        if not (options.server and options.run):
            raise InputError("expected --server and --run with --only cluster")
        metrics |= cluster_metrics(options.server, options.run)
    conditions = (
        f"digits on {options.backbone} at {options.image_px} px, strategy head, subprocess runner"
    )
    parts = (options.only,) if options.only else PARTS[:-2]
    return Measurement(conditions, metrics, parts)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    run_benchmark("orchestration", __doc__, add_options, measure, arguments)


if __name__ == "__main__":
    main()
