"""The options of the step `export`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from regraft_core.formats.options.option_types import (
    Fraction,
    GpuMemoryMb,
    Options,
)


class ExportOptions(Options):
    """What an exported model contains in addition to its graph."""

    warmup_batch_size: int = Field(
        default=32,
        ge=1,
        le=1024,
        description="Images in the larger warm-up request of each signature.",
    )
    formats: tuple[Literal["litert", "litert_int8", "onnx", "openvino_int8"], ...] = Field(
        default=(),
        description="Additional export formats, comma-separated: litert, litert_int8, onnx, "
        "openvino_int8.",
    )
    serving_precision: Literal["float32", "bfloat16"] = Field(
        default="float32",
        description="`bfloat16` also verifies the model as servers with --mixed_precision=bfloat16 "
        "compute it, so that it may be served so.",
    )
    serving_engine: Literal["tf", "openvino"] = Field(
        default="tf",
        description="`openvino` also writes the network for OpenVINO and verifies the model as the "
        "embedded server computes it with --serving_engine=openvino, so that it may be served so.",
    )
    int8_margin: Fraction = Field(
        default=0.02,
        description="Loss of accuracy that the paired test must exclude, otherwise a format in "
        "int8 is left out.",
    )
    drift_images: int = Field(
        default=1000,
        ge=0,
        le=10_000,
        description="Validation images whose features the model contains as the reference of "
        "`regraft drift`; 0 leaves it out.",
    )
    gpu_memory_mb: GpuMemoryMb = 0
