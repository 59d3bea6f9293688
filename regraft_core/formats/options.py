"""The options of every step, as typed values with defaults; one truth for CLI, recipes and kfp.

A bad value raises `InputError` through `checked`, before any data is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from regraft_core.runtime.errors import InputError, unknown_name

Strategy = Literal["head", "top", "full", "auto"]
HeadKind = Literal["gap", "gmp", "flatten"]
ClassWeights = Literal["off", "balanced"]


class Options(BaseModel):
    """Base of the options of a step: frozen, no unknown keys, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class IngestOptions(Options):
    """How sources become a dataset."""

    validation_fraction: float = Field(
        default=0.15, gt=0.0, lt=1.0, description="Share of images for validation."
    )
    test_fraction: float = Field(
        default=0.2, gt=0.0, lt=1.0, description="Share of images for the test split."
    )
    min_per_class: int = Field(
        default=1, ge=1, description="Fewest images of a class in each split."
    )
    max_invalid_fraction: float = Field(
        default=0.05, ge=0.0, le=1.0, description="Share of unusable files above which to stop."
    )
    max_pixels: int = Field(
        default=100_000_000,
        ge=1,
        le=100_000_000,
        description="Pixels above which an image is not decoded.",
    )
    near_duplicates: Literal["group", "report", "off"] = Field(
        default="group",
        description="Near duplicates: keep each group in one split, only report, or do not look.",
    )
    leakage: Literal["repair", "report", "fail"] = Field(
        default="repair",
        description="Duplicates across given splits: drop outside test, only report, or stop.",
    )
    seed: int = Field(default=0, ge=0, description="Another seed draws other splits.")
    processes: int = Field(
        default=0, ge=0, le=256, description="Worker processes; 0 is one for each core."
    )
    sha256: str = Field(
        default="",
        pattern="^([0-9a-fA-F]{64})?$",
        description="SHA-256 (hex) that the source's archive must have.",
    )
    mirrors: tuple[str, ...] = Field(
        default=(), description="Other addresses of the same archive, tried in turn."
    )
    download_cache: str = Field(
        default="~/.cache/regraft", description="Folder that keeps downloaded archives."
    )
    download_timeout_s: float = Field(
        default=30.0, gt=0.0, description="Seconds without a byte before a connection is given up."
    )
    download_deadline_s: float = Field(
        default=21_600.0, gt=0.0, description="Seconds that all of a download may take."
    )
    download_attempts: int = Field(default=5, ge=1, le=100, description="Tries for each address.")
    download_backoff_s: float = Field(
        default=1.0, ge=0.0, le=600.0, description="First wait between tries; doubles, jittered."
    )
    max_archive_bytes: int = Field(
        default=1 << 40, ge=1, description="Bytes that an archive may unpack to."
    )
    max_archive_members: int = Field(
        default=1_000_000, ge=1, description="Members that an archive may have."
    )

    @field_validator("test_fraction")
    @classmethod
    def _leaves_images_to_train(cls, value: float, info: ValidationInfo) -> float:
        if value + info.data.get("validation_fraction", 0.0) >= 1.0:
            raise ValueError("expected validation_fraction + test_fraction below 1")
        return value


class FeatureOptions(Options):
    """What is computed once from the frozen backbone."""

    backbone: str = Field(default="vgg16", description="Pretrained backbone to graft on.")
    weights: str = Field(
        default="imagenet",
        description="imagenet, random, or a path or URI of weights for the backbone.",
    )
    image_px: int = Field(
        default=0, ge=0, le=2048, description="Side of the images; 0 is the backbone's own."
    )
    cut: str = Field(
        default="auto",
        description="Where `top` starts: a layer's name, fraction:S of the parameters, or top:N-th "
        "cut point from the output; auto is the backbone's own.",
    )
    keep_cut: bool = True
    poolings: tuple[HeadKind, ...] = ("gap",)
    views: int = Field(
        default=1, ge=1, le=64, description="Cached views of each training image; 1 is plain."
    )
    augment: Literal["off", "light", "strong"] = Field(
        default="off", validate_default=True, description="Strength of the augmented views."
    )
    batch_size: int = Field(default=32, ge=1, le=4096, description="Images in one step.")
    feature_dtype: Literal["float16", "float32"] = Field(
        default="float16", description="Type of cached features."
    )
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Seed of every random draw.")
    require_gpu: bool = Field(default=False, description="Fail at once where no GPU is seen.")
    precision: Literal["auto", "float32", "mixed"] = Field(
        default="auto",
        description="Backbone's arithmetic; auto is mixed (float16) on GPUs that gain from it.",
    )
    cache_gb: float = Field(
        default=20.0,
        gt=0.0,
        description="Gigabytes that cached activations may take; beyond, `top` streams images.",
    )
    work_dir: str = Field(
        default="",
        description="Folder in which a killed step finds what it had done; empty keeps nothing.",
    )

    @field_validator("augment")
    @classmethod
    def _makes_views_differ(cls, value: str, info: ValidationInfo) -> str:
        if value == "off" and info.data.get("views", 1) > 1:
            raise ValueError("expected light or strong, as several views would be equal")
        return value


