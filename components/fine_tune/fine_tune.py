"""From a head to a complete candidate, with one of the three strategies of transfer learning.

`head` trains nothing more; `top` trains the layers above the cut from cached activations; `full`
trains all layers from images; `auto` chooses among them by evidence.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np

from components.fine_tune.candidate import TrainedCandidate, write_candidate
from components.fine_tune.choose_strategy import Evidence, gather_evidence
from components.fine_tune.part_training import Trained, train_strategy
from components.fine_tune.strategies import Parts, trained_part, unfreeze
from components.fine_tune.training_precision import (
    TrainingPrecision,
    choose_precision,
    half_precision,
)
from regraft_core.backbones.backbone_table import find_backbone
from regraft_core.backbones.build import build_backbone, weights_digest
from regraft_core.backbones.cuts import freeze, has_cut, join
from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.manifests.features import Level
from regraft_core.formats.manifests.model import ModelManifest
from regraft_core.formats.options.fine_tune import FineTuneOptions
from regraft_core.formats.several_labels import check_label_options
from regraft_core.runtime.allocator import keep_freed_memory
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.gpu_setup import GpuSetup, set_up_gpus
from regraft_core.runtime.out_of_memory import explain_out_of_memory, with_halved_batches
from regraft_core.runtime.step_reports import Clock, log_progress
from regraft_core.training.batch_limit import fitting_batch
from regraft_core.training.distribution import distribution_strategy, process_count
from regraft_core.training.feature_store import read_manifests
from regraft_core.training.heads import add_offset, pooled_levels, pooling_layer
from regraft_core.training.mixed_precision import HalfPrecision, accelerate
from regraft_core.training.model_files import load_model
from regraft_core.training.paired_losses import no_room
from regraft_core.training.winograd import winograd


@dataclass(frozen=True)
class Outcome:
    """The result of a training: its history, and loss and accuracy of the weights it kept."""

    batch_norm: str
    batch_size: int
    trained: Trained
    loss: float
    accuracy: float
    weights: list[Any]


@explain_out_of_memory()
def fine_tune(
    dataset: str | os.PathLike[str],
    features: Sequence[str | os.PathLike[str]],
    head: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: FineTuneOptions,
) -> ModelManifest:
    """Train a complete candidate (backbone's input to logits) with one strategy.

    Trains on all GPUs of this machine and, with `top` and `full`, on all machines that `TF_CONFIG`
    names, of which only the first writes the candidate.

    Raises:
        InputError: the head is of another dataset or other weights, no cut was chosen, a required
            GPU is missing, or there are several machines for another strategy.
        RegraftError: the loss is not finite, or the memory is exhausted.
    """
    set_up_gpus(GpuSetup.of(options))
    keep_freed_memory()
    with distribution_strategy(options.strategy).scope():
        return _fine_tune(dataset, features, head, out, options)


def _fine_tune(
    dataset: str | os.PathLike[str],
    features: Sequence[str | os.PathLike[str]],
    head: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: FineTuneOptions,
) -> ModelManifest:
    clock = Clock()
    check_label_options(options, DatasetManifest.read(dataset).labels_per_image)
    keras.utils.set_random_seed(options.seed)
    parts = load_parts(dataset, features, head)
    strategy = options.strategy
    reasoning: list[str] = []
    measurements: dict[str, Any] = {"head_validation_accuracy": parts.head.validation_accuracy}
    evidence = None
    if strategy == "auto":
        evidence = gather_evidence(dataset, features, parts.head, options.seed)
        strategy = evidence.strategy
        reasoning = evidence.sentences()
        measurements["auto"] = evidence.measurements()
    if strategy == "top" and parts.features.cut is None and not has_cut(parts.backbone):
        strategy = "head"
        reasoning.append("The backbone has no cut point, so only the head is trained.")
        log_progress("fine_tune top: the backbone has no cut point, so only the head is trained")
    if strategy == "top" and not parts.cached:
        log_progress(
            "fine_tune top: trains from images, because cached activations would exceed cache-gb"
        )
    best, outcomes, precision = _train_each(parts, strategy, options, evidence)
    if measured := precision.measurements():
        measurements["precision"] = measured
    if len(outcomes) > 1:
        accuracies = ", ".join(f"{one.batch_norm} {one.accuracy:.4f}" for one in outcomes)
        reasoning.append(f"Validation accuracy by the treatment of BatchNorm: {accuracies}; "
                         f"{best.batch_norm} was kept for its lower loss.")  # fmt: skip
        measurements["batch_norm"] = {
            one.batch_norm: {"validation_loss": one.loss, "validation_accuracy": one.accuracy}
            for one in outcomes
        }
    if room := best.trained.without_room:
        reasoning.append(no_room(strategy, room))
        measurements["without_room"] = asdict(room)
    if best.trained.search:
        reasoning.append(best.trained.search.sentence())
        measurements["learning_rate"] = best.trained.search.measurements()
    if best.trained.against_head:
        measurements["against_head"] = asdict(best.trained.against_head)
    if (processes := process_count()) > 1:
        reasoning.append(f"{processes} processes trained together, each on its part of a batch.")
        measurements["processes"] = processes
    if best.batch_size < options.batch_size:
        reasoning.append(f"Trained with batches of {best.batch_size}, because the memory ran out "
                         f"with {options.batch_size}.")  # fmt: skip
    found = TrainedCandidate(
        strategy,
        options.strategy,
        best.trained.history,
        best.loss,
        best.accuracy,
        options.model_dump()
        | {"batch_norm": best.batch_norm, "batch_size": best.batch_size}
        | ({"learning_rate": best.trained.learning_rate} if best.trained.history else {}),
        reasoning,
        measurements,
    )
    return write_candidate(parts, head, out, found, clock)


def load_parts(
    dataset: str | os.PathLike[str],
    features: Sequence[str | os.PathLike[str]],
    head: str | os.PathLike[str],
) -> Parts:
    """Return the input of fine-tuning, with the head's weights in place.

    Raises:
        InputError: dataset, features, head and weights do not match.
    """
    extracted = read_manifests(features)[0]
    head_model, manifest = load_model(head)
    if manifest.kind != "head":
        raise InputError(f"expected a head in {head}, got a {manifest.kind}")
    image_px = manifest.preprocessing.image_px
    data = DatasetManifest.read(dataset)
    for what, ours, theirs in (
        ("dataset", data.digest, extracted.dataset_digest),
        ("dataset", manifest.dataset_digest, extracted.dataset_digest),
        ("backbone", manifest.weights_digest, extracted.weights_digest),
        ("image size", image_px, extracted.image_px),
    ):
        if ours != theirs:
            raise InputError(f"dataset, features and head do not match: different {what}")
    row = find_backbone(manifest.backbone, manifest.preprocessing.scaling)
    backbone = build_backbone(row, image_px, manifest.weights)
    digest = weights_digest(backbone)
    if digest != manifest.weights_digest:
        raise InputError(
            f"expected backbone weights {manifest.weights_digest[:12]}, got {digest[:12]}"
        )
    freeze(backbone)
    levels = [Level(**level) for level in manifest.head["levels"]]
    pooling = [] if levels else [pooling_layer(manifest.head["pooling"])]
    layers = [*pooling, *head_model.layers[1:]]
    # Training is unweighted: the offset that serves another objective is added at its end.
    add_offset(layers[-1], -np.array(manifest.head["offset"]))
    pooled = keras.Model(backbone.input, pooled_levels(backbone, levels)) if levels else backbone
    complete = join(pooled, layers)
    return Parts(dataset, features, backbone, layers, complete, manifest, extracted)


def _train_each(
    parts: Parts, strategy: str, options: FineTuneOptions, evidence: Evidence | None
) -> tuple[Outcome, list[Outcome], TrainingPrecision]:
    """Train with each treatment of BatchNormalization; restore the weights of the best one."""
    start = parts.complete.get_weights()
    precision, batch_size = _precision(parts, strategy, options)
    outcomes = []
    for batch_norm in _treatments(parts, strategy, options, evidence):
        treated = options.model_copy(update={"batch_norm": batch_norm})
        run = functools.partial(_train_once, parts, strategy, treated, precision.half, start)
        if process_count() > 1:  # the others would wait for one that starts again
            trained = run(batch_size)
        else:
            trained, batch_size = with_halved_batches(f"fine_tune {strategy}", batch_size, run)
        kept = trained.best or parts.head
        outcomes.append(
            Outcome(
                batch_norm, batch_size, trained, kept.validation_loss, kept.validation_accuracy,
                parts.complete.get_weights(),
            )
        )  # fmt: skip
    best = min(outcomes, key=lambda outcome: outcome.loss)
    parts.complete.set_weights(best.weights)
    if strategy != "head":
        unfreeze(parts, strategy, options.model_copy(update={"batch_norm": best.batch_norm}), 1)
    return best, outcomes, precision


def _precision(
    parts: Parts, strategy: str, options: FineTuneOptions
) -> tuple[TrainingPrecision, int]:
    """Return the precision to train in, and the batch size that fits."""
    half = half_precision(options)
    # Processes that train together need equal batches, whatever the memory of each machine.
    if strategy == "head" or process_count() > 1:
        return TrainingPrecision(half), options.batch_size
    batch_size = _first_batch(parts, strategy, options, half)

    def choose(size: int) -> TrainingPrecision:
        sized = options.model_copy(update={"batch_size": size})
        return choose_precision(parts, strategy, sized)

    return with_halved_batches(f"fine_tune {strategy}", batch_size, choose)


def _first_batch(parts: Parts, strategy: str, options: FineTuneOptions, half: HalfPrecision) -> int:
    """Return the batch size, or a smaller one if a batch cannot fit in the memory."""
    on_cache = strategy == "top" and parts.cached
    model = trained_part(parts, strategy) if on_cache else parts.complete
    return fitting_batch(
        f"fine_tune {strategy}", options.batch_size, model, options.gpu_memory_mb, half=bool(half)
    )


def _train_once(
    parts: Parts,
    strategy: str,
    options: FineTuneOptions,
    half: HalfPrecision,
    start: list[Any],
    batch_size: int,
) -> Trained:
    """Train from the weights `start` with a batch size."""
    parts.complete.set_weights(start)
    layers, sized = parts.backbone.layers, options.model_copy(update={"batch_size": batch_size})
    with accelerate(layers, half), winograd(layers):
        return train_strategy(parts, strategy, sized, half)


def _treatments(
    parts: Parts, strategy: str, options: FineTuneOptions, evidence: Evidence | None
) -> tuple[str, ...]:
    """Return the treatments of BatchNormalization to train with: both for dissimilar data."""
    if evidence is None or evidence.similar or strategy == "head":
        return (options.batch_norm,)
    part = trained_part(parts, strategy)
    batch_norm = any(isinstance(layer, keras.layers.BatchNormalization) for layer in part.layers)
    return ("frozen", "adapt") if batch_norm else (options.batch_norm,)
