"""The options of the step `verify`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from regraft_core.formats.options.option_types import (
    GpuMemoryMb,
    Options,
)


class VerifyOptions(Options):
    """How the exported model is verified in a server."""

    engine: Literal["auto", "embedded", "tensorflow_model_server", "docker"] = Field(
        default="auto",
        description="Server that verifies the model; auto uses TF Serving if installed.",
    )
    verify_images: int = Field(
        default=0,
        ge=0,
        le=100_000,
        description="Number of test images sent to the server; 0 sends 32, and more to have each "
        "class and file format of the test split.",
    )
    parity_tolerance: float = Field(
        default=1e-4,
        gt=0.0,
        le=1.0,
        description="Maximum difference between served and trained probabilities.",
    )
    gpu_memory_mb: GpuMemoryMb = 0
