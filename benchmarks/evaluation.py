"""Evaluation compared with the model's bare forward pass; size and time of the report.

    regraft bench evaluation --json benchmarks/results/evaluation.json
    regraft bench evaluation --json benchmarks/results/evaluation.json --only familiarity

`--only` measures one part and keeps the other metrics of the file.

`familiarity`: models of digits, of Fashion-MNIST and of tiles of photographs at 64 px score the
test images of their own classes, each other's images, whole photographs, noise, and blurred digits.
For each, the AUROC and the fraction below the threshold, also of the energy score of the same
logits, which Regraft used before. It needs Fashion-MNIST, as `sample:fashion-mnist` does.

`speed`: digits (10 classes) on `efficientnet_lite0`. The bare forward pass runs the same graph on
pixels that are already decoded; evaluation reads, checks, decodes and runs. Both are measured in
turn in one process, after a warm-up run that builds the graphs. The metrics are medians.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.familiarity import measure_familiarity
from benchmarks.result import Measurement, Metric, read_metrics, run_benchmark

PARTS = ("speed", "familiarity")


def make_candidates(work: Path, backbone: str, image_px: int) -> tuple[Path, list[Path]]:
    """Ingest the digits and train a head and a candidate; return dataset and candidates."""
    from components.extract_features.extract_features import extract_features
    from components.fine_tune.fine_tune import fine_tune
    from components.ingest.ingest import ingest
    from components.train_head.train_head import train_head
    from regraft_core.formats.options.extract_features import FeatureOptions
    from regraft_core.formats.options.fine_tune import FineTuneOptions
    from regraft_core.formats.options.ingest import IngestOptions
    from regraft_core.formats.options.train_head import HeadOptions

    dataset, features, head = work / "dataset", work / "features", work / "head"
    ingest(["sample:digits"], dataset, IngestOptions())
    extract_features(
        dataset, features, FeatureOptions(backbone=backbone, image_px=image_px, keep_cut=False)
    )
    train_head([features], head, HeadOptions())
    fine_tune(dataset, [features], head, work / "candidate", FineTuneOptions(strategy="head"))
    return dataset, [work / "candidate"]


def speed(dataset: Path, candidate: Path, batch_size: int, runs: int) -> tuple[float, float, int]:
    """Return images/s of the bare forward pass and of `predict`, and the number of images."""
    import tensorflow as tf

    from components.evaluate.predict import build_runner, predict
    from regraft_core.formats.manifests.dataset import Split
    from regraft_core.formats.records import read_split
    from regraft_core.training.model_files import load_model
    from regraft_core.training.ood_detector import OodDetector

    model, manifest = load_model(candidate)
    runner = build_runner(
        model, manifest.preprocessing, OodDetector.read(candidate, manifest.ood_detector)
    )
    splits: tuple[Split, ...] = ("validation", "test")
    encoded = [record.encoded for split in splits for record in read_split(dataset, split)]
    count = len(encoded)
    starts = range(0, count, batch_size)
    batches = [runner.load(tf.constant(encoded[start : start + batch_size])) for start in starts]
    bare, evaluation = [], []
    for run in range(runs + 1):
        start = time.perf_counter()
        for batch in batches:
            runner.forward(batch)[0].numpy()
        middle = time.perf_counter()
        predict(runner, dataset, splits, batch_size)
        end = time.perf_counter()
        if run:
            bare.append(count / (middle - start))
            evaluation.append(count / (end - middle))
    return statistics.median(bare), statistics.median(evaluation), count


def measure_report(dataset: Path, candidates: list[Path], out: Path) -> tuple[float, float, float]:
    """Return the report's size in MB, the seconds to rebuild it and those of the whole step."""
    from components.evaluate.evaluate import evaluate
    from components.evaluate.report.report import rebuild_report
    from regraft_core.formats.options.evaluate import GateOptions

    start = time.perf_counter()
    evaluate(candidates, dataset, out, GateOptions())
    step_s = time.perf_counter() - start
    start = time.perf_counter()
    page = rebuild_report(out)
    return page.stat().st_size / 1e6, time.perf_counter() - start, step_s


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--only", choices=PARTS, help="Measure only this part.")
    parser.add_argument("--fashion", type=Path, help="Folder of Fashion-MNIST's idx files.")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--image-px", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--runs", type=int, default=3)


def measure(options: argparse.Namespace) -> Measurement:
    """Measure the parts that `--only` selects; the metrics of the others stay in the result."""
    parts = [options.only] if options.only else PARTS
    metrics = read_metrics(options.json)
    for part in parts:
        with tempfile.TemporaryDirectory() as work:
            if part == "speed":
                metrics |= measure_speed(Path(work), options)
            else:
                metrics |= dict(measure_familiarity(Path(work), options.fashion))
    return Measurement(
        f"speed: digits, median of {options.runs} runs after a warm-up run; the time of the whole "
        "step includes building the graphs; familiarity: strategy head, efficientnet_lite0, 64 px",
        metrics,
        parts,
    )


def measure_speed(folder: Path, options: argparse.Namespace) -> dict[str, Metric]:
    """Measure the speed of evaluation, and the size and time of the report."""
    dataset, candidates = make_candidates(folder, options.backbone, options.image_px)
    bare, evaluation, count = speed(dataset, candidates[0], options.batch_size, options.runs)
    size_mb, rebuild_s, step_s = measure_report(dataset, candidates, folder / "evaluation")
    return {
        "bare_forward": Metric(bare, "images/s"),
        "evaluation": Metric(evaluation, "images/s"),
        "ratio_to_bare_forward": Metric(evaluation / bare, goal=">= 0.9"),
        "speed_images": Metric(count, "images"),
        "report_size": Metric(size_mb, "MB", "<= 5"),
        "step_with_report": Metric(step_s, "s", "<= 20"),
        "report_rebuild": Metric(rebuild_s, "s", "<= 20"),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the result."""
    run_benchmark("evaluation", __doc__, add_options, measure, arguments)


if __name__ == "__main__":
    main()
