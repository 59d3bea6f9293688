"""Memory and time by the number of images: decisions of ingest, and the steps to a gated head.

    regraft bench scale_catalog --json benchmarks/results/scale_catalog.json

Part `catalog` adds synthetic rows to the catalog of ingest (1% exact copies, 1% near duplicates, 5%
in groups of 5 images, all with thumbnails) and times the search for duplicates and the assignment
of splits. Part `steps` makes small images of noise, 28 px, and runs ingest, extraction, head,
candidate and evaluation for two numbers of images. Its bytes per image are the difference of the
peaks, divided by the difference of the numbers.

All steps run in a new process, whose peak memory (VmHWM) includes Python and its libraries. That of
ingest is the process that decides; its workers, which read images, hold few at a time.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from benchmarks.catalog_rows import BLOCK, CLASSES, synthetic_rows
from benchmarks.result import Measurement, Metric, read_metrics, run_benchmark
from benchmarks.small_images import write_small_images
from benchmarks.training_scaling import peak_mb

CHECKOUT = Path(__file__).resolve().parents[1]
PARTS = ("catalog", "steps")
STEPS = ("ingest", "extraction", "head", "candidate", "evaluation")
LARGEST = 10_000_000
BYTES_GOAL, MEMORY_GOAL, TIME_GOAL = "<= 200", "<= 3000", "<= 600"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the result."""
    run_benchmark("scale_catalog", __doc__, _add_options, _measure, arguments)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", choices=PARTS, help="Measure only this part.")
    parser.add_argument("--rows", type=int, default=LARGEST, help="Rows of the catalog.")
    parser.add_argument("--images", type=int, default=60_000, help="Small images of the steps.")
    parser.add_argument("--backbone", default="tiny", help="Backbone of the steps.")
    parser.add_argument("--image-px", type=int, default=32, help="Input image size in pixels.")
    parser.add_argument("--work", type=Path, help="Folder for the files, by default a temporary.")


def _measure(options: argparse.Namespace) -> Measurement:
    parts = [options.only] if options.only else PARTS
    metrics = read_metrics(options.json)
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        if "catalog" in parts:
            metrics |= dict(_catalog_metrics(Path(folder), options.rows))
        if "steps" in parts:
            metrics |= dict(_step_metrics(Path(folder), options))
    return Measurement(
        f"{options.rows:,} rows; {options.images // 3:,} and {options.images:,} images of 28 px, "
        f"{options.backbone} at {options.image_px} px, levels: last",
        metrics,
        parts,
    )


def _catalog_metrics(folder: Path, rows: int) -> Iterator[tuple[str, Metric]]:
    found = _run_in_process("catalog", folder, {"rows": rows})
    largest = rows >= LARGEST
    decided_s = found["duplicates_s"] + found["splits_s"]
    yield "catalog_rows", Metric(rows)
    yield "catalog_insert", Metric(rows / found["insert_s"], "rows/s")
    yield "catalog_duplicates", Metric(found["duplicates_s"], "s")
    yield "catalog_splits", Metric(found["splits_s"], "s")
    yield "catalog_decisions", Metric(decided_s, "s", TIME_GOAL if largest else "")
    yield "catalog_decisions_cpu", Metric(found["cpu_s"], "s")
    yield "catalog_peak_memory", Metric(found["peak_mb"], "MB", MEMORY_GOAL if largest else "")
    grown = (found["peak_mb"] - found["before_mb"]) * 1e6
    yield "catalog_memory_per_image", Metric(grown / rows, "bytes", BYTES_GOAL)
    yield "catalog_disk_per_image", Metric(found["disk"] / rows, "bytes")


