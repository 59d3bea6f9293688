"""Cut and cache beside the usual way: the frozen backbone inside `model.fit`.

    python -m benchmarks.training --json benchmarks/results/training.json

Both sides run in turn in one process on the same digits, drawn to 150 px, with the same head.
Regraft's seconds are those of whole steps (building the backbone, extraction, training, writing
the model). The baseline is measured for one epoch after its graphs are built and multiplied, which
leaves its building out. VGG16's weights are random, as speed does not depend on them.
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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BATCH = 32
HEAD_EPOCHS, TOP_EPOCHS = 20, 10


@dataclass(frozen=True)
class Case:
    """One backbone and the pictures that it is measured on."""

    backbone: str
    weights: str
    pictures: int
    image_px: int = 150


CASES = (Case("efficientnet_lite0", "imagenet", 1797), Case("vgg16", "random", 300))


def timed(work: Callable[[], Any]) -> float:
    """Return the seconds that `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def digits(folder: Path, count: int) -> Path:
    """Ingest the first `count` digits, stored as PNG of 64 px."""
    from PIL import Image
    from sklearn.datasets import load_digits

    from components.core.options import IngestOptions
    from components.ingest.ingest import ingest

    data = load_digits()
    for number, (pixels, label) in enumerate(zip(data.images[:count], data.target, strict=False)):
        path = folder / "pictures" / str(label) / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        grey = Image.fromarray((pixels * 15.9375).astype("uint8"))
        grey.resize((64, 64), Image.Resampling.BICUBIC).convert("RGB").save(path)
    ingest([str(folder / "pictures")], folder / "dataset", IngestOptions(near_duplicates="off"))
    return folder / "dataset"


def raw_speed(case: Case, batches: int) -> float:
    """Return pictures a second of `backbone(x)` on tensors in memory, its graph built before."""
    import tensorflow as tf

    from components.core.backbones import build_backbone

    model = build_backbone(case.backbone, case.image_px, case.weights)
    run = tf.function(lambda x: model(x, training=False))
    x = tf.random.normal([BATCH, case.image_px, case.image_px, 3])
    run(x)
    return BATCH * batches / timed(lambda: [run(x).numpy() for _ in range(batches)])


def start_s(case: Case, work: Path) -> tuple[float, int]:
    """Return the seconds of an extraction of few pictures, and how many."""
    from components.core.artifacts import FeaturesManifest
    from components.core.options import FeatureOptions
    from components.extract_features.extract_features import extract_features

    dataset = digits(work / "few", 100)
    options = FeatureOptions(
        backbone=case.backbone, weights=case.weights, image_px=case.image_px, keep_cut=False
    )
    seconds = timed(lambda: extract_features(dataset, work / "few" / "features", options))
    shards = FeaturesManifest.read(work / "few" / "features").shards
    return seconds, sum(shard.count for shard in shards)


def keras_epoch_s(case: Case, dataset: Path, strategy: str, jit: str | bool) -> float:
    """Return the seconds of one epoch of `model.fit` with its validation, graphs built before."""
    import keras

    from components.core.backbones import build_backbone, find_backbone
    from components.core.models import build_head, pooling_layer
    from components.core.options import HeadOptions
    from components.core.pictures import pictures
    from components.core.preprocess import scale
    from components.core.surgery import freeze, join, split

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

    def data(split_name: Any) -> Any:
        batches = pictures(dataset, split_name, case.image_px, BATCH)
        return batches.map(lambda b: (scale(b["pixels"], row.scaling), b["label"]))

    train, validation = data("train"), data("validation")
    model.fit(train.take(1), validation_data=validation.take(1), epochs=1, verbose=0)
    # The last, smaller batch has a shape of its own, which XLA compiles once more.
    sizes = [int(label.shape[0]) for _, label in train]
    last = train.skip(len(sizes) - 1)
    model.fit(last, validation_data=validation.skip(len(list(validation)) - 1), verbose=0)
    return timed(lambda: model.fit(train, validation_data=validation, epochs=1, verbose=0))


def regraft_s(case: Case, dataset: Path, out: Path, *, top: bool) -> dict[str, float]:
    """Return the seconds of each step of our side."""
    from components.core.options import FeatureOptions, FineTuneOptions, HeadOptions
    from components.extract_features.extract_features import extract_features
    from components.fine_tune.fine_tune import fine_tune
    from components.train_head.train_head import train_head

    features, head = out / "features", out / "head"
    options = FeatureOptions(
        backbone=case.backbone, weights=case.weights, image_px=case.image_px, keep_cut=top
    )
    seconds = {"extract": timed(lambda: extract_features(dataset, features, options))}
    patient = HeadOptions(head_epochs=HEAD_EPOCHS, patience=HEAD_EPOCHS)
    seconds["head"] = timed(lambda: train_head([features], head, patient))
    if top:
        tuning = FineTuneOptions(strategy="top", fine_tune_epochs=TOP_EPOCHS)
        seconds["top"] = timed(lambda: fine_tune(dataset, [features], head, out / "top", tuning))
    return seconds


def measure(case: Case, work: Path) -> Iterator[tuple[str, float, str, float | None]]:
    """Yield (name, value, unit, least goal) of one backbone."""
    from components.core.artifacts import DatasetManifest

    dataset = digits(work, case.pictures)
    splits = DatasetManifest.read(dataset).splits
    count = splits["train"].count + splits["validation"].count
    batches = max(count // BATCH, 4)
    raw = [raw_speed(case, batches)]
    ours = regraft_s(case, dataset, work, top=case.backbone == "vgg16")
    raw.append(raw_speed(case, batches))
    speed = statistics.mean(raw)
    few_s, few = start_s(case, work)
    head_s = ours["extract"] + ours["head"]
    yield "pictures", count, "", None
    yield "raw_forward", speed, "pictures/s", None
    yield "extraction_whole_step", count / ours["extract"], "pictures/s", None
    yield "extraction_share_of_raw", (count - few) / (ours["extract"] - few_s) / speed, "", 0.9
    yield "head_20_epochs", head_s, "s", None
    yield "head_training_alone", ours["head"], "s", None
    yield "head_share_of_limit", count / speed / head_s, "", 0.8
    for name, jit in (("keras_defaults", "auto"), ("keras_without_xla", False)):
        base = HEAD_EPOCHS * keras_epoch_s(case, dataset, "head", jit)
        yield f"head_20_epochs_{name}", base, "s", None
        yield f"head_times_faster_than_{name}", base / head_s, "", 20.0 if jit else None
    if "top" in ours:
        top_s = ours["extract"] + ours["top"]
        yield "top_10_epochs", top_s, "s", None
        for name, jit in (("keras_defaults", "auto"), ("keras_without_xla", False)):
            base = TOP_EPOCHS * keras_epoch_s(case, dataset, "top", jit)
            yield f"top_10_epochs_{name}", base, "s", None
            yield f"top_times_faster_than_{name}", base / top_s, "", 4.0 if jit else None


def write(path: Path, figures: dict[str, Any]) -> None:
    """Write the figures so far, so that a run that is cut short leaves what it measured."""
    result = {
        "name": "training",
        "command": f"python -m benchmarks.training --json {path}",
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores shared with other work, no GPU, "
        f"Python {platform.python_version()}",
        "conditions": "digits at 150 px, batch 32, float16 cache; VGG16's weights random; whole "
        "steps on our side; baselines measured for one epoch with graphs built before, and "
        f"multiplied by {HEAD_EPOCHS} (head) and {TOP_EPOCHS} (top); extraction's share of raw is "
        "that of the pictures beyond the first hundred, as raw has its graph built before; raw "
        "is the mean before and after",
        "figures": figures,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Measure and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--only", default="", help="one backbone")
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    if options.only and options.json.exists():  # measure one backbone again, keep the others
        figures = json.loads(options.json.read_text(encoding="utf-8"))["figures"]
    for case in CASES:
        if options.only not in ("", case.backbone):
            continue
        with tempfile.TemporaryDirectory() as work:
            for name, value, unit, least in measure(case, Path(work)):
                goal = "" if least is None else f">= {least:g}"
                holds = None if least is None else value >= least
                figures[f"{case.backbone}_{name}"] = {
                    "value": value, "unit": unit, "goal": goal, "holds": holds,
                }  # fmt: skip
                print(case.backbone, name, round(value, 3), unit, goal, flush=True)
                write(options.json, figures)


if __name__ == "__main__":
    main()
