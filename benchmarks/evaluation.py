"""Evaluation beside the model's raw forward pass, and the report's size and time.

    regraft bench evaluation --json benchmarks/results/evaluation.json

Digits (10 classes) on `efficientnet_lite0`. The raw side runs the same graph over pixels that are
decoded beforehand; evaluation's side reads, checks, decodes and runs. Both are measured in turn in
one process, after a first pass that builds the graphs; the figures are medians.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.result import Figure, Measured, run_benchmark


def candidates_of(work: Path, backbone: str, image_px: int) -> tuple[Path, list[Path]]:
    """Ingest the digits and train a head and a candidate; return dataset and candidates."""
    from components.extract_features.extract_features import extract_features
    from components.fine_tune.fine_tune import fine_tune
    from components.ingest.ingest import ingest
    from components.train_head.train_head import train_head
    from regraft_core.formats.options import (
        FeatureOptions,
        FineTuneOptions,
        HeadOptions,
        IngestOptions,
    )

    dataset, features, head = work / "dataset", work / "features", work / "head"
    ingest(["sample:digits"], dataset, IngestOptions())
    extract_features(
        dataset, features, FeatureOptions(backbone=backbone, image_px=image_px, keep_cut=False)
    )
    train_head([features], head, HeadOptions(head_epochs=5))
    fine_tune(dataset, [features], head, work / "candidate", FineTuneOptions(strategy="head"))
    return dataset, [work / "candidate"]


def speed(dataset: Path, candidate: Path, batch_size: int, runs: int) -> tuple[float, float, int]:
    """Return images a second of the raw forward pass and of `predict`, and how many images."""
    import tensorflow as tf

    from components.evaluate.predict import build_runner, predict
    from regraft_core.formats.manifests import Split
    from regraft_core.formats.records import read_split
    from regraft_core.training.model_files import load_model

    model, manifest = load_model(candidate)
    runner = build_runner(model, manifest.preprocessing)
    splits: tuple[Split, ...] = ("validation", "test")
    encoded = [record.encoded for split in splits for record in read_split(dataset, split)]
    count = len(encoded)
    starts = range(0, count, batch_size)
    batches = [runner.load(tf.constant(encoded[start : start + batch_size])) for start in starts]
    raw, whole = [], []
    for run in range(runs + 1):
        start = time.perf_counter()
        for batch in batches:
            runner.forward(batch).numpy()
        middle = time.perf_counter()
        predict(runner, dataset, splits, batch_size)
        end = time.perf_counter()
        if run:
            raw.append(count / (middle - start))
            whole.append(count / (end - middle))
    return statistics.median(raw), statistics.median(whole), count


def report(dataset: Path, candidates: list[Path], out: Path) -> tuple[float, float, float]:
    """Return megabytes of the report, seconds to make it again, and seconds of the whole step."""
    from components.evaluate.evaluate import evaluate
    from components.evaluate.report.report import rebuild_report
    from regraft_core.formats.options import GateOptions

    start = time.perf_counter()
    evaluate(candidates, dataset, out, GateOptions())
    step_s = time.perf_counter() - start
    start = time.perf_counter()
    page = rebuild_report(out)
    return page.stat().st_size / 1e6, time.perf_counter() - start, step_s


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what may be varied."""
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--image-px", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--runs", type=int, default=3)


def measure(options: argparse.Namespace) -> Measured:
    """Measure speed, and the report's size and time."""
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        dataset, candidates = candidates_of(folder, options.backbone, options.image_px)
        raw, whole, count = speed(dataset, candidates[0], options.batch_size, options.runs)
        size_mb, page_s, step_s = report(dataset, candidates, folder / "evaluation")
    return Measured(
        f"digits, {count} images for the speed, median of {options.runs} runs; "
        "graphs built beforehand; the step's seconds include building them",
        {
            "raw_forward": Figure(raw, "images/s"),
            "evaluation": Figure(whole, "images/s"),
            "share_of_raw": Figure(whole / raw, goal=">= 0.9"),
            "report_size": Figure(size_mb, "MB", "<= 5"),
            "step_with_report": Figure(step_s, "s", "<= 20"),
            "report_again": Figure(page_s, "s", "<= 20"),
        },
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the figures."""
    run_benchmark("evaluation", __doc__, add_options, measure, arguments)


if __name__ == "__main__":
    main()
