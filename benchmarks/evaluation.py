"""Evaluation beside the model's raw forward pass, and the report's size and time.

    python -m benchmarks.evaluation --json benchmarks/results/evaluation.json

Digits (10 classes) on `efficientnet_lite0`. The raw side runs the same graph over pixels that are
decoded beforehand; evaluation's side reads, checks, decodes and runs. Both are measured in turn in
one process, after a first pass that builds the graphs; the figures are medians.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any


def candidates_of(work: Path, backbone: str, image_px: int) -> tuple[Path, list[Path]]:
    """Ingest the digits and train a head and a candidate; return dataset and candidates."""
    from components.core.options import FeatureOptions, FineTuneOptions, HeadOptions, IngestOptions
    from components.extract_features.extract_features import extract_features
    from components.fine_tune.fine_tune import fine_tune
    from components.ingest.ingest import ingest
    from components.train_head.train_head import train_head

    dataset, features, head = work / "dataset", work / "features", work / "head"
    ingest(["sample:digits"], dataset, IngestOptions())
    extract_features(
        dataset, features, FeatureOptions(backbone=backbone, image_px=image_px, keep_cut=False)
    )
    train_head([features], head, HeadOptions(head_epochs=5))
    fine_tune(dataset, [features], head, work / "candidate", FineTuneOptions(strategy="head"))
    return dataset, [work / "candidate"]


def speed(dataset: Path, candidate: Path, batch_size: int, runs: int) -> tuple[float, float, int]:
    """Return pictures a second of the raw forward pass and of `predict`, and how many pictures."""
    import tensorflow as tf

    from components.core.models import load_model
    from components.core.pictures import pictures
    from components.evaluate.predict import predict, runner_of

    model, manifest = load_model(candidate)
    runner = runner_of(model, manifest.preprocessing)
    px = manifest.preprocessing.image_px
    batches = [batch["pixels"] for batch in pictures(dataset, "train", px, batch_size)]
    count = int(sum(tf.shape(batch)[0] for batch in batches))
    raw, whole = [], []
    for run in range(runs + 1):
        start = time.perf_counter()
        for batch in batches:
            runner.forward(batch).numpy()
        middle = time.perf_counter()
        predict(runner, dataset, ("train",), batch_size)
        end = time.perf_counter()
        if run:
            raw.append(count / (middle - start))
            whole.append(count / (end - middle))
    return statistics.median(raw), statistics.median(whole), count


def report(dataset: Path, candidates: list[Path], out: Path) -> tuple[float, float, float]:
    """Return megabytes of the report, seconds to make it again, and seconds of the whole step."""
    from components.core.options import GateOptions
    from components.evaluate.evaluate import evaluate
    from components.evaluate.report import rebuild_report

    start = time.perf_counter()
    evaluate(candidates, dataset, out, GateOptions())
    step_s = time.perf_counter() - start
    start = time.perf_counter()
    page = rebuild_report(out)
    return page.stat().st_size / 1e6, time.perf_counter() - start, step_s


def main() -> None:
    """Measure and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--image-px", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        dataset, candidates = candidates_of(folder, options.backbone, options.image_px)
        raw, whole, count = speed(dataset, candidates[0], options.batch_size, options.runs)
        size_mb, page_s, step_s = report(dataset, candidates, folder / "evaluation")
    figures: dict[str, Any] = {
        "raw_forward": {"value": raw, "unit": "pictures/s", "goal": "", "holds": None},
        "evaluation": {"value": whole, "unit": "pictures/s", "goal": "", "holds": None},
        "share_of_raw": {"value": whole / raw, "unit": "", "goal": ">= 0.9",
                         "holds": whole / raw >= 0.9},
        "report_size": {"value": size_mb, "unit": "MB", "goal": "<= 5", "holds": size_mb <= 5},
        "step_with_report": {"value": step_s, "unit": "s", "goal": "<= 20", "holds": step_s <= 20},
        "report_again": {"value": page_s, "unit": "s", "goal": "<= 20", "holds": page_s <= 20},
    }  # fmt: skip
    result = {
        "name": "evaluation",
        "command": f"python -m benchmarks.evaluation --json {options.json.name} "
        f"--backbone {options.backbone} --image-px {options.image_px} "
        f"--batch-size {options.batch_size} --runs {options.runs}",
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}",
        "conditions": f"digits, {count} pictures for the speed, median of {options.runs} runs; "
        "warm graphs",
        "figures": figures,
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
