"""Accuracy of the solved head and of heads trained end to end by Keras, over several seeds.

All are trained on the same images at 64 px (scikit-learn's 1,797 digits; the first 1,000 training
images of Fashion-MNIST, tested on its first 1,000 test images), on the frozen `efficientnet_lite0`
with its ImageNet weights. The seed sets the splits, if the source has none, the initial weights,
dropout and the order of the images.

- `regraft`: `extract_features` (float16 cache), `train_head`, and `fine_tune` with strategy `head`.
  The saved model is loaded and tested.
- `keras`, with a goal for the difference: a head of Regraft's layers (features standardized by
  their mean and variance over the training images) with L2 and dropout, joined to the backbone and
  trained by `model.fit` on images in float32.
- `plain_head`, without a goal: trained by `model.fit` too. The head is dropout and a dense layer,
  without standardization and L2.

Both have the same Adam, learning rate, batch size and number of epochs, shuffle the images in each
epoch, run all epochs, and keep the weights of the epoch with the lowest validation cross-entropy.
The standard deviation is over the seeds; differences are those of the means.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.result import Metric
from regraft_core.formats.manifests import Split
from regraft_core.formats.options import FeatureOptions, FineTuneOptions, HeadOptions, IngestOptions

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
# The backbone's input, float32 [n, px, px, 3], and labels, int32 [n].
Images = tuple[NDArray[np.float32], NDArray[np.int32]]


@dataclass(frozen=True)
class AccuracyCase:
    """The training settings; `images` is the largest number of images of each dataset.

    For Fashion-MNIST this is the number of training images and also of test images.
    """

    backbone: str = "efficientnet_lite0"
    image_px: int = 64
    epochs: int = 20
    learning_rate: float = 1e-3
    batch_size: int = 32
    dropout: float = 0.2
    l2: float = 1e-5
    images: Mapping[str, int] = field(default_factory=lambda: {"digits": 1797, "fashion": 1000})


@dataclass(frozen=True)
class Trial:
    """What all trainings with one seed share: the dataset, on disk and in memory, and the options.

    Both Keras trainings use `backbone`, which is frozen, so neither changes it.
    """

    case: AccuracyCase
    options: HeadOptions
    dataset: Path
    splits: Mapping[Split, Images]
    classes: int
    backbone: Any


def accuracy(
    work: Path, seeds: int, case: AccuracyCase | None = None
) -> Iterator[tuple[str, Metric]]:
    """Yield mean and standard deviation of each test accuracy, and the differences in points."""
    from regraft_core.backbones.build import build_backbone
    from regraft_core.backbones.cuts import freeze

    case = case or AccuracyCase()
    backbone = build_backbone(case.backbone, case.image_px)
    freeze(backbone)
    for name, count in case.images.items():
        WRITERS[name](work / name, count)
        runs = []
        for seed in range(seeds):
            trial = make_trial(work / name, work / f"{name}-{seed}", seed, case, backbone)
            runs.append(test_accuracies(trial))
        yield from compare(name, {side: [run[side] for run in runs] for side in SIDES})


def compare(name: str, accuracies: Mapping[str, Sequence[float]]) -> Iterator[tuple[str, Metric]]:
    """Yield the metrics of one dataset from the test accuracies of each side's seeds."""
    for side, values in accuracies.items():
        yield f"{name}_{side}_test_accuracy", Metric(statistics.mean(values))
        if len(values) > 1:
            yield f"{name}_{side}_test_accuracy_std", Metric(statistics.stdev(values))
    points = {side: 100 * statistics.mean(values) for side, values in accuracies.items()}
    difference = points["regraft"] - points["keras"]
    yield f"{name}_accuracy_difference", Metric(difference, "points", ">= -0.5")
    above = points["regraft"] - points["plain_head"]
    yield f"{name}_accuracy_above_plain_head", Metric(above, "points")


def make_trial(images: Path, out: Path, seed: int, case: AccuracyCase, backbone: Any) -> Trial:
    """Ingest the images with this seed; return the trial."""
    from components.ingest.ingest import ingest

    out.mkdir()
    splits = IngestOptions(near_duplicates="off", seed=seed)
    manifest = ingest([str(images)], out / "dataset", splits)
    options = HeadOptions(seed=seed)
    return Trial(
        case=case,
        options=options,
        dataset=out / "dataset",
        splits=load_splits(out / "dataset", case),
        classes=len(manifest.classes),
        backbone=backbone,
    )


