"""How well a review finds incorrect labels, and what labels that `suggest` chooses are worth.

    regraft bench review --json benchmarks/results/review.json

`label-errors`: for each seed, 3% of the labels of scikit-learn's digits in train and validation are
changed to a random other class. A reviewer looks at the first 5% of the images in the order of
`regraft review`, and corrects those that were changed; ingest applies the fixes. The test images
keep their labels.
`labeling`: see `benchmarks/labeling.py`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.labeling import measure_labeling
from benchmarks.result import Measurement, Metric, read_metrics, run_benchmark

PARTS = ("label-errors", "labeling")
BACKBONE, IMAGE_PX = "efficientnet_lite0", 64
FLIPPED, LOOKED_AT = 0.03, 0.05
WHEN = "2026-01-01T00:00:00Z"


def measure_label_errors(
    images: Path, clean: Path, test: Path, work: Path, seeds: int
) -> Iterator[tuple[str, Metric]]:
    """Yield the metrics of the review of digits with changed labels.

    Args:
        images: the digits in class folders.
        clean: folder with their `dataset` and `features`.
        test: features of the test images.
        work: an empty folder.
        seeds: number of repetitions.
    """
    from components.evaluate.metrics.statistics import compare

    reference = _correct(clean / "features", test, work / "clean")
    reviews = [review_seed(images, clean, test, work, seed) for seed in range(seeds)]
    yield "found_mean", Metric(statistics.mean(one.found for one in reviews))
    yield "found_min", Metric(min(one.found for one in reviews), "", ">= 0.8")
    yield "suspected_mean", Metric(statistics.mean(one.suspected for one in reviews), "images")
    yield "clean_accuracy", Metric(float(reference.mean()))
    yield "noisy_accuracy", Metric(float(np.mean([one.noisy for one in reviews])))
    yield "fixed_accuracy", Metric(float(np.mean([one.fixed for one in reviews])))
    tests = [compare(one.fixed, reference, "clean") for one in reviews]
    worse = sum(one.difference < 0 and one.p_two_sided < 0.05 for one in tests)
    yield "significantly_worse_seeds", Metric(worse, "", "<= 0")


@dataclass(frozen=True)
class SeedReview:
    """One repetition.

    Attributes:
        found: Fraction of the changed labels that the reviewer corrects.
        suspected: Number of suspected images.
        noisy, fixed: Which test images are predicted correctly, before and after the review.
    """

    found: float
    suspected: int
    noisy: NDArray[np.bool_]
    fixed: NDArray[np.bool_]


def review_seed(images: Path, clean: Path, test: Path, work: Path, seed: int) -> SeedReview:
    """Change labels, review them, and apply the fixes; the folders are those of all seeds."""
    folder = work / str(seed)
    flipped = flip_labels(images, clean / "dataset", folder / "images", seed)
    dataset = _prepare(folder / "images", clean / "features", folder / "noisy")
    noisy = _correct(folder / "noisy/features", test, folder / "noisy/head")
    corrected, suspected = _review(dataset, folder, flipped)
    fixes = str(folder / "fixes.csv")
    _prepare(folder / "images", clean / "features", folder / "fixed", fixes=fixes)
    fixed = _correct(folder / "fixed/features", test, folder / "fixed/head")
    accuracies = f"{noisy.mean():.4f}, after the review {fixed.mean():.4f}"
    print(f"seed {seed}: found {corrected} of {len(flipped)}, accuracy {accuracies}", flush=True)
    return SeedReview(corrected / len(flipped), suspected, noisy, fixed)


def flip_labels(images: Path, dataset: Path, out: Path, seed: int) -> dict[str, tuple[str, str]]:
    """Copy images with 3% of the labels of train and validation changed.

    Returns:
        The changed and the true label by SHA-256.
    """
    from regraft_core.formats.manifests.dataset import DatasetManifest
    from regraft_core.formats.records import read_split

    shutil.copytree(images, out, copy_function=os.link)
    classes = DatasetManifest.read(dataset).classes
    records = [one for split in ("train", "validation") for one in read_split(dataset, split)]
    rng = np.random.default_rng(seed)
    flipped = {}
    for k in rng.choice(len(records), round(FLIPPED * len(records)), replace=False):
        record = records[k]
        others = [name for name in classes if name != classes[record.label]]
        label = str(rng.choice(others))
        (out / record.path).rename(out / label / Path(record.path).name)
        flipped[record.id] = label, classes[record.label]
    return flipped


def prepare_clean(work: Path) -> tuple[Path, Path, Path]:
    """Return the digits' images, the folder of their dataset and features, and those of test."""
    from components.extract_features.extract_features import extract_features
    from components.ingest.ingest import ingest
    from components.ingest.sources.samples import write_digits
    from regraft_core.formats.options.extract_features import FeatureOptions
    from regraft_core.formats.options.ingest import IngestOptions

    write_digits(work / "images")
    options = FeatureOptions(backbone=BACKBONE, image_px=IMAGE_PX, keep_cut=False)
    data = ingest([str(work / "images")], work / "clean/dataset", IngestOptions())
    extract_features(work / "clean/dataset", work / "clean/features", options)
    # Extraction leaves out the test split, so the test images become the training images of a copy.
    shutil.copytree(work / "clean/dataset", work / "test/dataset")
    swapped = data.splits | {"train": data.splits["test"], "test": data.splits["train"]}
    data.model_copy(update={"splits": swapped}).write(work / "test/dataset")
    extract_features(work / "test/dataset", work / "test/features", options)
    return work / "images", work / "clean", work / "test/features"


