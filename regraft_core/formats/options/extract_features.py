"""The options of the step `extract_features`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from regraft_core.formats.options.option_types import (
    BatchSize,
    Deterministic,
    GpuMemoryMb,
    HeadKind,
    LevelsOption,
    Options,
    Precision,
    RequireGpu,
    Seed,
    WorkDir,
)

Strength = Literal["off", "flip", "light", "strong", "random"]
Augment = Literal["auto", "off", "flip", "light", "strong", "random"]


class FeatureOptions(Options):
    """What the frozen backbone computes once."""

    backbone: str = Field(
        default="vgg16",
        description="Pretrained backbone: a name; hub: and the name or folder of a KerasHub "
        "preset; a .keras or .h5 file, or a SavedModel; auto compares those whose weights are on "
        "the machine.",
    )
    weights: str = Field(
        default="imagenet",
        description="Backbone weights: `imagenet`, `random`, or the path or URI of a file (with "
        "--backbone auto, of a folder). With a preset or file as backbone, `imagenet` is its own.",
    )
    scaling: str = Field(
        default="auto",
        description="Scaling of the backbone's input: none (0..255), unit (-1..1), fraction "
        "(0..1), torch, caffe or lite; auto takes that of the backbone or preset.",
    )
    image_px: Annotated[int, Field(ge=0, le=2048)] | Literal["auto"] = Field(
        default=0,
        description="Input image size in pixels; 0 uses the backbone's default, auto compares it "
        "with one near the images' own.",
    )
    candidates: dict[str, str] = Field(
        default_factory=dict,
        description="With backbone `auto`, the backbones to compare, each with its weights.",
    )
    cut: str = Field(
        default="auto",
        description="Cut point for `top`: a layer, top:N (from the output) or fraction:S (of the "
        "parameters above it); auto uses the backbone's default.",
    )
    keep_cut: bool = True
    poolings: tuple[HeadKind, ...] = ("gap",)
    levels: LevelsOption = "auto"
    views: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Cached views of each training image; 1 caches only the original image.",
    )
    augment: Augment = Field(
        default="off",
        validate_default=True,
        description="Augmentation of views: mirrored only (`flip`), all operations in `light` or "
        "`strong` ranges, or two `random` ones, like RandAugment; auto chooses by validation.",
    )
    flips: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="Mirror half of the augmented views; not for classes that mirroring changes, "
        "such as letters. Auto does so only where validation shows a gain.",
    )
    batch_size: BatchSize = 32
    feature_dtype: Literal["float16", "float32"] = Field(
        default="float16", description="Data type of the cached features."
    )
    seed: Seed = 0
    require_gpu: RequireGpu = False
    gpu_memory_mb: GpuMemoryMb = 0
    deterministic: Deterministic = False
    precision: Precision = "auto"
    feature_engine: Literal["auto", "tf", "openvino"] = Field(
        default="auto",
        description="What computes the features on a CPU: TensorFlow or OpenVINO; auto measures "
        "which is faster before a long extraction.",
    )
    cache_gb: float = Field(
        default=20.0,
        gt=0.0,
        description="Maximum GB of cached activations; above it, `top` trains from images.",
    )
    work_dir: WorkDir = ""

    @field_validator("augment")
    @classmethod
    def _makes_views_differ(cls, value: str, info: ValidationInfo) -> str:
        views = info.data.get("views", 1)
        if value == "off" and views > 1:
            raise ValueError(
                "expected auto, flip, light, strong or random, because several views would be equal"
            )
        if value == "auto" and views == 1:
            raise ValueError("expected --views 2 or more to choose an augmentation for")
        return value
