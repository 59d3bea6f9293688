"""The options of the step `evaluate`, which are mainly the gate's."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from regraft_core.formats.options.option_types import (
    BatchSize,
    Fraction,
    GpuMemoryMb,
    InnerFraction,
    ObjectiveOption,
    Options,
    RequireGpu,
    Seed,
)

FractionBelowOne = Annotated[float, Field(ge=0.0, lt=1.0)]


class GateOptions(Options):
    """What a model must reach on the test split to be published.

    0 disables a minimum, a size limit or a latency limit; 1 disables the calibration error and the
    margin.
    """

    min_accuracy: Fraction = Field(
        default=0.0, description="Minimum test accuracy (0 to 1); 0 disables the check."
    )
    accuracy_rule: Literal["lower_bound", "point"] = Field(
        default="lower_bound",
        description="What reaches min-accuracy, min-map and min-macro-f1: the lower bound of the "
        "interval, or the estimate.",
    )
    min_map: Fraction = Field(
        default=0.0,
        description="Minimum mean average precision (0 to 1) with several labels an image; 0 "
        "disables the check.",
    )
    min_macro_f1: Fraction = Field(
        default=0.0,
        description="Minimum macro F1 (0 to 1) with several labels an image; 0 disables the check.",
    )
    baseline_rule: Literal["lower_bound", "point", "off"] = Field(
        default="lower_bound",
        description="What must be above the best constant prediction: the lower bound of the "
        "score, or the score; off disables the check. With several labels an image, the mAP must "
        "be above that of 95% (or of the mean) of shuffled predictions.",
    )
    recall_floor: Fraction = Field(
        default=0.2,
        description="Recall that no class may be shown to be below (upper bound of its recall); "
        "0 disables the check.",
    )
    optimize: ObjectiveOption = "accuracy"
    min_class_recall: Fraction = Field(
        default=0.0, description="Minimum recall of every class; 0 disables the check."
    )
    min_recall_by_class: dict[str, Fraction] = Field(
        default_factory=dict,
        description='Minimum recall of single classes, overrides min-class-recall: {"cat": 0.9}.',
    )
    min_accuracy_by_slice: Fraction = Field(
        default=0.0,
        description="Accuracy that no slice may be shown to be below; 0 disables the check.",
    )
    max_calibration_error: Fraction = Field(
        default=1.0,
        description="Maximum calibration error after temperature scaling; 1 disables the check.",
    )
    max_model_mb: float = Field(
        default=0.0, ge=0.0, description="Maximum model size in MB; 0 disables the check."
    )
    max_latency_ms: float = Field(
        default=0.0, ge=0.0, description="Maximum latency per image in ms; 0 disables the check."
    )
    champion_policy: Literal["not-worse", "better"] = Field(
        default="not-worse",
        description="Required result against the champion, at champion-significance.",
    )
    champion_margin: Fraction = Field(
        default=1.0,
        description="Maximum accuracy drop against the champion; 1 disables the check.",
    )
    champion_significance: float = Field(
        default=0.05, gt=0.0, lt=0.5, description="Significance level of the champion test."
    )
    ood_images: str = Field(
        default="", description="Folder of out-of-distribution images to measure detection on."
    )
    in_distribution_fraction: InnerFraction = Field(
        default=0.95, description="Fraction of validation images that must be in-distribution."
    )
    corruption_images: int = Field(
        default=0,
        ge=0,
        le=100_000,
        description="Test images that are also predicted blurred, noisy and otherwise corrupted, "
        "each 15 times; 0 measures none.",
    )
    max_corruption_drop: Fraction = Field(
        default=1.0,
        description="Maximum accuracy drop by a kind of corruption, in the mean of its strengths; "
        "1 disables the check.",
    )
    coverage: FractionBelowOne = Field(
        default=0.0,
        description="Fraction of images whose set of labels shall contain the true one; the model "
        "returns the sets. 0 returns none.",
    )
    abstain_precision: FractionBelowOne = Field(
        default=0.0,
        description="Fraction of predictions that shall be correct where the model does not "
        "abstain; 0 never abstains.",
    )
    batch_size: BatchSize = 32
    seed: Seed = 0
    require_gpu: RequireGpu = False
    gpu_memory_mb: GpuMemoryMb = 0

    @field_validator("max_corruption_drop")
    @classmethod
    def _has_images(cls, value: float, info: ValidationInfo) -> float:
        if value < 1 and not info.data.get("corruption_images"):
            raise ValueError("expected --corruption-images above 0 to measure the drop on")
        return value

    @field_validator("min_recall_by_class", mode="before")
    @classmethod
    def _from_json(cls, value: Any) -> Any:
        """Accept JSON text too, as a command line passes it."""
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except ValueError:
            raise ValueError('expected a JSON object such as {"cat": 0.9}') from None
