"""Calibration and thresholds of a trained candidate for several labels, from validation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from components.fine_tune.forward import compute_rows, trace_forward
from components.fine_tune.strategies import Parts, model_and_data
from regraft_core.runtime.step_reports import ProgressReporter
from regraft_core.training.linear_head.linear_classifier import Weights
from regraft_core.training.multilabel_head.label_thresholds import (
    choose_thresholds,
    f1_scores,
    served_probabilities,
)
from regraft_core.training.multilabel_head.platt_scaling import PlattScaling


@dataclass(frozen=True)
class LabelCalibration:
    """The thresholds of a candidate by label, and its F1 on validation."""

    thresholds: list[float]
    macro_f1: float
    micro_f1: float

    def sentence(self) -> str:
        """Return what was chosen and why."""
        return (
            "The thresholds of the labels have the highest F1 on validation: macro F1 "
            f"{self.macro_f1:.4f}, micro F1 {self.micro_f1:.4f}."
        )


def calibrate_labels(parts: Parts, strategy: str, batch_size: int, seed: int) -> LabelCalibration:
    """Calibrate the logits of a candidate in place, by Platt scaling; return the thresholds.

    Args:
        parts: the input of fine-tuning, with the candidate's weights.
        strategy: what was trained.
        batch_size: images per batch.
        seed: of the data.
    """
    model, _, validation = model_and_data(parts, strategy, seed)
    forward = trace_forward(model, validation, lambda outputs: outputs[0])
    progress = ProgressReporter("fine_tune: validation images of the thresholds", validation.count)
    rows = np.arange(validation.count)
    computed, labels = compute_rows(forward, validation, rows, batch_size, progress)
    logits = computed.astype(np.float64)
    scaling = PlattScaling.fit(logits, labels)
    layer = parts.head_layers[-1]
    calibrated = scaling.weights(Weights(*layer.get_weights()))
    layer.set_weights([calibrated.kernel, calibrated.bias])
    probabilities = served_probabilities(scaling.logits(logits))
    thresholds = choose_thresholds(probabilities, labels)
    scores = f1_scores(probabilities >= np.array(thresholds, np.float32), labels)
    return LabelCalibration(thresholds, *scores)
