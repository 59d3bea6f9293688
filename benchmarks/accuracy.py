"""Accuracy, time and memory of Regraft's default and of what it is compared with.

    regraft bench accuracy --row digits-64 --json benchmarks/results/accuracy.json

`--row` measures one row. The other rows stay in the result, each with the command, date and machine
of its own measurement.

Rows with images have several seeds (one for 60,000 images). A seed samples the splits, unless the
source has them, and all columns read the same splits of one dataset, with the frozen or trained
backbone `efficientnet_lite0` and its ImageNet weights:

- `regraft`: the steps of a default run, `extract_features`, `train_head` and `fine_tune` with the
  strategies `head` and `top`, all with their defaults; `evaluate` chooses one on validation.
- `budget`: the same with `--budget 3m`, or `30m` for 60,000 images: a search in this time.
- `last_level`: L2-penalized logistic regression by scikit-learn on the globally averaged output of
  the backbone, standardized by one scale, solved to convergence, with one of 17 penalties, chosen
  by 5-fold cross-validation of at most 10,000 rows. It is fitted to train and validation.
- `keras`: the recipe of Keras' guide to transfer learning: flips and rotations, average, dropout
  of 0.2 and a dense layer, 20 epochs of Adam with a frozen backbone, then 10 epochs of Adam with a
  learning rate of 1e-5 on all layers, BatchNormalization in inference mode. The rows with 10,000
  and 60,000 images have a fifth and a tenth of these epochs.

Each column runs in its own process. Its seconds are those from the images of the dataset to a
model, without imports, ingest and test; its memory is the peak of the process.

- `digits-64`: scikit-learn's 1,797 digits at 64 px.
- `fashion-1000`, `fashion-10000`, `fashion-60k`: Fashion-MNIST at 96 px with so many images for
  training and validation, and its 10,000 test images (1,000 for the first).
- `photos-5`, `-10`, `-20`: which of 14 photographs of scikit-image an image is cut from, at 96 px,
  with so many images of each for training and validation. All others are for the test.
- `faces-5`, `-10`, `-20`: scikit-image's 200 faces and other patches at 96 px, likewise.

Two rows measure the head alone:

- `head-time`: `train_head` on the features of 1,797 digits at 64 px, all levels.
- `million`: 1,000,000 synthetic rows of 1,280 features in float16 on disk and 100 classes, one
  given penalty. The loss is compared with that after further steps of L-BFGS in float64.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.accuracy_images import (
    write_digits_row,
    write_faces,
    write_fashion_row,
    write_photos,
)
from benchmarks.accuracy_process import Outcome, Settings, measure_in_process
from benchmarks.result import Measurement, Metric, read_metrics, run_benchmark

CONDITIONS = (
    "no GPU; efficientnet_lite0 with ImageNet weights; means over the seeds; each column in "
    "its own process, on the same splits; seconds from the dataset to a model, without imports and "
    "ingest"
)
Metrics = Iterator[tuple[str, Metric]]


@dataclass(frozen=True)
class Row:
    """Images of one row; `write` gets a folder and the seed.

    `goal` is that of Regraft's accuracy, `budget_goal` that of its accuracy with the budget, and
    `lead` that of the default's points above the logistic regression on the last level or, with
    `against_best`, above the best column of others. `keras_epochs` are those of the two phases of
    Keras' recipe.
    """

    write: Callable[[Path, int], None]
    image_px: int
    goal: str = ""
    lead: str = ""
    against_best: bool = False
    seeds: int | None = None
    budget: str = "3m"
    budget_goal: str = ""
    keras_epochs: tuple[int, int] = (20, 10)


def _fashion(count: int, tests: int) -> Callable[[Path, int], None]:
    return lambda folder, seed: write_fashion_row(folder, count, tests, seed)


def _photos(per_class: int) -> Callable[[Path, int], None]:
    return lambda folder, seed: write_photos(folder, per_class, seed)


def _faces(per_class: int) -> Callable[[Path, int], None]:
    return lambda folder, seed: write_faces(folder, per_class, seed)


_FEW = (5, 10, 20)
ROWS: Mapping[str, Row] = {
    "digits-64": Row(write_digits_row, 64, goal=">= 0.99", lead=">= 0"),
    "fashion-1000": Row(_fashion(1000, 1000), 96, lead=">= 2"),
    "fashion-10000": Row(_fashion(10_000, 10_000), 96, lead=">= 2", keras_epochs=(4, 2)),
    "fashion-60k": Row(
        _fashion(60_000, 10_000),
        96,
        seeds=1,
        budget="30m",
        budget_goal=">= 0.945",
        keras_epochs=(2, 1),
    ),
    **{f"photos-{n}": Row(_photos(n), 96, lead=">= -0.5", against_best=True) for n in _FEW},
    **{f"faces-{n}": Row(_faces(n), 96, lead=">= -0.5", against_best=True) for n in _FEW},
}


def image_row(name: str, work: Path, seeds: int) -> Metrics:
    """Yield the metrics of a row with images."""
    row, outcomes = ROWS[name], dict[str, list[Outcome]]()
    for seed in range(min(seeds, row.seeds or seeds)):
        folder = work / str(seed)
        row.write(folder / "images", seed)
        head_epochs, all_epochs = row.keras_epochs
        settings = Settings(
            image_px=row.image_px, seed=seed, budget=row.budget,
            head_epochs=head_epochs, all_epochs=all_epochs,
        )  # fmt: skip
        ingest_images(folder, settings)
        for column in COLUMNS:
            found = measure_in_process(column, folder, settings)
            print(f"{name}, seed {seed}, {column}: {found}", flush=True)
            outcomes.setdefault(column, []).append(found)
    yield from summarize(name, row, outcomes)


def summarize(name: str, row: Row, outcomes: Mapping[str, Sequence[Outcome]]) -> Metrics:
    """Yield the metrics of a row from each column's outcomes."""
    prefix, means = name.replace("-", "_"), dict[str, float]()
    for column, found in outcomes.items():
        accuracies = [one.value for one in found]
        means[column] = statistics.mean(accuracies)
        goal = {"regraft": row.goal, "budget": row.budget_goal}.get(column, "")
        yield f"{prefix}_{column}_accuracy", Metric(means[column], "", goal)
        if len(found) > 1:
            yield f"{prefix}_{column}_accuracy_std", Metric(statistics.stdev(accuracies))
        seconds = statistics.mean(one.seconds for one in found)
        yield f"{prefix}_{column}_seconds", Metric(seconds, "s")
        yield f"{prefix}_{column}_memory", Metric(max(one.peak_mb for one in found), "MB")
    others = max(mean for column, mean in means.items() if column not in OWN_COLUMNS)
    other = others if row.against_best else means["last_level"]
    yield f"{prefix}_lead", Metric(100 * (means["regraft"] - other), "points", row.lead)
    yield f"{prefix}_seeds", Metric(len(outcomes["regraft"]))


