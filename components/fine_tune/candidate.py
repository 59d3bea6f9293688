"""Writes complete candidates: model, learning curves, detector and manifest."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.fine_tune.detector import fit_detector
from components.fine_tune.label_calibration import calibrate_labels
from components.fine_tune.strategies import Parts
from regraft_core.formats.manifest_storage import MadeBy, digest_of, staged_folder
from regraft_core.formats.manifests.model import CandidatesManifest, Epoch, ModelManifest
from regraft_core.runtime.step_reports import Clock, log_progress
from regraft_core.runtime.version import VERSION
from regraft_core.training.distribution import is_chief
from regraft_core.training.heads import add_offset
from regraft_core.training.learning_curves import write_curves
from regraft_core.training.linear_head.refitted_head import RefittedHead
from regraft_core.training.model_files import count_parameters, save_model
from regraft_core.training.ood_detector import OodDetector


@dataclass(frozen=True)
class TrainedCandidate:
    """A candidate whose weights are in place; loss and accuracy are those on validation.

    `options` are all of the step, as used; `reasoning` and `measurements` are added to the head's.
    """

    strategy: str
    requested_strategy: str
    history: list[Epoch]
    loss: float
    accuracy: float
    options: dict[str, Any]
    reasoning: list[str]
    measurements: dict[str, Any]


def write_candidate(
    parts: Parts,
    head: str | os.PathLike[str],
    out: str | os.PathLike[str],
    found: TrainedCandidate,
    clock: Clock,
) -> ModelManifest:
    """Write a candidate to `out`, with the offset of its head; only the first machine does.

    Args:
        parts: the input of fine-tuning, with the candidate's weights.
        head: folder of the head.
        out: a folder to make.
        found: what was trained.
        clock: measures the step.
    """
    strategy, reasoning = found.strategy, list(found.reasoning)
    refit = parts.head.head.get("refit") if strategy == "head" else None
    if refit:
        reasoning.append("The head was fitted again to the images of train and validation.")
    for sentence in reasoning:
        log_progress(f"fine_tune: {sentence}")
    trained = {"head": "head", "top": parts.features.cut, "full": "all"}[strategy]
    log_progress(
        f"fine_tune {strategy}: validation accuracy {found.accuracy:.4f}, trained from {trained}"
    )
    detector = (
        OodDetector.read(head, parts.head.ood_detector)
        if strategy == "head"
        else fit_detector(parts, strategy, found.options["batch_size"], found.options["seed"])
    )
    thresholds = parts.head.thresholds
    if thresholds and strategy != "head":
        calibrated = calibrate_labels(
            parts, strategy, found.options["batch_size"], found.options["seed"]
        )
        thresholds = calibrated.thresholds
        reasoning.append(calibrated.sentence())
        log_progress(f"fine_tune: {reasoning[-1]}")
    add_offset(parts.head_layers[-1], np.array(parts.head.head["offset"]))
    if refit:
        refitted = RefittedHead.read(head, refit)
        parts.head_layers[-1].set_weights([refitted.kernel, refitted.bias])
    with _destination(out) as folder:
        if refit:
            refitted.write(folder)
        history = parts.head.history + found.history
        write_curves(history, folder)
        written = parts.head.model_copy(
            update={
                "digest": save_model(parts.complete, folder),
                "made_by": MadeBy(step="fine_tune", version=VERSION, seconds=clock.seconds),
                "kind": "candidate",
                "strategy": strategy,
                "thresholds": thresholds,
                "requested_strategy": found.requested_strategy,
                "cut": parts.features.cut if strategy == "top" else None,
                "options": found.options,
                "parameters": count_parameters(parts.complete),
                "history": history,
                "validation_accuracy": found.accuracy,
                "validation_loss": found.loss,
                "reasoning": parts.head.reasoning + reasoning,
                "measurements": parts.head.measurements | found.measurements,
                "ood_detector": detector.write(folder) if detector else None,
            }
        )
        written.write(folder)
    return written


def write_candidates(folder: Path, digests: dict[str, str], clock: Clock) -> CandidatesManifest:
    """Write the manifest of the candidates in the subfolders of a folder.

    Args:
        folder: their folder.
        digests: digest of each by the name of its subfolder.
        clock: measures the step.
    """
    manifest = CandidatesManifest(
        digest=digest_of(digests),
        made_by=MadeBy(step="fine_tune", version=VERSION, seconds=clock.seconds),
        candidates=digests,
    )
    manifest.write(folder)
    return manifest


@contextlib.contextmanager
def _destination(out: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield the folder to write to; files of machines other than the first are discarded."""
    if is_chief():
        with staged_folder(out) as folder:
            yield folder
    else:
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch)
