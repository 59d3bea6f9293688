"""The accuracy of `regraft estimate --from-run`: whole local runs, predicted from two short ones.

    regraft bench estimate --json benchmarks/results/estimate.json

Fashion-MNIST with strategies `head` and `top`. A first run, which is not counted, reads libraries
and weights from disk. Two short runs give the start-up time and the rate of each step. Two larger
runs are predicted and compared, by the sum of the seconds of their steps. The gate accepts every
model, so that all steps run.

`top` ends after its trials of learning rates, or later. Both ends are predicted before a run, and
what it took is compared with the prediction for as many epochs as it trained.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.result import Measurement, Metric, run_benchmark
from components.ingest.sources.samples import write_fashion
from pipelines.cluster.runtime_estimate import Estimate, Plan, Rates, estimate_run, trial_epochs
from pipelines.cluster.sample_runs import SampleRun, rates_of_samples
from pipelines.finished_run import read_sample_run

ALL_ACCEPTED: dict[str, Any] = {
    "accuracy_rule": "point",
    "min_accuracy": 0.0,
    "baseline_rule": "off",
}
NO_LIMIT = {"node_mb_s": 1e6, "storage_mb_s": 1e6, "source_mb_s": 1e6}
"""Bandwidths of a local run: all files are on its disk."""


def main(arguments: list[str] | None = None) -> None:
    """Measure and write the result."""
    run_benchmark("estimate", __doc__, _add_options, _measure, arguments)


def _add_options(parser: argparse.ArgumentParser) -> None:
    for name, default, text in (
        ("--samples", "1000,4000", "Images of the two short runs."),
        ("--sizes", "10000,20000", "Images of the runs to predict."),
        ("--strategies", "head,top", "Strategies of all runs."),
    ):
        parser.add_argument(name, default=default, help=f"{text} Comma-separated.")
    parser.add_argument("--backbone", default="efficientnet_lite0", help="Backbone to run.")
    parser.add_argument("--image-px", type=int, default=64, help="Input image size in pixels.")
    parser.add_argument("--epochs", type=int, default=4, help="Number of epochs for strategy top.")


def _measure(options: argparse.Namespace) -> Measurement:
    first, second = _sizes(options.samples)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _run(root, "warm-up", first, options)
        samples = [_run(root, f"sample-{size}", size, options) for size in (first, second)]
        rates = rates_of_samples(*samples, Rates())
        measured = [_run(root, f"run-{size}", size, options) for size in _sizes(options.sizes)]
    metrics = {"samples": Metric(sum(sum(one.seconds.values()) for one in samples), "s")}
    for name in ("ingest_rate", "extract_rate", "head_rate", "top_rate", "evaluate_rate"):
        metrics[name] = Metric(getattr(rates, name), "images/s")
    for run in measured:
        metrics |= _compared(run, estimate_run(_plan(run, options.epochs), rates))
    return Measurement(f"runs one after the other, images of the samples: "
                       f"{[one.images for one in samples]}", metrics)  # fmt: skip


def _compared(run: SampleRun, estimate: Estimate) -> dict[str, Metric]:
    """Return the figures of a run and of its estimate."""
    seconds, name = sum(run.seconds.values()), f"{run.images}_images"
    trials, last = trial_epochs(estimate.plan), estimate.plan.top_epochs
    trained = (run.top_epochs - trials) / last
    shortest, longest = estimate.without_gain_s, estimate.total_s
    predicted = shortest + trained * (longest - shortest)
    return {
        f"measured_{name}": Metric(seconds, "s"),
        **{f"{step}_{name}": Metric(value, "s") for step, value in run.seconds.items()},
        f"top_epochs_{name}": Metric(run.top_epochs, f"of {trials} to {trials + last}"),
        f"shortest_{name}": Metric(shortest, "s"),
        f"longest_{name}": Metric(longest, "s"),
        f"predicted_{name}": Metric(predicted, "s"),
        f"relative_error_{name}": Metric(abs(predicted / seconds - 1), "", "<= 0.1"),
    }


def _plan(run: SampleRun, epochs: int) -> Plan:
    """Return the plan of a local run, with its own splits."""
    return Plan(
        run.images,
        train_fraction=run.train / run.images,
        validation_fraction=run.validation / run.images,
        top_epochs=epochs,
        **NO_LIMIT,
    )


def _sizes(text: str) -> list[int]:
    """Return two numbers of images.

    Raises:
        ValueError: there are not two.
    """
    sizes = [int(one) for one in text.split(",")]
    if len(sizes) != 2:
        raise ValueError(f"expected two numbers of images, got {text!r}")
    return sizes


def _run(root: Path, name: str, images: int, options: argparse.Namespace) -> SampleRun:
    """Run the pipeline on so many images; return its seconds."""
    from pipelines.local.run import run_locally
    from pipelines.recipes.recipe import make_recipe

    write_fashion(root / name / "images", limit=images // 2)  # for training, and for test
    out = root / name / "run"
    recipe = make_recipe(
        sources=(str(root / name / "images"),),
        strategies=tuple(options.strategies.split(",")),
        backbone=options.backbone,
        image_px=options.image_px,
        fine_tune_epochs=options.epochs,
        model_name="fashion",
        destination=str(out / "models"),
        **ALL_ACCEPTED,
    )
    run_locally(recipe, out)
    return read_sample_run(out)


if __name__ == "__main__":
    main()