def ingest_images(folder: Path, settings: Settings) -> None:
    """Ingest a row's images, with the splits of the source or those of the seed."""
    from components.ingest.ingest import ingest
    from regraft_core.formats.options.ingest import IngestOptions

    splits = IngestOptions(near_duplicates="off", leakage="report", seed=settings.seed)
    ingest([str(folder / "images")], folder / "dataset", splits)


def head_time(work: Path, seeds: int) -> Metrics:
    """Yield the time from the features of 1,797 digits to a head, and its peak memory."""
    from components.extract_features.extract_features import extract_features
    from components.ingest.ingest import ingest
    from components.ingest.sources.samples import write_digits
    from regraft_core.formats.options.extract_features import FeatureOptions
    from regraft_core.formats.options.ingest import IngestOptions

    write_digits(work / "images")
    few = IngestOptions(near_duplicates="off", validation_fraction=0.01, test_fraction=0.01)
    ingest([str(work / "images")], work / "dataset", few)
    features = FeatureOptions(backbone=Settings.backbone, image_px=64, keep_cut=False)
    extract_features(work / "dataset", work / "features", features)
    found = [measure_in_process("head-time", work, Settings(seed=seed)) for seed in range(seeds)]
    yield "head_time_seconds", Metric(statistics.median(f.seconds for f in found), "s", "<= 10")
    yield "head_time_memory", Metric(max(one.peak_mb for one in found), "MB")


def million(work: Path, seeds: int) -> Metrics:
    """Yield time, memory and relative loss of a head on 1,000,000 rows."""
    from benchmarks.accuracy_heads import write_rows

    write_rows(work)
    found = measure_in_process("million", work, Settings())
    yield "million_seconds", Metric(found.seconds, "s", "<= 600")
    yield "million_memory", Metric(found.peak_mb, "MB", "<= 6000")
    yield "million_loss_ratio", Metric(found.value, "", "<= 1.01")


# Regraft first, then what it is compared with.
OWN_COLUMNS = ("regraft", "budget")
COLUMNS = (*OWN_COLUMNS, "last_level", "keras")
HEAD_ROWS: Mapping[str, Callable[[Path, int], Metrics]] = {
    "head-time": head_time,
    "million": million,
}
ALL_ROWS = (*ROWS, *HEAD_ROWS)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--row", choices=["all", *ALL_ROWS], default="all", help="Measure a row.")
    parser.add_argument("--seeds", type=int, default=5, help="Seeds of each row.")


def measure(options: argparse.Namespace) -> Measurement:
    """Measure the selected rows; the metrics of the others stay in the result."""
    rows = ALL_ROWS if options.row == "all" else (options.row,)
    prefixes = tuple(f"{name.replace('-', '_')}_" for name in rows)
    earlier = read_metrics(options.json).items()
    metrics = {name: metric for name, metric in earlier if not name.startswith(prefixes)}
    for name in rows:
        with tempfile.TemporaryDirectory() as work:
            run = HEAD_ROWS.get(name) or functools.partial(image_row, name)
            for key, metric in run(Path(work), options.seeds):
                metrics[key] = metric
                print(f"{key} {metric.value:.4g} {metric.unit} {metric.goal}", flush=True)
    return Measurement(CONDITIONS, metrics, list(rows))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the result."""
    run_benchmark("accuracy", __doc__, add_options, measure, arguments)


if __name__ == "__main__":
    main()
