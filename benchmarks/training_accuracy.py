"""Accuracy of cut and cache beside the notebook's way, over several seeds."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.result import Figure

BACKBONE, IMAGE_PX, BATCH, EPOCHS = "efficientnet_lite0", 64, 32, 20
# Pictures of each set; test pictures count for the spread, the others for the time.
DIGITS, FASHION = 1000, 1000


def accuracy(work: Path, seeds: int) -> Iterator[tuple[str, Figure]]:
    """Yield mean and spread of the test accuracy of both sides, and the difference in points."""
    from components.ingest.samples import write_digits, write_fashion

    (work / "digits").mkdir()
    (work / "fashion").mkdir()
    write_digits(work / "digits")
    write_fashion(work / "fashion", limit=FASHION)
    for number, path in enumerate(sorted((work / "digits").rglob("*.png"))):
        if number % 1797 >= DIGITS and number % 2:
            path.unlink()
    for name in ("digits", "fashion"):
        results: dict[str, list[float]] = {"regraft": [], "keras": []}
        for seed in range(seeds):
            dataset = _dataset(work, name, seed)
            results["regraft"].append(_by_regraft(dataset, work / f"{name}{seed}", seed))
            results["keras"].append(_by_keras(dataset, seed))
        for side, values in results.items():
            yield f"{name}_{side}_test_accuracy", Figure(statistics.mean(values))
            yield f"{name}_{side}_test_accuracy_spread", Figure(statistics.stdev(values))
        points = 100 * (statistics.mean(results["regraft"]) - statistics.mean(results["keras"]))
        yield f"{name}_accuracy_difference", Figure(points, "points", ">= -0.5")


def _dataset(work: Path, name: str, seed: int) -> Path:
    """Ingest with splits that the seed draws."""
    from components.core.options import IngestOptions
    from components.ingest.ingest import ingest

    out = work / f"{name}-dataset-{seed}"
    ingest([str(work / name)], out, IngestOptions(near_duplicates="off", seed=seed))
    return out


def _by_regraft(dataset: Path, out: Path, seed: int) -> float:
    from components.core.models import load_model
    from components.core.options import FeatureOptions, FineTuneOptions, HeadOptions
    from components.extract_features.extract_features import extract_features
    from components.fine_tune.fine_tune import fine_tune
    from components.train_head.train_head import train_head

    features = FeatureOptions(backbone=BACKBONE, image_px=IMAGE_PX, keep_cut=False)
    extract_features(dataset, out / "features", features)
    head = HeadOptions(head_epochs=EPOCHS, patience=EPOCHS, seed=seed)
    train_head([out / "features"], out / "head", head)
    fine_tune(dataset, [out / "features"], out / "head", out / "model",
              FineTuneOptions(strategy="head"))  # fmt: skip
    return _test_accuracy(load_model(out / "model")[0], dataset)


def _by_keras(dataset: Path, seed: int) -> float:
    import keras

    from components.core.backbones import build_backbone, find_backbone
    from components.core.surgery import freeze

    keras.utils.set_random_seed(seed)
    backbone = build_backbone(find_backbone(BACKBONE), IMAGE_PX)
    freeze(backbone)
    tensor = keras.layers.GlobalAveragePooling2D()(backbone.output)
    tensor = keras.layers.Dropout(0.2)(tensor)
    model = keras.Model(backbone.input, keras.layers.Dense(10)(tensor))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"], jit_compile=False)
    best = keras.callbacks.EarlyStopping(patience=EPOCHS, restore_best_weights=True)
    train = _batches(dataset, "train").shuffle(64, seed=seed)
    model.fit(train, validation_data=_batches(dataset, "validation"), epochs=EPOCHS,
              callbacks=[best], verbose=0)  # fmt: skip
    return _test_accuracy(model, dataset)


def _batches(dataset: Path, split: Any) -> Any:
    """Return (scaled pictures, labels), kept in memory after the first pass."""
    import tensorflow as tf

    from components.core.backbones import find_backbone
    from components.core.preprocess import load_pictures, scale
    from components.core.records import read_split

    scaling = find_backbone(BACKBONE).scaling
    records = list(read_split(dataset, split))
    encoded, labels = [one.encoded for one in records], [one.label for one in records]
    batches = tf.data.Dataset.from_tensor_slices((encoded, labels)).batch(BATCH)
    return batches.map(lambda some, of: (scale(load_pictures(some, IMAGE_PX), scaling), of)).cache()


def _test_accuracy(model: Any, dataset: Path) -> float:
    right = count = 0
    for pixels, labels in _batches(dataset, "test"):
        guesses = model(pixels, training=False).numpy().argmax(axis=1)
        right += int((guesses == labels.numpy()).sum())
        count += len(guesses)
    return right / count
