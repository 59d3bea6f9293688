"""Training steps in float32 and in bfloat16 without a GPU: their seconds, and the test accuracy.

The steps are those of `top`, from cached activations, and of `full`, from images, in batches of 32.
Both precisions run in turn on the same rows, and the shortest time of each counts. Backbones other
than `efficientnet_lite0` have random weights, because the speed does not depend on them.

The accuracy is that of `top` on scikit-learn's digits with `efficientnet_lite0`, forced to each
precision with the same seeds, which set splits, order of the images and head. The difference is the
mean over the seeds, bfloat16 minus float32, and its standard error.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.result import Metric

PRECISIONS: Mapping[Literal["float32", "mixed"], str] = {"float32": "float32", "mixed": "bfloat16"}


@dataclass(frozen=True)
class StepCase:
    """A backbone whose steps are timed."""

    backbone: str
    weights: str
    image_px: int
    images: int = 160


@dataclass(frozen=True)
class AccuracyCase:
    """The training whose accuracy is compared."""

    backbone: str = "efficientnet_lite0"
    image_px: int = 64
    epochs: int = 10
    images: int = 1797


STEP_CASES = (
    StepCase("vgg16", "random", 150),
    StepCase("resnet50", "random", 224),
    StepCase("efficientnet_lite0", "imagenet", 96),
)
Metrics = Iterator[tuple[str, Metric]]


def precision(
    work: Path, seeds: int, rounds: int = 10, cases: Sequence[StepCase] = STEP_CASES,
    accuracy_case: AccuracyCase | None = None,
) -> Metrics:  # fmt: skip
    """Yield the seconds of the steps of each case, and the accuracies.

    Args:
        work: a folder for the steps' outputs.
        seeds: number of trainings in each precision.
        rounds: how often each step is timed.
        cases: backbones whose steps are timed.
        accuracy_case: the training whose accuracy is compared.
    """
    for case in cases:
        yield from step_times(work / case.backbone, case, rounds)
    yield from accuracies(work / "accuracy", seeds, accuracy_case or AccuracyCase())


def step_times(work: Path, case: StepCase, rounds: int) -> Metrics:
    """Yield the seconds of a step in each precision, and how much faster bfloat16 is."""
    from components.extract_features.extract_features import extract_features
    from components.fine_tune.fine_tune import load_parts
    from components.fine_tune.training_precision import StepBuilder
    from components.ingest.ingest import ingest
    from components.train_head.train_head import train_head
    from regraft_core.formats.options.extract_features import FeatureOptions
    from regraft_core.formats.options.fine_tune import FineTuneOptions
    from regraft_core.formats.options.ingest import IngestOptions
    from regraft_core.formats.options.train_head import HeadOptions

    dataset, features, head = work / "dataset", work / "features", work / "head"
    _write_digits(work / "digits", case.images)
    ingest([str(work / "digits")], dataset, IngestOptions(near_duplicates="off"))
    options = FeatureOptions(
        backbone=case.backbone, weights=case.weights, image_px=case.image_px, precision="float32"
    )
    extract_features(dataset, features, options)
    train_head([features], head, HeadOptions())
    for strategy in ("top", "full"):
        parts = load_parts(dataset, [features], head)
        builder = StepBuilder(parts, strategy, FineTuneOptions(strategy=strategy), rounds)
        steps = {"float32": builder.build(""), "bfloat16": builder.build("bfloat16")}
        found = shortest(steps, rounds)
        name = f"precision_{case.backbone}_{strategy}"
        for half, seconds in found.items():
            yield f"{name}_{half}_step", Metric(seconds, "s")
        yield f"{name}_speedup", Metric(found["float32"] / found["bfloat16"])


def shortest(steps: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the shortest time of each step, all run in turn."""
    found = dict.fromkeys(steps, float("inf"))
    for _ in range(rounds):
        for name, run in steps.items():
            start = time.perf_counter()
            run()
            found[name] = min(found[name], time.perf_counter() - start)
    return found


def accuracies(work: Path, seeds: int, case: AccuracyCase) -> Metrics:
    """Yield the test accuracy of each precision, and the difference of the same seeds."""
    _write_digits(work / "digits", case.images)
    runs = [accuracy_by_precision(work, seed, case) for seed in range(seeds)]
    for half in PRECISIONS.values():
        values = [run[half] for run in runs]
        yield f"precision_digits_{half}_test_accuracy", Metric(statistics.mean(values))
    yield from difference(runs)


def _write_digits(folder: Path, count: int) -> None:
    from components.ingest.sources.samples import write_digits

    write_digits(folder)
    for path in folder.rglob("*.png"):
        if int(path.stem) >= count:
            path.unlink()


def difference(runs: Sequence[Mapping[str, float]]) -> Metrics:
    """Yield the mean difference of the accuracies of runs, and its standard error, in points."""
    points = [100 * (run["bfloat16"] - run["float32"]) for run in runs]
    yield "precision_digits_difference", Metric(statistics.mean(points), "points")
    if len(points) > 1:
        error = statistics.stdev(points) / len(points) ** 0.5
        yield "precision_digits_difference_error", Metric(error, "points")


def accuracy_by_precision(work: Path, seed: int, case: AccuracyCase) -> dict[str, float]:
    """Return the test accuracy of `top` in each precision, from the same head."""
    from benchmarks.split_images import read_split_images
    from components.extract_features.extract_features import extract_features
    from components.fine_tune.fine_tune import fine_tune
    from components.ingest.ingest import ingest
    from components.train_head.train_head import train_head
    from regraft_core.formats.options.extract_features import FeatureOptions
    from regraft_core.formats.options.fine_tune import FineTuneOptions
    from regraft_core.formats.options.ingest import IngestOptions
    from regraft_core.formats.options.train_head import HeadOptions
    from regraft_core.training.model_files import load_model

    out = work / str(seed)
    dataset, features, head = out / "dataset", out / "features", out / "head"
    ingest([str(work / "digits")], dataset, IngestOptions(near_duplicates="off", seed=seed))
    options = FeatureOptions(
        backbone=case.backbone, image_px=case.image_px, precision="float32", seed=seed
    )
    extract_features(dataset, features, options)
    train_head([features], head, HeadOptions(seed=seed))
    pixels, labels = read_split_images(dataset, "test", case.backbone, case.image_px)
    found = {}
    for forced, half in PRECISIONS.items():
        tuning = FineTuneOptions(
            strategy="top", fine_tune_epochs=case.epochs, learning_rate=2e-4, seed=seed,
            precision=forced,
        )  # fmt: skip
        fine_tune(dataset, [features], head, out / half, tuning)
        predicted = load_model(out / half)[0].predict(pixels, verbose=0).argmax(axis=1)
        found[half] = float((predicted == labels).mean())
    return found