def _step_metrics(folder: Path, options: argparse.Namespace) -> Iterator[tuple[str, Metric]]:
    counts = (options.images // 3, options.images)
    settings = {"backbone": options.backbone, "image_px": options.image_px}
    costs: dict[str, list[dict[str, Any]]] = {step: [] for step in STEPS}
    for count in counts:
        work = folder / str(count)
        write_small_images(work / "images", count)
        for step in STEPS:
            costs[step].append(_run_in_process(step, work, settings))
    seconds = sum(costs[step][-1]["seconds"] for step in STEPS)
    yield "steps_images", Metric(options.images)
    yield "steps_speed", Metric(options.images / seconds, "images/s")
    for step, (fewer, more) in costs.items():
        yield f"steps_{step}", Metric(more["seconds"], "s")
        yield f"steps_{step}_peak_memory", Metric(more["peak_mb"], "MB")
        grown = (more["peak_mb"] - fewer["peak_mb"]) * 1e6 / (counts[1] - counts[0])
        yield f"steps_{step}_memory_per_image", Metric(grown, "bytes")


def _run_in_process(what: str, folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Run `run_here` in a new process."""
    values = [what, str(folder.absolute()), json.dumps(settings)]
    command = [sys.executable, "-m", "benchmarks.scale_catalog", *values]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def run_here(what: str, folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Run one step, or the decisions about the catalog, in this process; return its costs."""
    if what == "catalog":
        return _decide(folder, settings["rows"])
    run = _step(what, folder, **settings)
    start = time.perf_counter()
    run()
    return {"seconds": time.perf_counter() - start, "peak_mb": peak_mb()}


def _decide(folder: Path, rows: int) -> dict[str, float]:
    from components.ingest.catalog.catalog import Catalog
    from components.ingest.splits.assignment import assign_catalog
    from components.ingest.splits.duplicates import resolve_duplicates
    from regraft_core.formats.options.ingest import IngestOptions

    options = IngestOptions()
    catalog = Catalog(folder / "catalog.sqlite", create=True)
    times = [time.perf_counter()]
    made = synthetic_rows(rows)
    while chunk := list(islice(made, BLOCK)):
        catalog.add_images(chunk)
    times.append(time.perf_counter())
    before_mb, cpu_s = peak_mb(), time.process_time()
    resolve_duplicates(catalog, options)
    times.append(time.perf_counter())
    assign_catalog(catalog, [f"class {one}" for one in range(CLASSES)], options, has_groups=True)
    times.append(time.perf_counter())
    cpu_s = time.process_time() - cpu_s
    catalog.close()
    insert_s, duplicates_s, splits_s = (end - start for start, end in pairwise(times))
    return {
        "insert_s": insert_s, "duplicates_s": duplicates_s, "splits_s": splits_s, "cpu_s": cpu_s,
        "before_mb": before_mb, "peak_mb": peak_mb(),
        "disk": (folder / "catalog.sqlite").stat().st_size,
    }  # fmt: skip


def _step(step: str, folder: Path, backbone: str, image_px: int) -> Callable[[], object]:
    """Import what a step needs; return a function that runs it on the outputs of those before."""
    dataset, features = folder / "dataset", folder / "features"
    if step == "ingest":
        from components.ingest.ingest import ingest
        from regraft_core.formats.options.ingest import IngestOptions

        return lambda: ingest([str(folder / "images")], dataset, IngestOptions())
    if step == "extraction":
        from components.extract_features.extract_features import extract_features
        from regraft_core.formats.options.extract_features import FeatureOptions

        chosen = FeatureOptions(backbone=backbone, image_px=image_px, levels="last", keep_cut=False)
        return lambda: extract_features(dataset, features, chosen)
    if step == "head":
        from components.train_head.train_head import train_head
        from regraft_core.formats.options.train_head import HeadOptions

        last = HeadOptions(levels="last")
        return lambda: train_head([features], folder / "head", last)
    if step == "candidate":
        from components.fine_tune.fine_tune import fine_tune
        from regraft_core.formats.options.fine_tune import FineTuneOptions

        only_head = FineTuneOptions(strategy="head")
        return lambda: fine_tune(
            dataset, [features], folder / "head", folder / "candidate", only_head
        )
    from components.evaluate.evaluate import evaluate
    from regraft_core.formats.options.evaluate import GateOptions

    gate = GateOptions()
    return lambda: evaluate([folder / "candidate"], dataset, folder / "evaluation", gate)


if __name__ == "__main__":
    print(json.dumps(run_here(sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]))))
