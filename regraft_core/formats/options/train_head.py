"""The options of the step `train_head`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from regraft_core.formats.options.option_types import (
    BudgetOption,
    Deterministic,
    GpuMemoryMb,
    HeadKind,
    LevelsOption,
    ObjectiveOption,
    Options,
    Seed,
    WorkDir,
)

ClassWeights = Literal["off", "balanced"]


class HeadOptions(Options):
    """The head, which is fitted to cached features."""

    pooling: HeadKind = Field(
        default="gap", description="Pooling of the feature map: average, maximum or none (flatten)."
    )
    levels: LevelsOption = "auto"
    optimize: ObjectiveOption = "accuracy"
    l2: float = Field(
        default=0.0,
        ge=0.0,
        le=1e3,
        description="L2 penalty on the head's weights; 0 chooses it by cross-validation.",
    )
    folds: int = Field(
        default=5, ge=2, le=100, description="Number of folds of the cross-validation."
    )
    label_smoothing: float = Field(
        default=0.0, ge=0.0, lt=1.0, description="Label smoothing of the loss; 0 disables it."
    )
    class_weights: ClassWeights = Field(
        default="off", description="`balanced` weights classes inversely to frequency."
    )
    budget: BudgetOption = ""
    seed: Seed = 0
    gpu_memory_mb: GpuMemoryMb = 0
    deterministic: Deterministic = False
    work_dir: WorkDir = ""