class HeadOptions(Options):
    """The head and its training on cached features."""

    pooling: HeadKind = Field(default="gap", description="Pooling of the feature map.")
    dense_width: int = Field(
        default=0, ge=0, le=65536, description="Width of a hidden layer in the head; 0 is none."
    )
    dropout: float = Field(
        default=0.2, ge=0.0, lt=1.0, description="Share of the head's inputs dropped in training."
    )
    l2: float = Field(default=1e-5, ge=0.0, le=1.0, description="L2 penalty on the head's weights.")
    label_smoothing: float = Field(
        default=0.0, ge=0.0, lt=1.0, description="Share of each target spread over all classes."
    )
    class_weights: ClassWeights = Field(
        default="off", description="Whether each class weighs the same."
    )
    head_epochs: int = Field(
        default=20, ge=1, le=100_000, description="Passes over the features for the head."
    )
    head_learning_rate: float = Field(
        default=1e-3, gt=0.0, le=10.0, description="Adam's learning rate for the head."
    )
    batch_size: int = Field(default=32, ge=1, le=4096, description="Images in one step.")
    patience: int = Field(
        default=5,
        ge=1,
        description="Epochs without a better validation loss before the head stops.",
    )
    head_search: bool = Field(
        default=False, description="Train a grid of heads together and keep the best on validation."
    )
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Seed of every random draw.")
    work_dir: str = Field(
        default="",
        description="Folder in which a killed step finds what it had done; empty keeps nothing.",
    )


class FineTuneOptions(Options):
    """One fine-tuning strategy and its training."""

    strategy: Strategy = "top"
    fine_tune_epochs: int = Field(
        default=10, ge=1, le=100_000, description="Passes over the images in fine-tuning."
    )
    learning_rate: float = Field(
        default=1e-5, gt=0.0, le=1.0, description="Highest learning rate of fine-tuning."
    )
    batch_size: int = Field(default=32, ge=1, le=4096, description="Images in one step.")
    batch_norm: Literal["frozen", "adapt"] = Field(
        default="frozen",
        description="Whether BatchNormalization above the cut follows the new images.",
    )
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Seed of every random draw.")
    require_gpu: bool = Field(default=False, description="Fail at once where no GPU is seen.")
    precision: Literal["auto", "float32", "mixed"] = Field(
        default="auto",
        description="Backbone's arithmetic; auto is mixed (float16) on GPUs that gain from it.",
    )
    lowest_lr_ratio: float = Field(
        default=1.0,
        gt=0.0,
        le=1.0,
        description="Share of the rate for the lowest trained layer; it rises evenly to the head.",
    )
    ema_momentum: float = Field(
        default=0.0,
        ge=0.0,
        lt=1.0,
        description="Momentum of the weights' moving average that is kept; 0 is off, 0.99 usual.",
    )
    work_dir: str = Field(
        default="",
        description="Folder in which a killed step finds what it had done; empty keeps nothing.",
    )