def test_accuracies(trial: Trial) -> dict[str, float]:
    """Return the test accuracy of each side."""
    import keras

    accuracies = {}
    for side, train in SIDES.items():
        keras.utils.set_random_seed(trial.options.seed)
        pixels, labels = trial.splits["test"]
        predicted = train(trial).predict(pixels, verbose=0).argmax(axis=1)
        accuracies[side] = float((predicted == labels).mean())
    return accuracies


def train_regraft(trial: Trial) -> Any:
    """Return Regraft's model, loaded from the file."""
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


def train_keras(trial: Trial) -> Any:
    """Return the frozen backbone with a standardized head, trained by `model.fit`."""
    import keras

    from regraft_core.backbones.cuts import join
    from regraft_core.training.heads import build_head, pooling_layer, standardize

    pooling = pooling_layer(trial.options.pooling)
    features = join(trial.backbone, [pooling]).predict(trial.splits["train"][0], verbose=0)
    head = build_head(features.shape[1], trial.classes, trial.options.seed)
    standardize(head, features.mean(axis=0), features.var(axis=0))
    standardization, logits = head.layers[1:]
    logits.kernel_regularizer = keras.regularizers.L2(trial.case.l2)
    dropout = keras.layers.Dropout(trial.case.dropout)
    return fit(join(trial.backbone, [pooling, standardization, dropout, logits]), trial)


def train_plain_head(trial: Trial) -> Any:
    """Return the frozen backbone with dropout and a dense layer, trained by `model.fit`."""
    import keras

    from regraft_core.backbones.cuts import join

    layers = [
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dropout(trial.case.dropout),
        keras.layers.Dense(trial.classes),
    ]
    return fit(join(trial.backbone, layers), trial)


def fit(model: Any, trial: Trial) -> Any:
    """Train with `model.fit`; return the model with the weights of its best epoch."""
    import keras
    import tensorflow as tf

    # Unlike the loss, this metric excludes penalties.
    cross_entropy = keras.metrics.SparseCategoricalCrossentropy(
        from_logits=True, name="cross_entropy"
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    case = trial.case
    adam = keras.optimizers.Adam(case.learning_rate)
    model.compile(adam, loss, metrics=[cross_entropy], jit_compile=False)
    best = keras.callbacks.EarlyStopping(
        "val_cross_entropy", patience=case.epochs, mode="min", restore_best_weights=True
    )
    train, validation = (
        tf.data.Dataset.from_tensor_slices(trial.splits[split]) for split in SPLITS[:2]
    )
    model.fit(
        train.shuffle(len(train), seed=trial.options.seed).batch(case.batch_size).prefetch(2),
        validation_data=validation.batch(case.batch_size),
        epochs=case.epochs, callbacks=[best], shuffle=False, verbose=0,
    )  # fmt: skip
    return model


def load_splits(dataset: Path, case: AccuracyCase) -> dict[Split, Images]:
    """Return the images of each split, decoded and scaled for the backbone."""
    return {
        split: read_split_images(dataset, split, case.backbone, case.image_px) for split in SPLITS
    }


def read_split_images(dataset: Path, split: Split, backbone: str, image_px: int) -> Images:
    """Return the images of one split, decoded and scaled for the backbone."""
    import tensorflow as tf

    from regraft_core.backbones.backbone_table import find_backbone
    from regraft_core.formats.records import read_split
    from regraft_core.images.batch_decoding import make_decoder
    from regraft_core.images.preprocess import scale

    records = list(read_split(dataset, split))
    pixels = make_decoder(image_px)(tf.constant([record.encoded for record in records]))
    labels = np.array([record.label for record in records], np.int32)
    return scale(pixels, find_backbone(backbone).scaling).numpy(), labels


def write_first_digits(folder: Path, count: int) -> None:
    """Write the first `count` digits, in which the classes alternate."""
    from components.ingest.sources.samples import write_digits

    write_digits(folder)
    for path in folder.rglob("*.png"):
        if int(path.stem) >= count:
            path.unlink()


def write_first_fashion(folder: Path, count: int) -> None:
    """Write the first `count` training images and test images of Fashion-MNIST."""
    from components.ingest.sources.samples import write_fashion

    write_fashion(folder, limit=count)


WRITERS: Mapping[str, Callable[[Path, int], None]] = {
    "digits": write_first_digits,
    "fashion": write_first_fashion,
}
# Regraft first, then what it is compared with.
SIDES: Mapping[str, Callable[[Trial], Any]] = {
    "regraft": train_regraft,
    "keras": train_keras,
    "plain_head": train_plain_head,
}
