"""The base of all options, and the types of the options that several steps share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from regraft_core.formats.option_parsing import parse_duration

HeadKind = Literal["gap", "gmp", "flatten"]
Levels = Literal["auto", "last", "all"]
Objective = Literal["accuracy", "balanced-accuracy", "macro-f1"]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
InnerFraction = Annotated[float, Field(gt=0.0, lt=1.0)]

_SEEDED = "Random seed for splits, weights, shuffling and augmentation."
Seed = Annotated[int, Field(ge=0, le=2**31 - 1, description=_SEEDED)]
BatchSize = Annotated[int, Field(ge=1, le=4096, description="Images per batch.")]
RequireGpu = Annotated[bool, Field(description="Stop at once if TensorFlow finds no GPU.")]
_GPU_MEMORY = "Maximum MB of each GPU that a process takes; 0 takes what it needs."
GpuMemoryMb = Annotated[int, Field(ge=0, le=1 << 30, description=_GPU_MEMORY)]
_DETERMINISTIC = "Operations with the same result on each run of the same GPU; slower."
Deterministic = Annotated[bool, Field(description=_DETERMINISTIC)]
Precision = Annotated[
    Literal["auto", "float32", "mixed", "bfloat16"],
    Field(
        description="Backbone's precision; auto measures the precisions before a long extraction "
        "and in long training on CPUs, and trains in mixed (bfloat16 or float16) on GPUs with "
        "tensor cores. bfloat16 is mixed, but an error on a CPU without it."
    ),
]
_LEVELS = (
    "Feature maps that the head reads with --pooling gap: the last, all, or chosen by "
    "cross-validation (`auto`)."
)
LevelsOption = Annotated[Levels, Field(description=_LEVELS)]
_OPTIMIZE = (
    "The objective: what an offset of the head's logits serves, and what the gate compares with "
    "the best constant prediction."
)
ObjectiveOption = Annotated[Objective, Field(description=_OPTIMIZE)]
_CHECKPOINTS = "Checkpoint folder for resuming an interrupted step; empty disables it."
WorkDir = Annotated[str, Field(description=_CHECKPOINTS)]


def _is_a_time(value: str) -> str:
    if value:
        parse_duration(value)
    return value


_BUDGET = (
    "Time (90s, 10m, 1.5h) from the start of extraction to the end of fine-tuning, in which a "
    "search compares cuts, full training and learning rates; it replaces strategies, and empty "
    "trains these."
)
BudgetOption = Annotated[str, AfterValidator(_is_a_time), Field(description=_BUDGET)]
# They change where and how a step runs, not its result.
MACHINE_OPTIONS = frozenset({"work_dir", "require_gpu", "gpu_memory_mb"})


class Options(BaseModel):
    """Base of the options of a step: frozen, no unknown keys, no NaN."""

    # The help of a command reads the fields only; what checks values is built when it is used.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)
