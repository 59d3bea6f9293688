"""Accuracy of cut and cache beside end-to-end training of the same head, over several seeds.

All sides learn from the same images (scikit-learn's 1,797 digits; the first 1,000 of
Fashion-MNIST's training images, tested on the first 1,000 of its test images) at 64 px, on the
frozen `efficientnet_lite0` with its ImageNet weights. A seed draws the splits, as far as they are
not given, the first weights, dropout and the order.

- `regraft`: `extract_features` (float16 cache), `train_head`, `fine_tune` with strategy `head`; the
  saved model is loaded and tested.
- `keras`, which the goal is against: the same head in all its options (features standardized by
  their mean and variance over the training images, L2, dropout, first weights), joined to the
  backbone and trained by `model.fit` on images, float32.
- `plain_head`, without a goal: `model.fit` as well, with the head of the notebook, which is dropout
  and a dense layer, neither standardized nor penalized.

All have the same Adam, learning rate, batch size and epochs, draw a new order of the images each
epoch, run all epochs, and keep the weights of the epoch with the lowest cross-entropy on
validation. The spread is the standard deviation over the seeds; differences are of the means.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.result import Figure
from regraft_core.formats.manifests import Split
from regraft_core.formats.options import FeatureOptions, FineTuneOptions, HeadOptions, IngestOptions

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
# Pixels as the backbone takes them, float32 [n, px, px, 3], and labels, int32 [n].
Images = tuple[NDArray[np.float32], NDArray[np.int32]]


@dataclass(frozen=True)
class AccuracyCase:
    """What is trained: `images` names the sets and how many of each at most.

    Of Fashion-MNIST so many are learned from, and as many are tested on.
    """

    backbone: str = "efficientnet_lite0"
    image_px: int = 64
    epochs: int = 20
    learning_rate: float = 1e-3
    images: Mapping[str, int] = field(default_factory=lambda: {"digits": 1797, "fashion": 1000})


@dataclass(frozen=True)
class Trial:
    """What all sides of one seed share: the dataset, on the disk and in memory, and the options.

    The backbone is Keras' sides'; it is frozen, so that none of them changes it.
    """

    case: AccuracyCase
    options: HeadOptions
    dataset: Path
    splits: Mapping[Split, Images]
    classes: int
    backbone: Any


def accuracy(
    work: Path, seeds: int, case: AccuracyCase | None = None
) -> Iterator[tuple[str, Figure]]:
    """Yield mean and spread of the test accuracy of all sides, and the differences in points."""
    from regraft_core.backbones.build import build_backbone
    from regraft_core.backbones.cuts import freeze

    case = case or AccuracyCase()
    backbone = build_backbone(case.backbone, case.image_px)
    freeze(backbone)
    for name, count in case.images.items():
        WRITERS[name](work / name, count)
        runs = []
        for seed in range(seeds):
            trial = drawn(work / name, work / f"{name}-{seed}", seed, case, backbone)
            runs.append(accuracies(trial))
        yield from compared(name, {side: [run[side] for run in runs] for side in SIDES})


def compared(name: str, found: Mapping[str, Sequence[float]]) -> Iterator[tuple[str, Figure]]:
    """Yield the figures of one set of images from the test accuracies of each side's seeds."""
    for side, values in found.items():
        yield f"{name}_{side}_test_accuracy", Figure(statistics.mean(values))
        if len(values) > 1:
            yield f"{name}_{side}_test_accuracy_spread", Figure(statistics.stdev(values))
    points = {side: 100 * statistics.mean(values) for side, values in found.items()}
    difference = points["regraft"] - points["keras"]
    yield f"{name}_accuracy_difference", Figure(difference, "points", ">= -0.5")
    above = points["regraft"] - points["plain_head"]
    yield f"{name}_accuracy_above_plain_head", Figure(above, "points")


def drawn(images: Path, out: Path, seed: int, case: AccuracyCase, backbone: Any) -> Trial:
    """Ingest with splits that the seed draws."""
    from components.ingest.ingest import ingest

    out.mkdir()
    splits = IngestOptions(near_duplicates="off", seed=seed)
    manifest = ingest([str(images)], out / "dataset", splits)
    options = HeadOptions(
        head_epochs=case.epochs,
        patience=case.epochs,
        head_learning_rate=case.learning_rate,
        seed=seed,
    )
    return Trial(
        case=case,
        options=options,
        dataset=out / "dataset",
        splits=in_memory(out / "dataset", case),
        classes=len(manifest.classes),
        backbone=backbone,
    )