class GateOptions(Options):
    """What a model must reach on the test split to go out.

    A limit at its end of the range is off: 0 for a minimum, a size or a latency, 1 for the
    calibration error and for the margin.
    """

    min_accuracy: float = Field(
        default=0.0,
        ge=0.0,
        le=1.0,
        description="What the test accuracy must reach by accuracy-rule, 0 to 1.",
    )
    accuracy_rule: Literal["lower_bound", "point"] = Field(
        default="lower_bound",
        description="What is held against min-accuracy: the lower bound of the 95 % Wilson "
        "interval, or the point estimate.",
    )
    min_class_recall: float = Field(
        default=0.0, ge=0.0, le=1.0, description="Floor of every class's recall; 0 is none."
    )
    min_recall_by_class: dict[str, Annotated[float, Field(ge=0.0, le=1.0)]] = Field(
        default_factory=dict,
        description='Floors of single classes in place of min-class-recall: {"cat": 0.9}.',
    )
    max_calibration_error: float = Field(
        default=1.0,
        ge=0.0,
        le=1.0,
        description="The most that confidence may be off after scaling; 1 is no limit.",
    )
    max_model_mb: float = Field(
        default=0.0, ge=0.0, description="Largest model file in megabytes; 0 is no limit."
    )
    max_latency_ms: float = Field(
        default=0.0, ge=0.0, description="Longest time for one image here; 0 is no limit."
    )
    champion_policy: Literal["not-worse", "better"] = Field(
        default="not-worse",
        description="Against the model in service: not worse beyond noise, or better beyond it.",
    )
    champion_margin: float = Field(
        default=1.0,
        ge=0.0,
        le=1.0,
        description="Largest drop of accuracy against it, even within noise; 1 is no limit.",
    )
    champion_significance: float = Field(
        default=0.05,
        gt=0.0,
        lt=0.5,
        description="The chance at most to reject a model that is as good as the one in service.",
    )
    ood_images: str = Field(
        default="", description="Folder of images of no class, to measure familiarity by."
    )
    in_distribution_fraction: float = Field(
        default=0.95,
        gt=0.0,
        lt=1.0,
        description="Share of the validation images that must count as familiar.",
    )
    batch_size: int = Field(default=32, ge=1, le=4096, description="Images in one step.")
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Seed of every random draw.")
    require_gpu: bool = Field(default=False, description="Fail at once where no GPU is seen.")

    @field_validator("min_recall_by_class", mode="before")
    @classmethod
    def _from_json(cls, value: Any) -> Any:
        """Take the floors as JSON text too, as a command line gives them."""
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except ValueError:
            raise ValueError('a JSON object such as {"cat": 0.9}') from None


class ExportOptions(Options):
    """What an exported model carries besides its graph."""

    warmup_batch_size: int = Field(
        default=32,
        ge=1,
        le=1024,
        description="Images in the larger warm-up request of each signature.",
    )
    formats: tuple[Literal["litert", "onnx"], ...] = Field(
        default=(), description="Formats to write besides the SavedModel: litert, onnx."
    )


class VerifyOptions(Options):
    """How the exported model is proven in a server."""

    engine: Literal["auto", "embedded", "tensorflow_model_server", "docker"] = Field(
        default="auto", description="The server that proves the exported model."
    )
    verify_images: int = Field(
        default=32, ge=1, le=100_000, description="Test images sent to the server."
    )
    parity_tolerance: float = Field(
        default=1e-4,
        gt=0.0,
        le=1.0,
        description="Largest difference of a probability between served and trained.",
    )


class PublishOptions(Options):
    """What happens to versions at the destination."""

    version_label: Literal["", "stable", "canary"] = Field(
        default="", description="Label that the new version gets at once."
    )
    keep_last: int = Field(default=0, ge=0, description="How many versions stay; 0 keeps all.")
    model_registry: str = Field(
        default="",
        pattern="^(https?://.+)?$",
        description="Address of a Kubeflow Model Registry to enter the version in; empty is none.",
    )


T = TypeVar("T", bound=BaseModel)


def checked(kind: type[T], **values: Any) -> T:
    """Build `kind` from `values`.

    Raises:
        InputError: a value is out of range, or of another type, or a name is not known.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        raise as_input_error(kind, error) from error


def as_input_error(kind: type[BaseModel], error: ValidationError) -> InputError:
    """Return the first of a model's complaints as one line: what was expected and received."""
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else kind.__name__
    if first["type"] == "extra_forbidden":
        return unknown_name("option", name, kind.model_fields)
    if first["type"] == "missing":
        return InputError(f"{name}: expected a value, got none")
    if first["type"] == "literal_error":
        expected = first.get("ctx", {}).get("expected", "")
        return InputError(f"{name}: expected {expected}, got {first['input']!r}")
    if first["type"] == "value_error":
        return InputError(f"{name}: {first['ctx']['error']}, got {first['input']!r}")
    message = first["msg"].removeprefix("Input should be ").replace("a valid array", "a list")
    return InputError(f"{name}: expected {message}, got {first['input']!r}")


def chosen(kind: type[T], values: Mapping[str, Any]) -> T:
    """Build `kind` from those of `values` that it has fields for, as a face does of its arguments.

    Raises:
        InputError: as `checked`.
    """
    return checked(kind, **{name: values[name] for name in kind.model_fields if name in values})