def _prepare(images: Path, features: Path, out: Path, **ingest_options: Any) -> Path:
    """Ingest images with other labels, and give their features these labels."""
    from components.ingest.ingest import ingest
    from regraft_core.formats.manifest_storage import digest_file
    from regraft_core.formats.manifests.features import FeaturesManifest
    from regraft_core.formats.options.ingest import IngestOptions
    from regraft_core.formats.records import read_records
    from regraft_core.training.feature_store import LABELS, array_file

    data = ingest([str(images)], out / "dataset", IngestOptions(**ingest_options))
    # Neither the features nor the splits depend on labels, so the features are those of before.
    shutil.copytree(features, out / "features", copy_function=os.link)
    manifest = FeaturesManifest.read(features)
    shards = []
    for shard in manifest.shards:
        records = read_records(out / "dataset" / f"{shard.stem.removesuffix('.view0')}.tfrecord")
        file = array_file(out / "features", shard.stem, LABELS)
        file.unlink()  # it is a link
        np.save(file, np.array([record.label for record in records], np.int32))
        digests = shard.sha256 | {LABELS: digest_file(file)}
        shards.append(shard.model_copy(update={"sha256": digests}))
    manifest.model_copy(update={"dataset_digest": data.digest, "shards": shards}).write(
        out / "features"
    )
    return out / "dataset"


def _correct(features: Path, test: Path, out: Path) -> NDArray[np.bool_]:
    """Fit the head, and return which test images it predicts correctly."""
    from components.train_head.train_head import train_head
    from regraft_core.formats.manifests.features import FeaturesManifest, Level
    from regraft_core.formats.options.train_head import HeadOptions
    from regraft_core.training.feature_store import LEVELS, FeatureRows, level_columns
    from regraft_core.training.linear_head.refitted_head import RefittedHead
    from regraft_core.training.model_files import load_model

    manifest = train_head([features], out, HeadOptions())
    head, _ = load_model(out)
    refitted = RefittedHead.read(out, manifest.head["refit"])
    head.get_layer("logits").set_weights([refitted.kernel, refitted.bias])
    levels = [Level(**level) for level in manifest.head["levels"]]
    rows = FeatureRows([test], "train", LEVELS if levels else "gap")
    values = np.concatenate(rows.parts()).astype(np.float32)
    if levels:
        values = values[:, level_columns(FeaturesManifest.read(test), levels)]
    correct: NDArray[np.bool_] = head.predict(values, verbose=0).argmax(axis=1) == rows.labels
    return correct


def _review(dataset: Path, folder: Path, flipped: dict[str, tuple[str, str]]) -> tuple[int, int]:
    """Write the fixes of a reviewer; return how many labels are corrected and were suspected."""
    from regraft_core.curation.suspects import find_suspects
    from regraft_core.formats.fixes import Fix, write_fixes
    from regraft_core.formats.manifests.dataset import DatasetManifest

    suspects = find_suspects(dataset, [folder / "noisy/features"], folder / "noisy/head")
    splits = DatasetManifest.read(dataset).splits
    images = splits["train"].count + splits["validation"].count
    looked_at = [one.image for one in suspects[: round(LOOKED_AT * images)]]
    fixes = [
        Fix(image.sha256, "relabel", *flipped[image.sha256], "bench", WHEN)
        if image.sha256 in flipped
        else Fix(image.sha256, "keep", image.label, "", "bench", WHEN)
        for image in looked_at
    ]
    write_fixes(folder / "fixes.csv", fixes)
    return sum(fix.action == "relabel" for fix in fixes), len(suspects)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--only", choices=PARTS, help="Measure one part only.")
    parser.add_argument("--seeds", type=int, default=5)


def measure(options: argparse.Namespace) -> Measurement:
    """Measure the parts."""
    parts = [part for part in PARTS if options.only in (None, part)]
    metrics = read_metrics(options.json)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        images, clean, test = prepare_clean(work)
        if "label-errors" in parts:
            metrics |= measure_label_errors(images, clean, test, work / "seeds", options.seeds)
        if "labeling" in parts:
            metrics |= measure_labeling(clean / "features", test, options.seeds)
    return Measurement(
        f"digits, {BACKBONE} at {IMAGE_PX} px, {options.seeds} seeds; {FLIPPED:.0%} of the labels "
        f"of train and validation changed, a look at the first {LOOKED_AT:.0%} of the images",
        metrics, parts,
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the result."""
    run_benchmark("review", __doc__, add_options, measure, arguments)


if __name__ == "__main__":
    main()
