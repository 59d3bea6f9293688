"""Cut and cache beside the usual way: the frozen backbone inside `model.fit`.

    regraft bench training --json benchmarks/results/training.json --only head --backbone vgg16

Parts are measured alone with `--only`; those measured before stay in the result, each with the
command, date and machine that it was measured with.

- `head`, `top`: both sides run in turn in one process on the same images of Fashion-MNIST,
  brought to 150 px, with the same head. Regraft's seconds are those of whole steps (building the
  backbone, extraction, training, writing the model). The baseline is Keras' own way: a folder read
  by `image_dataset_from_directory`, the frozen backbone inside `model.fit`. Not all of its epochs
  are run: one is measured before ours and one after it, validation included, and their mean is
  multiplied, 20 times for `head` and 10 times for `top`. Its graphs are built before, which leaves
  its building out. `top` is measured on VGG16 only. Keras' defaults compile by XLA only where there
  is a GPU.
- `extraction`: its speed beyond the first images as a share of that of the bare backbone,
  `backbone(x)` on tensors in memory.
- `accuracy`: test accuracy of both sides over several seeds, on digits and Fashion-MNIST; see
  `training_accuracy`.
- `growth`: time and memory of extraction and head training from 1,000 to 50,000 images; see
  `training_scaling`.

VGG16's weights are random, as speed does not depend on them; `efficientnet_lite0` has ImageNet's.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.result import Figure, Measured, kept, run_benchmark
from benchmarks.training_accuracy import accuracy
from benchmarks.training_scaling import growth

BATCH, RAW_BATCHES = 32, 32
HEAD_EPOCHS, TOP_EPOCHS = 20, 10
# What `jit_compile` is in each baseline.
BASELINES: Mapping[str, str | bool] = {"keras_defaults": "auto", "keras_without_xla": False}
CONDITIONS = (
    "no GPU; Fashion-MNIST at 150 px, batch 32, float16 cache, whole steps on our side, "
    "baselines measured for two epochs, one before ours and one after, whose mean is "
    f"multiplied by {HEAD_EPOCHS} (head) and {TOP_EPOCHS} (top), VGG16's weights random; "
    "accuracy with efficientnet_lite0 at 64 px, the same head on both sides (and the notebook's "
    "plain one), all for 20 epochs with the best epoch on validation kept; growth with "
    "efficientnet_lite0 at 32 px, activations at the cut kept, each step a process of its own"
)
Found = Iterator[tuple[str, Figure]]


@dataclass(frozen=True)
class Case:
    """One backbone and the images that it is measured on."""

    backbone: str
    weights: str
    images: int
    image_px: int = 150


CASES = {
    "efficientnet_lite0": Case("efficientnet_lite0", "imagenet", 5000),
    "vgg16": Case("vgg16", "random", 1500),
}


def timed(work: Callable[[], Any]) -> float:
    """Return the seconds that `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def ingested(folder: Path, count: int) -> Path:
    """Ingest `count` images of Fashion-MNIST that are trained on or validated with."""
    from components.ingest.ingest import ingest
    from components.ingest.sources.samples import write_fashion
    from regraft_core.formats.options import IngestOptions

    (folder / "images").mkdir(parents=True)
    write_fashion(folder / "images", limit=count)
    options = IngestOptions(near_duplicates="off", validation_fraction=0.2)
    ingest([str(folder / "images")], folder / "dataset", options)
    return folder / "dataset"


def as_folders(dataset: Path, out: Path) -> Path:
    """Write the images of a dataset as Keras reads them: a folder a split and class."""
    from regraft_core.formats.records import read_split

    for split in ("train", "validation"):
        for record in read_split(dataset, split):
            folder = out / split / f"{record.label:02}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{record.id}.png").write_bytes(record.encoded)
    return out


def raw_speed(case: Case, batches: int) -> float:
    """Return images a second of `backbone(x)` on tensors in memory, its graph built before."""
    import tensorflow as tf

    from regraft_core.backbones.build import build_backbone

    model = build_backbone(case.backbone, case.image_px, case.weights)
    run = tf.function(lambda x: model(x, training=False))
    x = tf.random.normal([BATCH, case.image_px, case.image_px, 3])
    run(x)
    return BATCH * batches / timed(lambda: [run(x).numpy() for _ in range(batches)])


def keras_epoch_s(case: Case, folders: Path, strategy: str, jit: str | bool) -> float:
    """Return the seconds of one epoch of `model.fit` with its validation, graphs built before."""
    import keras

    from regraft_core.backbones.build import build_backbone
    from regraft_core.backbones.cuts import freeze, join, split
    from regraft_core.backbones.table import find_backbone
    from regraft_core.formats.options import HeadOptions
    from regraft_core.images.preprocess import scale
    from regraft_core.training.heads import build_head, pooling_layer

    row = find_backbone(case.backbone)
    backbone = build_backbone(row, case.image_px, case.weights)
    freeze(backbone)
    if strategy == "top":
        for layer in split(backbone, row.cut)[1].layers:
            layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
    head = build_head(row.width, 10, HeadOptions())
    model = join(backbone, [pooling_layer("gap"), *head.layers[1:]])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"], jit_compile=jit)

    def data(split_name: str) -> Any:
        found = keras.utils.image_dataset_from_directory(
            folders / split_name, image_size=(case.image_px, case.image_px), batch_size=BATCH,
            seed=0, verbose=False,
        )  # fmt: skip
        scaled = found.map(lambda pixels, label: (scale(pixels, row.scaling), label))
        return found.cardinality(), scaled.prefetch(2)

    (size, train), (others, validation) = data("train"), data("validation")
    # `shuffle=False` is said to Keras only: the folder's reader shuffles itself.
    fit = functools.partial(model.fit, shuffle=False, verbose=0)
    fit(train.take(1), validation_data=validation.take(1))
    # The last, smaller batch has a shape of its own, which XLA compiles once more.
    last = validation.skip(others - 1)
    fit(train.skip(size - 1), validation_data=last)
    return timed(lambda: fit(train, validation_data=validation))


def regraft_s(case: Case, dataset: Path, out: Path, strategy: str) -> dict[str, float]:
    """Return the seconds of each step of our side."""
    from components.extract_features.extract_features import extract_features
    from components.fine_tune.fine_tune import fine_tune
    from components.train_head.train_head import train_head
    from regraft_core.formats.options import FeatureOptions, FineTuneOptions, HeadOptions

    features, head = out / "features", out / "head"
    options = FeatureOptions(
        backbone=case.backbone,
        weights=case.weights,
        image_px=case.image_px,
        keep_cut=strategy == "top",
    )
    seconds = {"extract": timed(lambda: extract_features(dataset, features, options))}
    patient = HeadOptions(head_epochs=HEAD_EPOCHS, patience=HEAD_EPOCHS)
    seconds["head"] = timed(lambda: train_head([features], head, patient))
    if strategy == "top":
        tuning = FineTuneOptions(strategy="top", fine_tune_epochs=TOP_EPOCHS)
        seconds["top"] = timed(lambda: fine_tune(dataset, [features], head, out / "top", tuning))
    return seconds


def count_of(dataset: Path) -> int:
    """Return the images that are trained on and validated with."""
    from regraft_core.formats.manifests import DatasetManifest

    splits = DatasetManifest.read(dataset).splits
    return splits["train"].count + splits["validation"].count


def keras_epochs_s(case: Case, folders: Path, strategy: str) -> dict[str, float]:
    """Return the seconds of an epoch of each baseline."""
    return {way: keras_epoch_s(case, folders, strategy, jit) for way, jit in BASELINES.items()}


def compared(
    strategy: str, epochs: int, ours_s: float, theirs: Sequence[dict[str, float]], goal: str
) -> Found:
    """Yield the seconds of both sides and how many times faster ours is.

    The baselines were measured before ours and after it, as a shared machine's speed drifts.
    """
    yield f"{strategy}_{epochs}_epochs", Figure(ours_s, "s")
    for way in BASELINES:
        base = epochs * statistics.mean(epoch_s[way] for epoch_s in theirs)
        yield f"{strategy}_{epochs}_epochs_{way}", Figure(base, "s")
        its_goal = goal if way == "keras_defaults" else ""
        yield f"{strategy}_times_faster_than_{way}", Figure(base / ours_s, "", its_goal)


def head(case: Case, work: Path) -> Found:
    """Yield how long a head takes on both sides, and the share of what the backbone allows."""
    dataset = ingested(work, case.images)
    folders, count = as_folders(dataset, work / "folders"), count_of(dataset)
    batches = min(count // BATCH, RAW_BATCHES)
    theirs, raw = [keras_epochs_s(case, folders, "head")], [raw_speed(case, batches)]
    ours = regraft_s(case, dataset, work, "head")
    raw.append(raw_speed(case, batches))
    theirs.append(keras_epochs_s(case, folders, "head"))
    whole = ours["extract"] + ours["head"]
    yield "head_images", Figure(count)
    yield "head_raw_forward", Figure(statistics.mean(raw), "images/s")
    yield "head_extraction_step", Figure(ours["extract"], "s")
    yield "head_training_step", Figure(ours["head"], "s")
    yield "head_share_of_limit", Figure(count / statistics.mean(raw) / whole, "", ">= 0.8")
    yield from compared("head", HEAD_EPOCHS, whole, theirs, ">= 20")


def top(case: Case, work: Path) -> Found:
    """Yield how long strategy `top` takes on both sides, the pass that caches included."""
    dataset = ingested(work, case.images)
    folders = as_folders(dataset, work / "folders")
    theirs = [keras_epochs_s(case, folders, "top")]
    ours = regraft_s(case, dataset, work, "top")
    theirs.append(keras_epochs_s(case, folders, "top"))
    whole = ours["extract"] + ours["top"]
    yield "top_images", Figure(count_of(dataset))
    yield "top_extraction_step", Figure(ours["extract"], "s")
    yield "top_training_step", Figure(ours["top"], "s")
    yield from compared("top", TOP_EPOCHS, whole, theirs, ">= 4")


def extraction(case: Case, work: Path) -> Found:
    """Yield the speed of extraction beyond its start, in turn with that of the bare backbone."""
    from components.extract_features.extract_features import extract_features
    from regraft_core.formats.options import FeatureOptions

    options = FeatureOptions(
        backbone=case.backbone, weights=case.weights, image_px=case.image_px, keep_cut=False
    )
    few, all_of_them = (ingested(work / str(n), n) for n in (200, case.images))
    count = count_of(all_of_them) - count_of(few)
    batches = min(count // BATCH, RAW_BATCHES)
    raw, ours = [raw_speed(case, batches)], []
    for run in range(2):
        started = timed(lambda: extract_features(few, work / f"few{run}", options))  # noqa: B023
        whole = timed(lambda: extract_features(all_of_them, work / f"all{run}", options))  # noqa: B023
        ours.append(count / (whole - started))
        raw.append(raw_speed(case, batches))
    speed, limit = statistics.median(ours), statistics.median(raw)
    yield "extraction_images", Figure(count)
    yield "extraction_raw_forward", Figure(limit, "images/s")
    yield "extraction_speed", Figure(speed, "images/s")
    yield "extraction_share_of_raw", Figure(speed / limit, "", ">= 0.9")


@dataclass(frozen=True)
class Part:
    """What is measured by itself; the names of its figures, and of no others, begin as told."""

    name: str
    figures: tuple[str, ...]
    run: Callable[[Path], Found]


OF_A_BACKBONE: Mapping[str, Callable[[Case, Path], Found]] = {
    "head": head,
    "top": top,
    "extraction": extraction,
}


def of_backbone(name: str, case: Case) -> Part:
    """Return a part on one backbone, whose name its figures carry."""

    def run(work: Path) -> Found:
        for figure, value in OF_A_BACKBONE[name](case, work):
            yield f"{case.backbone}_{figure}", value

    return Part(f"{name} {case.backbone}", (f"{case.backbone}_{name}_",), run)


def parts(only: str, backbone: str, seeds: int) -> list[Part]:
    """Return the parts asked for."""
    every = [
        of_backbone(name, case)
        for name in OF_A_BACKBONE
        for case in CASES.values()
        if backbone in ("all", case.backbone) and (name != "top" or case.backbone == "vgg16")
    ]
    every.append(Part("accuracy", ("digits_", "fashion_"), lambda work: accuracy(work, seeds)))
    every.append(Part("growth", ("growth_",), growth))
    return [part for part in every if only in ("all", part.name.split()[0])]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what may be varied."""
    names = ["all", *OF_A_BACKBONE, "accuracy", "growth"]
    parser.add_argument("--only", choices=names, default="all", help="Measure this part alone.")
    parser.add_argument("--backbone", choices=["all", *CASES], default="all")
    parser.add_argument("--seeds", type=int, default=5, help="Of the accuracy.")


def measure(options: argparse.Namespace) -> Measured:
    """Measure the parts asked for; what the others gave before stays."""
    chosen = parts(options.only, options.backbone, options.seeds)
    anew = tuple(start for part in chosen for start in part.figures)
    before = kept(options.json).items()
    figures = {name: figure for name, figure in before if not name.startswith(anew)}
    for part in chosen:
        with tempfile.TemporaryDirectory() as work:
            for name, figure in part.run(Path(work)):
                figures[name] = figure
                print(f"{name} {figure.value:.4g} {figure.unit} {figure.goal}", flush=True)
    return Measured(CONDITIONS, figures, [part.name for part in chosen])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the figures."""
    run_benchmark("training", __doc__, add_options, measure, arguments)


if __name__ == "__main__":
    main()