def accuracies(trial: Trial) -> dict[str, float]:
    """Return the test accuracy of each side."""
    import keras

    shares = {}
    for side, trained in SIDES.items():
        keras.utils.set_random_seed(trial.options.seed)
        pixels, labels = trial.splits["test"]
        guesses = trained(trial).predict(pixels, verbose=0).argmax(axis=1)
        shares[side] = float((guesses == labels).mean())
    return shares


def by_regraft(trial: Trial) -> Any:
    """Return our model, as it was saved."""
    from components.extract_features.extract_features import extract_features
    from components.fine_tune.fine_tune import fine_tune
    from components.train_head.train_head import train_head
    from regraft_core.training.model_files import load_model

    out = trial.dataset.parent
    features, head, model = out / "features", out / "head", out / "model"
    pooled = FeatureOptions(
        backbone=trial.case.backbone, image_px=trial.case.image_px, keep_cut=False
    )
    extract_features(trial.dataset, features, pooled)
    train_head([features], head, trial.options)
    fine_tune(trial.dataset, [features], head, model, FineTuneOptions(strategy="head"))
    return load_model(model)[0]


def by_keras(trial: Trial) -> Any:
    """Return the frozen backbone with our head on it, trained by `model.fit`."""
    from regraft_core.backbones.cuts import join
    from regraft_core.training.heads import build_head, pooling_layer, standardize

    pooling = pooling_layer(trial.options.pooling)
    features = join(trial.backbone, [pooling]).predict(trial.splits["train"][0], verbose=0)
    head = build_head(features.shape[1], trial.classes, trial.options)
    standardize(head, features.mean(axis=0), features.var(axis=0))
    return fitted(join(trial.backbone, [pooling, *head.layers[1:]]), trial)


def by_plain_head(trial: Trial) -> Any:
    """Return the frozen backbone with the notebook's head on it, trained by `model.fit`."""
    import keras

    from regraft_core.backbones.cuts import join

    layers = [
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dropout(trial.options.dropout),
        keras.layers.Dense(trial.classes),
    ]
    return fitted(join(trial.backbone, layers), trial)


def fitted(model: Any, trial: Trial) -> Any:
    """Train by `model.fit` as `train_head` does, and return the model with its best weights."""
    import keras
    import tensorflow as tf

    # Unlike the loss, the metric leaves out penalties, as our choice of the best epoch does.
    judge = keras.metrics.SparseCategoricalCrossentropy(from_logits=True, name="cross_entropy")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    options = trial.options
    adam = keras.optimizers.Adam(options.head_learning_rate)
    model.compile(adam, loss, metrics=[judge], jit_compile=False)
    best = keras.callbacks.EarlyStopping(
        "val_cross_entropy", patience=options.patience, mode="min", restore_best_weights=True
    )
    train, validation = (
        tf.data.Dataset.from_tensor_slices(trial.splits[split]) for split in SPLITS[:2]
    )
    model.fit(
        train.shuffle(len(train), seed=options.seed).batch(options.batch_size).prefetch(2),
        validation_data=validation.batch(options.batch_size),
        epochs=options.head_epochs, callbacks=[best], shuffle=False, verbose=0,
    )  # fmt: skip
    return model


def in_memory(dataset: Path, case: AccuracyCase) -> dict[Split, Images]:
    """Return the images of each split, decoded and scaled as all sides take them."""
    import tensorflow as tf

    from regraft_core.backbones.table import find_backbone
    from regraft_core.formats.records import read_split
    from regraft_core.images.batch_decoding import make_decoder
    from regraft_core.images.preprocess import scale

    scaling, decode = find_backbone(case.backbone).scaling, make_decoder(case.image_px)
    held: dict[Split, Images] = {}
    for split in SPLITS:
        records = list(read_split(dataset, split))
        pixels = decode(tf.constant([record.encoded for record in records]))
        labels = np.array([record.label for record in records], np.int32)
        held[split] = scale(pixels, scaling).numpy(), labels
    return held


def write_some_digits(folder: Path, count: int) -> None:
    """Write the first `count` of the digits, whose classes take turns."""
    from components.ingest.sources.samples import write_digits

    write_digits(folder)
    for path in folder.rglob("*.png"):
        if int(path.stem) >= count:
            path.unlink()


def write_some_fashion(folder: Path, count: int) -> None:
    """Write the first `count` images of both parts of Fashion-MNIST."""
    from components.ingest.sources.samples import write_fashion

    write_fashion(folder, limit=count)


WRITERS: Mapping[str, Callable[[Path, int], None]] = {
    "digits": write_some_digits,
    "fashion": write_some_fashion,
}
# Ours first, then what it is compared with.
SIDES: Mapping[str, Callable[[Trial], Any]] = {
    "regraft": by_regraft,
    "keras": by_keras,
    "plain_head": by_plain_head,
}
