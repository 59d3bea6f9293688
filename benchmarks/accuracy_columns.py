"""The columns of the accuracy benchmark: each returns a function that fits a model.

That function is timed; it returns another one that returns the model's test accuracy.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.split_images import Images, read_split_images
from regraft_core.formats.manifests.dataset import Split

if TYPE_CHECKING:
    from benchmarks.accuracy_process import Settings

Fit = Callable[[], Callable[[], float]]
# The inverse penalties of scikit-learn's logistic regression, for rows of mean square length 1.
INVERSE_PENALTIES = np.logspace(-2, 6, 17)
FOLDS = 5
LABELED: tuple[Split, ...] = ("train", "validation")
# Rows of its cross-validation; with more, it would take hours.
MOST_COMPARED = 10_000
# Images that a model predicts in one call; a multiple of the batch size.
PREDICTED_AT_ONCE = 8192


def fit_regraft(folder: Path, settings: Settings) -> Fit:
    """Return the steps of a default run on `folder/dataset`; `evaluate` chooses and tests."""
    from components.evaluate.evaluate import evaluate
    from components.extract_features.extract_features import extract_features
    from components.fine_tune.fine_tune import fine_tune
    from components.train_head.train_head import train_head
    from regraft_core.formats.options.evaluate import GateOptions
    from regraft_core.formats.options.extract_features import FeatureOptions
    from regraft_core.formats.options.fine_tune import FineTuneOptions, Strategy
    from regraft_core.formats.options.train_head import HeadOptions

    dataset, out, seed = folder / "dataset", folder / "regraft", settings.seed
    strategies: tuple[Strategy, ...] = ("head", "top")

    def fit() -> Callable[[], float]:
        features = FeatureOptions(backbone=settings.backbone, image_px=settings.image_px, seed=seed)
        extract_features(dataset, out / "features", features)
        train_head([out / "features"], out / "trained", HeadOptions(seed=seed))
        for strategy in strategies:
            options = FineTuneOptions(
                strategy=strategy, fine_tune_epochs=settings.top_epochs, seed=seed
            )
            fine_tune(dataset, [out / "features"], out / "trained", out / strategy, options)

        def test() -> float:
            candidates = [out / strategy for strategy in strategies]
            result = evaluate(candidates, dataset, out / "evaluation", GateOptions(seed=seed))
            return result.metrics["test_accuracy"]

        return test

    return fit


def fit_budget(folder: Path, settings: Settings) -> Fit:
    """Return the steps of a run with a budget on `folder/dataset`; `evaluate` chooses and tests."""
    from components.evaluate.evaluate import evaluate
    from components.extract_features.extract_features import extract_features
    from components.fine_tune.search.search_candidates import search_candidates
    from components.train_head.train_head import train_head
    from regraft_core.formats.options.evaluate import GateOptions
    from regraft_core.formats.options.extract_features import FeatureOptions
    from regraft_core.formats.options.fine_tune import FineTuneOptions
    from regraft_core.formats.options.train_head import HeadOptions

    dataset, out, seed = folder / "dataset", folder / "budget", settings.seed

    def fit() -> Callable[[], float]:
        features = FeatureOptions(backbone=settings.backbone, image_px=settings.image_px, seed=seed)
        extract_features(dataset, out / "features", features)
        head = HeadOptions(budget=settings.budget, seed=seed)
        train_head([out / "features"], out / "trained", head)
        options = FineTuneOptions(budget=settings.budget, seed=seed)
        found = search_candidates(
            dataset, out / "features", out / "trained", out / "candidates", options
        )

        def test() -> float:
            candidates = [out / "candidates" / name for name in found.candidates]
            result = evaluate(candidates, dataset, out / "evaluation", GateOptions(seed=seed))
            return result.metrics["test_accuracy"]

        return test

    return fit


def fit_last_level(folder: Path, settings: Settings) -> Fit:
    """Return a logistic regression on the last level of the frozen backbone."""
    import keras
    from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
    from sklearn.model_selection import StratifiedKFold

    from regraft_core.backbones.backbone_table import find_backbone
    from regraft_core.backbones.build import build_backbone

    def fit() -> Callable[[], float]:
        backbone = build_backbone(find_backbone(settings.backbone), settings.image_px)
        average = keras.layers.GlobalAveragePooling2D()(backbone.output)
        pooled = keras.Model(backbone.input, average)

        def features_of(images: Images) -> NDArray[np.float64]:
            # `predict` copies its input, which fills the memory for 60,000 images.
            parts = np.array_split(images[0], -(-len(images[0]) // PREDICTED_AT_ONCE))
            found = [pooled.predict(part, batch_size=32, verbose=0) for part in parts]
            return np.concatenate(found).astype(np.float64)

        parts = [(features_of(images), images[1])
                 for images in (_read(folder, split, settings) for split in LABELED)]  # fmt: skip
        rows, labels = map(np.concatenate, zip(*parts, strict=True))
        shift = rows.mean(axis=0)
        scale = np.sqrt(np.square(rows - shift).sum(axis=1).mean())
        rows = (rows - shift) / scale
        folds = min(FOLDS, int(np.bincount(labels)[np.unique(labels)].min()))
        inverse_penalty = 1.0
        if folds > 1:
            sample = np.random.default_rng(settings.seed).permutation(len(labels))[:MOST_COMPARED]
            compared = LogisticRegressionCV(
                Cs=INVERSE_PENALTIES, scoring="neg_log_loss", max_iter=10_000, tol=1e-5,
                cv=StratifiedKFold(folds, shuffle=True, random_state=settings.seed),
                l1_ratios=(0.0,), use_legacy_attributes=False, n_jobs=os.cpu_count(),
            )  # fmt: skip
            inverse_penalty = float(compared.fit(rows[sample], labels[sample]).C_)
        model = LogisticRegression(C=inverse_penalty, max_iter=10_000, tol=1e-5).fit(rows, labels)

        def test() -> float:
            images = _read(folder, "test", settings)
            predicted = model.predict((features_of(images) - shift) / scale)
            return float((predicted == images[1]).mean())

        return test

    return fit


def fit_keras(folder: Path, settings: Settings) -> Fit:
    """Return the recipe of Keras' guide to transfer learning."""
    import keras
    import tensorflow as tf

    from regraft_core.backbones.backbone_table import find_backbone
    from regraft_core.backbones.build import build_backbone

    def fit() -> Callable[[], float]:
        keras.utils.set_random_seed(settings.seed)
        train, held_out = (_read(folder, split, settings) for split in LABELED)
        backbone = build_backbone(find_backbone(settings.backbone), settings.image_px)
        backbone.trainable = False
        flip, rotate = keras.layers.RandomFlip("horizontal"), keras.layers.RandomRotation(0.1)
        inputs = keras.Input(train[0].shape[1:])
        features = backbone(inputs, training=False)
        pooled = keras.layers.GlobalAveragePooling2D()(features)
        logits = keras.layers.Dense(int(train[1].max()) + 1)(keras.layers.Dropout(0.2)(pooled))
        model = keras.Model(inputs, logits)

        def augment(pixels: Any, labels: Any) -> Any:
            return rotate(flip(pixels, training=True), training=True), labels

        # Only the numbers of the images are shuffled, because 60,000 images fill the memory.
        pixels, labels = map(tf.constant, train)
        examples = tf.data.Dataset.range(len(labels)).shuffle(len(labels), seed=settings.seed)
        examples = examples.map(lambda index: (pixels[index], labels[index]))
        batches = examples.batch(settings.batch_size).map(augment, tf.data.AUTOTUNE).prefetch(2)
        validation = tf.data.Dataset.from_tensor_slices(held_out).batch(settings.batch_size)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        for epochs, rate in ((settings.head_epochs, 1e-3), (settings.all_epochs, 1e-5)):
            model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
            model.fit(batches, epochs=epochs, validation_data=validation, shuffle=False, verbose=0)
            backbone.trainable = True
            # `training=False` above is to keep their statistics, but Keras 3.15 overrides it in
            # `fit` (`operation_fn` in keras/src/models/functional.py).
            for layer in backbone.layers:
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.trainable = False

        def test() -> float:
            pixels, labels = _read(folder, "test", settings)
            predicted = model.predict(pixels, batch_size=settings.batch_size, verbose=0)
            return float((predicted.argmax(axis=1) == labels).mean())

        return test

    return fit


def _read(folder: Path, split: Split, settings: Settings) -> Images:
    return read_split_images(folder / "dataset", split, settings.backbone, settings.image_px)


COLUMNS: Mapping[str, Callable[[Path, Settings], Fit]] = {
    "regraft": fit_regraft,
    "budget": fit_budget,
    "last_level": fit_last_level,
    "keras": fit_keras,
}
