"""Cut and cache compared with the usual way: the frozen backbone inside `model.fit`.

    regraft bench training --json benchmarks/results/training.json --only head --backbone vgg16

`--only` measures one part. The other parts stay in the result, each with the command, date and
machine of its own measurement.

- `head`, `top`: Regraft and Keras run in turn in one process, on the same Fashion-MNIST images
  resized to 150 px, with the same head. Regraft's time is that of whole steps: building the
  backbone, extraction, training, writing the model. The baseline is the usual Keras way: a folder
  read by `image_dataset_from_directory`, the frozen backbone inside `model.fit`. Only two of its
  epochs are run, one before Regraft and one after, each with validation. Their mean is multiplied
  by 20 for `head` and by 10 for `top`. Its graphs are built before the measurement, so its
  build time is not included. `top` is measured on VGG16 only. With its defaults, Keras compiles
  with XLA only on a GPU.
- `extraction`: its speed after the first images, relative to the bare backbone, `backbone(x)` on
  tensors in memory.
- `scaling`: time and memory of extraction and head training from 1,000 to 50,000 images; see
  `training_scaling`.
- `precision`: seconds of a training step in float32 and in bfloat16, and the test accuracy of both
  over several seeds; see `training_precision`.

VGG16 has random weights, because the speed does not depend on them; `efficientnet_lite0` has its
ImageNet weights.
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

from benchmarks.result import Measurement, Metric, read_metrics, run_benchmark
from benchmarks.training_precision import precision
from benchmarks.training_scaling import scaling

BATCH, FORWARD_BATCHES = 32, 32
HEAD_EPOCHS, TOP_EPOCHS = 20, 10
# The value of `jit_compile` in each baseline.
BASELINES: Mapping[str, str | bool] = {"keras_defaults": "auto", "keras_without_xla": False}
CONDITIONS = (
    "no GPU; Fashion-MNIST at 150 px, batch 32, float16 cache, whole steps of Regraft; baselines "
    "measured for two epochs, one before Regraft and one after, their mean multiplied by "
    f"{HEAD_EPOCHS} (head) and {TOP_EPOCHS} (top); VGG16 with random weights; "
    "scaling with efficientnet_lite0 at 32 px, activations at the cut cached, each step in its own "
    "process; precision: steps of 32 images, the shortest of 10, accuracy of top on digits with "
    "efficientnet_lite0 at 64 px"
)
Metrics = Iterator[tuple[str, Metric]]


@dataclass(frozen=True)
class Case:
    """One backbone, and the images that it is measured on."""

    backbone: str
    weights: str
    images: int
    image_px: int = 150


CASES = {
    "efficientnet_lite0": Case("efficientnet_lite0", "imagenet", 5000),
    "vgg16": Case("vgg16", "random", 1500),
}


def timed(work: Callable[[], Any]) -> float:
    """Return the seconds that a call of `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def ingest_fashion(folder: Path, count: int) -> Path:
    """Ingest `count` Fashion-MNIST images into training and validation splits."""
    from components.ingest.ingest import ingest
    from components.ingest.sources.samples import write_fashion
    from regraft_core.formats.options.ingest import IngestOptions

    (folder / "images").mkdir(parents=True)
    write_fashion(folder / "images", limit=count)
    options = IngestOptions(near_duplicates="off", validation_fraction=0.2)
    ingest([str(folder / "images")], folder / "dataset", options)
    return folder / "dataset"


def write_folders(dataset: Path, out: Path) -> Path:
    """Write the images of a dataset as Keras reads them: a folder per split and class."""
    from regraft_core.formats.records import read_split

    for split in ("train", "validation"):
        for record in read_split(dataset, split):
            folder = out / split / f"{record.label:02}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{record.id}.png").write_bytes(record.encoded)
    return out


def forward_speed(case: Case, batches: int) -> float:
    """Return images/s of `backbone(x)` on tensors in memory, with the graph already built."""
    import tensorflow as tf

    from regraft_core.backbones.build import build_backbone

    model = build_backbone(case.backbone, case.image_px, case.weights)
    run = tf.function(lambda x: model(x, training=False))
    x = tf.random.normal([BATCH, case.image_px, case.image_px, 3])
    run(x)
    return BATCH * batches / timed(lambda: [run(x).numpy() for _ in range(batches)])


def keras_epoch_s(case: Case, folders: Path, strategy: str, jit: str | bool) -> float:
    """Return the seconds of one epoch of `model.fit` with validation, with the graphs built."""
    import keras

    from regraft_core.backbones.backbone_table import find_backbone
    from regraft_core.backbones.build import build_backbone
    from regraft_core.backbones.cuts import freeze, join, split
    from regraft_core.images.preprocess import scale
    from regraft_core.training.heads import build_head, pooling_layer

    row = find_backbone(case.backbone)
    backbone = build_backbone(row, case.image_px, case.weights)
    freeze(backbone)
    if strategy == "top":
        for layer in split(backbone, row.cut)[1].layers:
            layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
    head = build_head(row.width, 10)
    model = join(backbone, [pooling_layer("gap"), *head.layers[1:]])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"], jit_compile=jit)

    def data(split_name: str) -> Any:
        images = keras.utils.image_dataset_from_directory(
            folders / split_name, image_size=(case.image_px, case.image_px), batch_size=BATCH,
            seed=0, verbose=False,
        )  # fmt: skip
        scaled = images.map(lambda pixels, label: (scale(pixels, row.scaling), label))
        return images.cardinality(), scaled.prefetch(2)

    (size, train), (others, validation) = data("train"), data("validation")
    # The dataset shuffles itself, so `model.fit` must not.
    fit = functools.partial(model.fit, shuffle=False, verbose=0)
    fit(train.take(1), validation_data=validation.take(1))
    # XLA compiles the graph again for the smaller last batch.
    last = validation.skip(others - 1)
    fit(train.skip(size - 1), validation_data=last)
    return timed(lambda: fit(train, validation_data=validation))


def regraft_steps_s(case: Case, dataset: Path, out: Path, strategy: str) -> dict[str, float]:
    """Return the seconds of each step of Regraft."""
    from components.extract_features.extract_features import extract_features
    from components.fine_tune.fine_tune import fine_tune
    from components.train_head.train_head import train_head
    from regraft_core.formats.options.extract_features import FeatureOptions
    from regraft_core.formats.options.fine_tune import FineTuneOptions
    from regraft_core.formats.options.train_head import HeadOptions

    features, head = out / "features", out / "head"
    options = FeatureOptions(
        backbone=case.backbone,
        weights=case.weights,
        image_px=case.image_px,
        keep_cut=strategy == "top",
    )
    seconds = {"extract": timed(lambda: extract_features(dataset, features, options))}
    seconds["head"] = timed(lambda: train_head([features], head, HeadOptions()))
    if strategy == "top":
        # Without a search, so that both sides train all epochs, in the same way.
        tuning = FineTuneOptions(
            strategy="top", fine_tune_epochs=TOP_EPOCHS, learning_rate=1e-5, ema_momentum=0
        )
        seconds["top"] = timed(lambda: fine_tune(dataset, [features], head, out / "top", tuning))
    return seconds


def count_of(dataset: Path) -> int:
    """Return the number of training and validation images."""
    from regraft_core.formats.manifests.dataset import DatasetManifest

    splits = DatasetManifest.read(dataset).splits
    return splits["train"].count + splits["validation"].count


def keras_epochs_s(case: Case, folders: Path, strategy: str) -> dict[str, float]:
    """Return the seconds of one epoch of each baseline."""
    return {way: keras_epoch_s(case, folders, strategy, jit) for way, jit in BASELINES.items()}


def compared(
    strategy: str, epochs: int, regraft_s: float, keras_s: Sequence[dict[str, float]], goal: str
) -> Metrics:
    """Yield the seconds of Regraft and of each baseline, and the speedup.

    The baselines are measured before and after Regraft, because a shared machine's speed drifts.
    """
    yield f"{strategy}_{epochs}_epochs", Metric(regraft_s, "s")
    for way in BASELINES:
        base = epochs * statistics.mean(epoch_s[way] for epoch_s in keras_s)
        yield f"{strategy}_{epochs}_epochs_{way}", Metric(base, "s")
        speedup_goal = goal if way == "keras_defaults" else ""
        yield f"{strategy}_speedup_over_{way}", Metric(base / regraft_s, "", speedup_goal)


def head(case: Case, work: Path) -> Metrics:
    """Yield the time of head training for both, and Regraft's relative to a forward pass."""
    dataset = ingest_fashion(work, case.images)
    folders, count = write_folders(dataset, work / "folders"), count_of(dataset)
    batches = min(count // BATCH, FORWARD_BATCHES)
    keras_s, forward = [keras_epochs_s(case, folders, "head")], [forward_speed(case, batches)]
    steps_s = regraft_steps_s(case, dataset, work, "head")
    forward.append(forward_speed(case, batches))
    keras_s.append(keras_epochs_s(case, folders, "head"))
    whole = steps_s["extract"] + steps_s["head"]
    yield "head_images", Metric(count)
    yield "head_bare_forward", Metric(statistics.mean(forward), "images/s")
    yield "head_extraction_step", Metric(steps_s["extract"], "s")
    yield "head_training_step", Metric(steps_s["head"], "s")
    yield (
        "head_ratio_to_forward_pass",
        Metric(count / statistics.mean(forward) / whole, "", ">= 0.8"),
    )
    yield from compared("head", HEAD_EPOCHS, whole, keras_s, ">= 20")


def top(case: Case, work: Path) -> Metrics:
    """Yield the time of strategy `top` for both; Regraft's includes feature extraction."""
    dataset = ingest_fashion(work, case.images)
    folders = write_folders(dataset, work / "folders")
    keras_s = [keras_epochs_s(case, folders, "top")]
    steps_s = regraft_steps_s(case, dataset, work, "top")
    keras_s.append(keras_epochs_s(case, folders, "top"))
    whole = steps_s["extract"] + steps_s["top"]
    yield "top_images", Metric(count_of(dataset))
    yield "top_extraction_step", Metric(steps_s["extract"], "s")
    yield "top_training_step", Metric(steps_s["top"], "s")
    yield from compared("top", TOP_EPOCHS, whole, keras_s, ">= 4")


def extraction(case: Case, work: Path) -> Metrics:
    """Yield the speed of extraction without its start, and that of the bare backbone."""
    from components.extract_features.extract_features import extract_features
    from regraft_core.formats.options.extract_features import FeatureOptions

    options = FeatureOptions(
        backbone=case.backbone, weights=case.weights, image_px=case.image_px, keep_cut=False
    )
    few, many = (ingest_fashion(work / str(n), n) for n in (200, case.images))
    count = count_of(many) - count_of(few)
    batches = min(count // BATCH, FORWARD_BATCHES)
    forward, extracted = [forward_speed(case, batches)], []
    for run in range(2):
        started = timed(lambda: extract_features(few, work / f"few{run}", options))  # noqa: B023
        whole = timed(lambda: extract_features(many, work / f"many{run}", options))  # noqa: B023
        extracted.append(count / (whole - started))
        forward.append(forward_speed(case, batches))
    speed, limit = statistics.median(extracted), statistics.median(forward)
    yield "extraction_images", Metric(count)
    yield "extraction_bare_forward", Metric(limit, "images/s")
    yield "extraction_speed", Metric(speed, "images/s")
    yield "extraction_ratio_to_bare_forward", Metric(speed / limit, "", ">= 0.9")


@dataclass(frozen=True)
class Part:
    """A part that can be measured alone; only its metrics start with one of `prefixes`."""

    name: str
    prefixes: tuple[str, ...]
    run: Callable[[Path], Metrics]


BACKBONE_PARTS: Mapping[str, Callable[[Case, Path], Metrics]] = {
    "head": head,
    "top": top,
    "extraction": extraction,
}


def backbone_part(name: str, case: Case) -> Part:
    """Return a part on one backbone, whose name is the first part of its metrics' names."""

    def run(work: Path) -> Metrics:
        for metric, value in BACKBONE_PARTS[name](case, work):
            yield f"{case.backbone}_{metric}", value

    return Part(f"{name} {case.backbone}", (f"{case.backbone}_{name}_",), run)


def select_parts(only: str, backbone: str, seeds: int) -> list[Part]:
    """Return the parts to measure."""
    selected = [
        backbone_part(name, case)
        for name in BACKBONE_PARTS
        for case in CASES.values()
        if backbone in ("all", case.backbone) and (name != "top" or case.backbone == "vgg16")
    ]
    selected.append(Part("scaling", ("scaling_",), scaling))
    selected.append(Part("precision", ("precision_",), lambda work: precision(work, seeds)))
    return [part for part in selected if only in ("all", part.name.split()[0])]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    names = ["all", *BACKBONE_PARTS, "scaling", "precision"]
    parser.add_argument("--only", choices=names, default="all", help="Measure only this part.")
    parser.add_argument("--backbone", choices=["all", *CASES], default="all")
    parser.add_argument("--seeds", type=int, default=5, help="Seeds of precision.")


def measure(options: argparse.Namespace) -> Measurement:
    """Measure the selected parts; the metrics of the others stay in the result."""
    parts = select_parts(options.only, options.backbone, options.seeds)
    prefixes = tuple(prefix for part in parts for prefix in part.prefixes)
    earlier = read_metrics(options.json).items()
    metrics = {name: metric for name, metric in earlier if not name.startswith(prefixes)}
    for part in parts:
        with tempfile.TemporaryDirectory() as work:
            for name, metric in part.run(Path(work)):
                metrics[name] = metric
                print(f"{name} {metric.value:.4g} {metric.unit} {metric.goal}", flush=True)
    return Measurement(CONDITIONS, metrics, [part.name for part in parts])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the result."""
    run_benchmark("training", __doc__, add_options, measure, arguments)


if __name__ == "__main__":
    main()
