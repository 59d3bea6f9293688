"""Which augmented views help: heads on the views of a sample are compared by cross-validation.

Each policy is compared with the original images alone, on the same held-out original images; all
views of an image are in one fold. Every worker makes the same choice from the same sample.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.extract_features.engines import constant_call
from components.extract_features.forward_pass import view_seeds
from regraft_core.backbones.backbone_table import Backbone
from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.options.extract_features import FeatureOptions, Strength
from regraft_core.formats.options.train_head import HeadOptions
from regraft_core.formats.records import ImageRecord, read_split
from regraft_core.images.augment import augment
from regraft_core.images.batch_decoding import decode_batches, make_decoder
from regraft_core.runtime.step_reports import Clock, ProgressReporter, log_progress
from regraft_core.training.feature_store import number_groups
from regraft_core.training.linear_head.head_rows import HeadRows, scored_rows
from regraft_core.training.linear_head.head_selection import held_out_losses
from regraft_core.training.paired_losses import PairedLosses, compare_losses

STRENGTHS: tuple[Strength, ...] = ("light", "strong", "random")
# Rows of all views that heads are compared on: the time of a fit grows with their third power.
SAMPLE_ROWS = 1500
# What helps a sample may not help many more images, which vary more than views do.
MAX_IMAGES = 5000
Losses = NDArray[np.float64]


@dataclass(frozen=True)
class Policy:
    """How views are augmented."""

    strength: Strength
    flips: bool = False

    def __str__(self) -> str:
        return f"{self.strength} with flips" if self.flips else self.strength


ORIGINAL = Policy("off")


@dataclass(frozen=True)
class ViewTrial:
    """A policy, and the held-out losses with its views minus those without."""

    policy: Policy
    against_original: PairedLosses


def compare_policies(
    losses: Callable[[Policy], Losses], flips: str
) -> tuple[Policy, list[ViewTrial]]:
    """Return the policy with the lowest loss of those that are significantly better than none.

    Args:
        losses: returns the held-out loss of each image, always the same images.
        flips: `auto` compares flips alone first, and with the best other policy if they help; `on`
            adds them to all policies, `off` to none.
    """
    original, trials = losses(ORIGINAL), []

    def trial(policy: Policy) -> ViewTrial:
        compared = ViewTrial(policy, compare_losses(losses(policy), original))
        trials.append(compared)
        log_progress(
            f"extract_features: held-out loss with views {policy} minus that without: "
            f"{compared.against_original}"
        )
        return compared

    helps = flips != "off" and trial(Policy("flip")).against_original.difference < 0
    tried = [trial(Policy(strength, flips == "on")) for strength in STRENGTHS]
    if helps and flips == "auto":
        best = min(tried, key=lambda one: one.against_original.difference)
        trial(Policy(best.policy.strength, flips=True))
    better = [one for one in trials if one.against_original.better]
    chosen = min(better, key=lambda one: one.against_original.difference, default=None)
    return chosen.policy if chosen else ORIGINAL, trials


def choose_views(
    dataset: str | os.PathLike[str], data: DatasetManifest, extractor: keras.Model,
    backbone: Backbone, options: FeatureOptions,
) -> tuple[FeatureOptions, list[str]]:  # fmt: skip
    """Return the options with the policy that validation chose, and the choice in sentences.

    Args:
        dataset: the folder of the dataset.
        data: its manifest.
        extractor: from the backbone's input to pooled features [n, width].
        backbone: its row of the table.
        options: of the step, with `augment` auto.
    """
    clock, count = Clock(), data.splits["train"].count
    if count > MAX_IMAGES:
        return _without_views(
            options, f"{count} training images are more than {MAX_IMAGES}, too many for a choice "
            "from a sample"
        )  # fmt: skip
    records = _sample(dataset, count, SAMPLE_ROWS // options.views, options.seed)
    labels, images = _labels_and_images(records)
    if not len(scored_rows(labels, images)):
        return _without_views(options, "no class has two images to compare views by")
    views_of = _make_views(records, extractor, backbone, options)
    plain = views_of(ORIGINAL, 0)
    if not np.isfinite(plain).all():
        return _without_views(options, "features are not finite")
    mean, variance = plain.mean(axis=0), plain.var(axis=0)

    def losses(policy: Policy) -> Losses:
        views = range(1, options.views) if policy != ORIGINAL else ()
        parts = [plain, *(views_of(policy, view) for view in views)]
        rows = HeadRows(
            parts, np.tile(labels, len(parts)), np.tile(images, len(parts)), mean, variance,
            [len(mean)],
        )  # fmt: skip
        return held_out_losses(rows, len(data.classes), HeadOptions(seed=options.seed))

    chosen, trials = compare_policies(losses, options.flips)
    tried = ", ".join(f"{one.policy} {one.against_original}" for one in trials)
    choice = f"{chosen} was chosen" if chosen != ORIGINAL else "no views are used"
    sentence = (
        f"Held-out loss with {options.views - 1} augmented views of each of {len(records)} images "
        f"minus that without: {tried}; {choice} ({clock.seconds:.0f} s)."
    )
    if chosen == ORIGINAL:
        return _with_policy(options, chosen, views=1), [sentence]
    return _with_policy(options, chosen, views=options.views), [sentence]


def _with_policy(options: FeatureOptions, policy: Policy, views: int) -> FeatureOptions:
    return options.model_copy(
        update={"augment": policy.strength, "flips": "on" if policy.flips else "off",
                "views": views}
    )  # fmt: skip


def _without_views(options: FeatureOptions, reason: str) -> tuple[FeatureOptions, list[str]]:
    return _with_policy(options, ORIGINAL, views=1), [f"No views are used: {reason}."]


def _sample(
    dataset: str | os.PathLike[str], count: int, limit: int, seed: int
) -> list[ImageRecord]:
    chosen = set(np.random.default_rng(seed).permutation(count)[:limit].tolist())
    records = enumerate(read_split(dataset, "train"))
    return [record for index, record in records if index in chosen]


def _labels_and_images(
    records: list[ImageRecord],
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return labels, and the number of each image, the same for near duplicates."""
    images = number_groups(np.array([record.group for record in records], np.int64))
    return np.array([record.label for record in records], np.int32), images


def _make_views(
    records: list[ImageRecord], extractor: keras.Model, backbone: Backbone, options: FeatureOptions
) -> Callable[[Policy, int], NDArray[np.float32]]:
    """Return a function to the features of a view of all images, as they would be extracted."""
    compute, decode = constant_call(extractor, backbone), make_decoder(extractor.input.shape[1])
    shape = [None, *extractor.input.shape[1:]]

    @functools.cache
    def changes(policy: Policy) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
        return tf.function(
            lambda pixels, seeds: augment(pixels, seeds, policy.strength, flips=policy.flips),
            input_signature=[tf.TensorSpec(shape, tf.float32), tf.TensorSpec([None, 2], tf.int32)],
            autograph=False,
        )

    def features(policy: Policy, view: int) -> NDArray[np.float32]:
        rows = []
        what = f"view {view + 1} of the sample with {policy}" if view else "the sample"
        progress = ProgressReporter(f"extract_features: {what}", len(records))
        for batch, pixels in decode_batches(records, options.batch_size, decode):
            ids = tf.constant([record.id for record in batch])
            seeds = view_seeds(ids, tf.constant(view), options.seed)
            rows.append(compute(changes(policy)(pixels, seeds)).numpy().astype(np.float32))
            progress.advance(len(batch))
        return np.concatenate(rows)

    return features
