"""False alarms and power of `regraft drift`, on models that are trained and exported here.

    regraft bench drift --json benchmarks/results/drift.json
    regraft bench drift --json benchmarks/results/drift.json --only digits

`--only` measures one source and keeps the metrics of the other.

A model of digits and one of Fashion-MNIST (3,000 images each for training and test) on
`efficientnet_lite0` at 64 px learn all classes but the last. Their references are those that
`export` writes. A check compares images with a reference at a significance of 0.01.

- `false_alarms`: 500 checks of 200 images of each source, 1,000 in total. Each draws 300 images
  as its reference, and its images, from the exported reference and the test images. The goal is
  the 97.5% bound of the binomial distribution with a rate of 0.01.
- `false_alarms_one_reference`: 100 checks of 200 test images with the exported reference. Their
  rate depends on that reference, which all of them share.
- `brightness`, `blur`, `new_class`: the fraction of 50 checks that alarm, of 200 and of 50 images:
  test images with pixels times 1.5, or with a Gaussian blur of 1/28 of their side, or of which a
  fifth belongs to the class that the model has not learned.
- `more_of_a_class`: alarms of 50 checks of up to 200 images, in which one class is three times as
  frequent:
  `class_alarms` by the test of the predicted classes, `feature_alarms` by one of those within the
  classes.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter
from scipy.stats import binom

from benchmarks.result import Measurement, Metric, read_metrics, run_benchmark
from regraft_core.formats.drift_reference import REFERENCE_FILE, DriftReference
from regraft_core.formats.records import read_split

SOURCES = ("digits", "fashion")
BACKBONE, IMAGE_PX = "efficientnet_lite0", 64
FASHION_IMAGES = 3000
IMAGES, COUNTS, BATCH = 200, (200, 50), 64
CHECKS, ONE_REFERENCE_CHECKS, POWER_CHECKS = 500, 100, 50
DRAWN_REFERENCE = 300
SIGNIFICANCE = 0.01
NEW_FRACTION, FACTOR = 0.2, 3.0
BRIGHTNESS, BLUR = 1.5, 1 / 28
MAX_SHIFTED = 600


@dataclass(frozen=True)
class Images:
    """What the model computes for images, and their true classes; -1 is one that it lacks."""

    features: NDArray[np.float16]
    predicted: NDArray[np.int32]
    familiarity: NDArray[np.float32]
    labels: NDArray[np.int64]

    def take(self, indices: NDArray[np.integer]) -> Images:
        """Return some of the images."""
        return Images(*(values[indices] for values in vars(self).values()))

    def joined(self, others: Images) -> Images:
        """Return these images and others."""
        pairs = zip(vars(self).values(), vars(others).values(), strict=True)
        return Images(*(np.concatenate(pair) for pair in pairs))


Encoded = Sequence[tuple[bytes, int]]
Model = Callable[[Encoded], Images]
Sample = Callable[[np.random.Generator], Images]


def _measure(options: argparse.Namespace) -> Measurement:
    metrics = read_metrics(options.json)
    sources = SOURCES if options.only is None else (options.only,)
    with contextlib.ExitStack() as opened:
        work = options.work or Path(opened.enter_context(tempfile.TemporaryDirectory()))
        for source in sources:
            for name, metric in _measure_source(source, work / source, options):
                print(f"{source}_{name} {metric.value:.4g} {metric.goal}", flush=True)
                metrics[f"{source}_{name}"] = metric
    return Measurement(
        f"no GPU; {BACKBONE} with ImageNet weights at {IMAGE_PX} px; significance {SIGNIFICANCE}",
        metrics,
        sources,
    )


def _measure_source(
    source: str, work: Path, options: argparse.Namespace
) -> Iterator[tuple[str, Metric]]:
    images, new_class = work / "images", work / "new_class"
    if not new_class.exists():
        images.mkdir(parents=True)
        _write(source, images, options.fashion)
        _move_last_class(images, new_class)
    if not (work / "exported").exists():
        _export(images, work)
    saved_model = work / "exported"
    test = [(record.encoded, record.label) for record in read_split(work / "dataset", "test")]
    model = _load(saved_model)
    reference = DriftReference.read(saved_model)
    known = model(test)
    yield "reference_images", Metric(len(reference.predicted))
    yield "reference_mb", Metric((saved_model / REFERENCE_FILE).stat().st_size / 1e6, "MB")
    yield "accuracy", Metric(float(np.mean(known.predicted == known.labels)))
    yield from _false_alarms(reference, known, options.checks)
    yield from _more_of_a_class(reference, known)
    order = np.random.default_rng(0).permutation(len(test))[:MAX_SHIFTED]
    unknown = sorted(new_class.rglob("*.png"))[:MAX_SHIFTED]
    new = model([(path.read_bytes(), -1) for path in unknown])
    for name, edit in EDITS.items():
        changed = model([(_edited(test[k][0], edit), test[k][1]) for k in order])
        for count in COUNTS:
            yield f"{name}_{count}", _alarms(reference, functools.partial(_draw, changed, count))
    for count in COUNTS:
        sample = functools.partial(_draw_with_new, known, new, count)
        yield f"new_class_{count}", _alarms(reference, sample)


def _write(source: str, folder: Path, fashion: Path | None) -> None:
    from components.ingest.sources.samples import write_digits, write_fashion

    if source == "digits":
        write_digits(folder)
        return
    write_fashion(folder, fashion, FASHION_IMAGES)


def _move_last_class(images: Path, to: Path) -> None:
    """Move the images of the last class away."""
    last = max(path.name for path in images.rglob("*") if path.is_dir() and any(path.glob("*.png")))
    for folder in [path for path in images.rglob(last) if path.is_dir()]:
        to.mkdir(exist_ok=True)
        folder.rename(to / folder.parent.name)


def _export(images: Path, work: Path) -> None:
    """Train a model and export it, in `work`."""
    from components.evaluate.evaluate import evaluate
    from components.export.export import export
    from components.extract_features.extract_features import extract_features
    from components.fine_tune.fine_tune import fine_tune
    from components.ingest.ingest import ingest
    from components.train_head.train_head import train_head
    from regraft_core.formats.options.evaluate import GateOptions
    from regraft_core.formats.options.extract_features import FeatureOptions
    from regraft_core.formats.options.fine_tune import FineTuneOptions
    from regraft_core.formats.options.ingest import IngestOptions
    from regraft_core.formats.options.train_head import HeadOptions

    dataset, features, head, candidate, evaluation, exported = (
        work / name
        for name in ("dataset", "features", "head", "candidate", "evaluation", "exported")
    )
    options = IngestOptions(
        near_duplicates="off", leakage="report", validation_fraction=0.25, test_fraction=0.25
    )
    ingest([str(images)], dataset, options)
    extract_features(
        dataset, features, FeatureOptions(backbone=BACKBONE, image_px=IMAGE_PX, keep_cut=False)
    )
    train_head([features], head, HeadOptions())
    fine_tune(dataset, [features], head, candidate, FineTuneOptions(strategy="head"))
    evaluate([candidate], dataset, evaluation, GateOptions(min_accuracy=0.0))
    export(candidate, evaluation, dataset, exported)


def _load(saved_model: Path) -> Model:
    import tensorflow as tf

    from regraft_core.formats.drift_reference import to_half
    from regraft_core.formats.manifests.saved_model import SavedModelManifest

    loaded = tf.saved_model.load(str(saved_model))
    classes = SavedModelManifest.read(saved_model).classes

    def compute(images: Encoded) -> Images:
        parts = []
        for start in range(0, len(images), BATCH):
            batch = images[start : start + BATCH]
            found = loaded.signatures["features"](tf.constant([data for data, _ in batch]))
            parts.append(
                Images(
                    to_half(found["features"].numpy()),
                    found["probabilities"].numpy().argmax(axis=1).astype(np.int32),
                    found["familiarity"].numpy(),
                    np.array([label for _, label in batch]),
                )
            )
            assert len(classes) == found["probabilities"].shape[1]
        return functools.reduce(Images.joined, parts)

    return compute


def _edited(data: bytes, edit: Callable[[Image.Image], Image.Image]) -> bytes:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    buffer = io.BytesIO()
    edit(image).save(buffer, "PNG")
    return buffer.getvalue()


def _brighter(image: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(BRIGHTNESS)


def _blurred(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(BLUR * image.width))


EDITS = {"brightness": _brighter, "blur": _blurred}


def _false_alarms(
    reference: DriftReference, known: Images, checks: int
) -> Iterator[tuple[str, Metric]]:
    held_out = Images(
        reference.features, reference.predicted, reference.familiarity,
        np.full(len(reference.predicted), -1),
    ).joined(known)  # fmt: skip
    alarms = 0
    for seed in range(checks):
        order = np.random.default_rng(seed).permutation(len(held_out.labels))
        own = _with_images(reference, held_out.take(order[IMAGES : IMAGES + DRAWN_REFERENCE]))
        alarms += bool(_alarming(own, held_out.take(order[:IMAGES]), seed))
    yield "false_alarms", Metric(alarms / checks, "", f"<= {_bound(checks):g}")
    rate = _alarms(reference, functools.partial(_draw, known, IMAGES), ONE_REFERENCE_CHECKS)
    yield "false_alarms_one_reference", rate


def _bound(checks: int) -> float:
    """Return the rate that so many checks exceed with a chance of 2.5% if the true one holds."""
    return float(binom.ppf(0.975, checks, SIGNIFICANCE)) / checks


def _with_images(reference: DriftReference, images: Images) -> DriftReference:
    return replace(reference, features=images.features, predicted=images.predicted,
                   familiarity=images.familiarity)  # fmt: skip


def _more_of_a_class(reference: DriftReference, known: Images) -> Iterator[tuple[str, Metric]]:
    """Yield the alarms of both kinds when class 0 is more frequent, and nothing else changes."""
    more, others = (np.flatnonzero(known.labels == 0), np.flatnonzero(known.labels != 0))
    fraction = FACTOR * len(more) / len(known.labels)
    count = min(IMAGES, int(0.8 * len(more) / fraction))  # no image twice
    found = []
    for seed in range(POWER_CHECKS):
        rng = np.random.default_rng(seed)
        own = rng.permutation(more)[: round(fraction * count)]
        chosen = np.concatenate([own, rng.permutation(others)[: count - len(own)]])
        found.append(_alarming(reference, known.take(chosen), seed))
    classes = float(np.mean(["classes" in one for one in found]))
    features = float(np.mean([bool(one - {"classes", "combined"}) for one in found]))
    yield "more_of_a_class_class_alarms", Metric(classes, "", ">= 0.9")
    yield "more_of_a_class_feature_alarms", Metric(features, "", "<= 0.05")


def _alarms(reference: DriftReference, sample: Sample, checks: int = POWER_CHECKS) -> Metric:
    """Return the fraction of checks that alarm."""
    alarms = sum(
        bool(_alarming(reference, sample(np.random.default_rng(seed)), seed))
        for seed in range(checks)
    )
    return Metric(alarms / checks)


def _alarming(reference: DriftReference, images: Images, seed: int) -> set[str]:
    """Return the tests that alarm."""
    from regraft_core.drift.check import CheckOptions, Observed, check_drift

    observed = Observed(images.features, images.predicted, images.familiarity)
    tests = check_drift(reference, observed, CheckOptions(SIGNIFICANCE, seed))
    return {test.name for test in tests if test.alarm}


def _draw(images: Images, count: int, rng: np.random.Generator) -> Images:
    return images.take(rng.permutation(len(images.labels))[:count])


def _draw_with_new(known: Images, new: Images, count: int, rng: np.random.Generator) -> Images:
    unknown = round(NEW_FRACTION * count)
    return _draw(known, count - unknown, rng).joined(_draw(new, unknown, rng))


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--only", choices=SOURCES, help="Measure one source, keep the other's metrics."
    )
    parser.add_argument("--checks", type=int, default=CHECKS, help="Checks of each source.")
    parser.add_argument("--work", type=Path, help="Folder of the models, for another run to reuse.")
    parser.add_argument("--fashion", type=Path, help="Folder of Fashion-MNIST's idx files.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    run_benchmark("drift", __doc__, _add_options, _measure, arguments)
