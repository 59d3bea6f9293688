"""The manifest of an evaluation, which `evaluate` writes."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from regraft_core.formats.manifest_storage import Manifest, Record


class Check(Record):
    """One check of the gate: what was expected, what was received, and whether it passed."""

    name: str = Field(description="What was checked.")
    expected: str = Field(description="Values that pass.")
    received: str = Field(description="Measured value.")
    passed: bool = Field(description="Whether the check passed.")


class ClassMetrics(Record):
    """Metrics of one class on the test split."""

    name: str = Field(description="Name of the class.")
    support: int = Field(description="Number of its test images.")
    precision: float = Field(
        description="Fraction of the images predicted as this class that belong to it."
    )
    recall: float = Field(description="Fraction of its images that are predicted as this class.")
    f1: float = Field(description="Harmonic mean of precision and recall.")
    recall_low: float = Field(description="Lower bound of the 95% interval of the recall.")
    recall_high: float = Field(description="Upper bound of the 95% interval of the recall.")


class CandidateResult(Record):
    """One candidate, compared on the validation split only."""

    strategy: str = Field(description="What was trained.")
    digest: str = Field(description="Digest of the candidate.")
    validation_accuracy: float = Field(description="Accuracy on the validation split.")
    validation_loss: float = Field(description="Loss on the validation split.")
    seconds: float = Field(
        description="Wall time of all epochs, and of the search for the learning rate."
    )
    epochs: int | None = Field(
        default=None,
        description="Epochs of `top` or `full`, with those of the search for the learning rate.",
    )
    chosen: bool = Field(description="Whether this candidate was chosen.")


class EvaluationManifest(Manifest):
    """`evaluation.json`: the chosen candidate, its metrics on the test split, and the verdict.

    `digest` covers the verdict, its checks, the chosen model's digest and the dataset's.
    Next to it are the test predictions in `predictions.npz` (ids, true_labels, probabilities) and
    the report in `report.html`.
    """

    file_name: ClassVar[str] = "evaluation.json"

    verdict: Literal["accepted", "rejected"] = Field(description="Decision of the gate.")
    checks: list[Check] = Field(description="Checks of the gate.")
    strategy: str = Field(description="Strategy of the chosen candidate.")
    model_digest: str = Field(description="Digest of the chosen candidate.")
    dataset_digest: str = Field(description="Digest of the dataset.")
    classes: list[str] = Field(description="Class names in the order of the columns.")
    candidates: list[CandidateResult] = Field(
        description="All candidates, as compared on the validation split."
    )
    metrics: dict[str, float] = Field(
        description="Metrics on the test split by name; unavailable ones are absent."
    )
    per_class: list[ClassMetrics] = Field(description="Metrics by class.")
    confusion: list[list[int]] = Field(
        description="Confusion matrix of the test images: true classes by row, predicted by "
        "column; empty with several labels an image."
    )
    temperature: float = Field(
        default=1.0, description="Divisor of the logits that calibrates the probabilities."
    )
    notes: list[str] = Field(
        default_factory=list, description="Notes that affect how the metrics should be read."
    )
    details: dict[str, Any] = Field(
        default_factory=dict,
        description="`ood`: threshold for out-of-distribution images; "
        "`champion`: comparison with the champion; either may be null. `labels`: thresholds and "
        "average precisions by class, only with several labels an image. `prediction_sets`, "
        "`abstention`, `slices` and `corruptions` are absent unless they were chosen.",
    )
