"""The options of the step `fine_tune`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from regraft_core.formats.options.option_types import (
    BatchSize,
    BudgetOption,
    Deterministic,
    GpuMemoryMb,
    Options,
    Precision,
    RequireGpu,
    Seed,
    WorkDir,
)

Strategy = Literal["head", "top", "full", "auto"]
SHARED_STRATEGIES = ("top", "full")
"""Those that several machines can train together."""
Mix = Literal["off", "mixup", "cutmix"]


class FineTuneOptions(Options):
    """One fine-tuning strategy and its training."""

    strategy: Strategy = "top"
    fine_tune_epochs: int = Field(
        default=10, ge=1, le=100_000, description="Number of epochs of fine-tuning."
    )
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] | Literal["auto"] = Field(
        default="auto",
        description="Peak learning rate of fine-tuning; auto compares some in a few epochs and "
        "stops early if validation shows no gain over the head.",
    )
    batch_size: BatchSize = 32
    batch_norm: Literal["frozen", "adapt"] = Field(
        default="frozen",
        description="BatchNormalization above the cut: keep or update (`adapt`) its statistics.",
    )
    seed: Seed = 0
    require_gpu: RequireGpu = False
    gpu_memory_mb: GpuMemoryMb = 0
    deterministic: Deterministic = False
    precision: Precision = "auto"
    lowest_lr_ratio: float = Field(
        default=1.0,
        gt=0.0,
        le=1.0,
        description="Earliest trained layer's learning rate relative to the last's; 1 is equal.",
    )
    ema_momentum: Annotated[float, Field(ge=0.0, lt=1.0)] | Literal["auto"] = Field(
        default="auto",
        description="Momentum of the moving average of the weights; auto averages over a tenth of "
        "the steps, 0 disables it.",
    )
    mix: Mix = Field(
        default="off",
        description="Mix pairs of training rows and their classes: weighted means (`mixup`), or a "
        "box of one image in the other (`cutmix`).",
    )
    budget: BudgetOption = ""
    work_dir: WorkDir = ""
