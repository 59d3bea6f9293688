"""The options of every step as typed values with defaults, for the CLI, recipes and KFP alike.

`option_parsing` builds them and reports an invalid value before any data is read.
"""

from __future__ import annotations

import codecs
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from regraft_core.formats.option_parsing import parse_duration

Strategy = Literal["head", "top", "full", "auto"]
HeadKind = Literal["gap", "gmp", "flatten"]
FolderUse = Literal["auto", "classes", "splits"]
ClassWeights = Literal["off", "balanced"]
Levels = Literal["auto", "last", "all"]
Strength = Literal["off", "flip", "light", "strong", "random"]
Augment = Literal["auto", "off", "flip", "light", "strong", "random"]
Mix = Literal["off", "mixup", "cutmix"]
Objective = Literal["accuracy", "balanced-accuracy", "macro-f1"]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
InnerFraction = Annotated[float, Field(gt=0.0, lt=1.0)]
FractionBelowOne = Annotated[float, Field(ge=0.0, lt=1.0)]

# Options that several steps share.
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
        description="Backbone's precision; auto uses mixed (bfloat16 or float16) on GPUs with "
        "tensor cores, and in long steps on CPUs if their measured speed in bfloat16 is higher. "
        "bfloat16 is mixed, but an error on a CPU without it."
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
# They change where and how a step runs, not its result.
MACHINE_OPTIONS = frozenset({"work_dir", "require_gpu", "gpu_memory_mb"})


class Options(BaseModel):
    """Base of the options of a step: frozen, no unknown keys, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class IngestOptions(Options):
    """How sources become a dataset."""

    validation_fraction: InnerFraction = Field(
        default=0.15, description="Fraction of the images used for validation."
    )
    test_fraction: InnerFraction = Field(
        default=0.2, description="Fraction of the images used for the test split."
    )
    min_per_class: int = Field(
        default=1, ge=1, description="Minimum number of images per class in each split."
    )
    max_invalid_fraction: Fraction = Field(
        default=0.05, description="Maximum fraction of invalid files; ingest stops above it."
    )
    max_pixels: int = Field(
        default=100_000_000,
        ge=1,
        le=100_000_000,
        description="Maximum number of pixels per image; larger images are invalid.",
    )
    near_duplicates: Literal["group", "report", "off"] = Field(
        default="group",
        description="Near duplicates: keep each group in one split, report them, or skip them.",
    )
    leakage: Literal["repair", "report", "fail"] = Field(
        default="repair",
        description="Duplicates across given splits: keep the test copy, report them, or stop.",
    )
    folders: FolderUse = Field(
        default="auto",
        description="What the folders of the source are; `auto` decides by their names.",
    )
    slices: tuple[str, ...] = Field(
        default=(),
        description="Columns of a table, such as camera,site, by whose values accuracy is measured "
        "too; `folder` is the first folder below the class folder.",
    )
    label_columns: tuple[str, ...] = Field(
        default=(),
        description="Columns of a table with 0 or 1, such as cat,dog, that are the classes; an "
        "image may have several.",
    )
    label_separator: str = Field(
        default="",
        max_length=8,
        description="Text between the labels of an image in the label column, such as `;`; empty "
        "expects one label, or a JSON list.",
    )
    archive_encoding: str = Field(
        default="",
        description="Code page of names in an archive that are not UTF-8, such as cp1252 or cp932; "
        "empty uses that of the zip format, cp437.",
    )
    seed: Seed = 0
    processes: int = Field(
        default=0, ge=0, le=256, description="Number of worker processes; 0 uses one per CPU core."
    )
    sha256: str = Field(
        default="",
        pattern="^([0-9a-fA-F]{64})?$",
        description="Expected SHA-256 (hex) of the archive; empty skips the check.",
    )
    mirrors: tuple[str, ...] = Field(
        default=(), description="Alternative URLs of the same archive, tried in order."
    )
    download_cache: str = Field(
        default="~/.cache/regraft", description="Folder for downloaded archives."
    )
    download_timeout_s: float = Field(
        default=30.0, gt=0.0, description="Seconds without data after which a connection times out."
    )
    download_deadline_s: float = Field(
        default=21_600.0, gt=0.0, description="Maximum total seconds for a download."
    )
    download_attempts: int = Field(
        default=5, ge=1, le=100, description="Number of download attempts per URL."
    )
    download_backoff_s: float = Field(
        default=1.0,
        ge=0.0,
        le=600.0,
        description="Seconds before the first download retry; doubles each time, with jitter.",
    )
    max_download_bytes: int = Field(
        default=1 << 40, ge=1, description="Maximum size of a download, in bytes."
    )
    table_paths: Literal["below", "anywhere"] = Field(
        default="below",
        description="Files that a local table may name: those below its folder, or all.",
    )
    max_archive_bytes: int = Field(
        default=1 << 40, ge=1, description="Maximum unpacked size of an archive, in bytes."
    )
    max_archive_members: int = Field(
        default=1_000_000, ge=1, description="Maximum number of files in an archive."
    )
    fixes: str = Field(
        default="",
        description="CSV file of `regraft review`, whose images are relabeled or excluded; empty "
        "changes none.",
    )

    @field_validator("slices")
    @classmethod
    def _are_different_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(name.strip().lower() for name in value)
        if len(set(names)) < len(names) or not all(names):
            raise ValueError("expected names of different columns")
        return names

    @field_validator("label_columns")
    @classmethod
    def _are_different_classes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(name.strip() for name in value)
        if len({name.lower() for name in names}) < len(names) or not all(names):
            raise ValueError("expected names of different columns")
        return names

    @field_validator("label_separator")
    @classmethod
    def _is_alone(cls, value: str, info: ValidationInfo) -> str:
        if value and info.data.get("label_columns"):
            raise ValueError("expected label_separator or label_columns, got both")
        return value

    @field_validator("archive_encoding")
    @classmethod
    def _is_known_encoding(cls, value: str) -> str:
        try:
            codecs.lookup(value or "cp437")
        except LookupError as error:
            raise ValueError("expected a code page, such as cp1252 or cp932") from error
        return value

    @field_validator("test_fraction")
    @classmethod
    def _leaves_images_to_train(cls, value: float, info: ValidationInfo) -> float:
        if value + info.data.get("validation_fraction", 0.0) >= 1.0:
            raise ValueError("expected validation_fraction + test_fraction below 1")
        return value


class FeatureOptions(Options):
    """What the frozen backbone computes once."""

    backbone: str = Field(
        default="vgg16",
        description="Name of the pretrained backbone; auto compares those whose weights are on "
        "the machine.",
    )
    weights: str = Field(
        default="imagenet",
        description="Backbone weights: `imagenet`, `random`, or the path or URI of a file (with "
        "--backbone auto, of a folder).",
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
    seed: Seed = 0
    gpu_memory_mb: GpuMemoryMb = 0
    deterministic: Deterministic = False
    work_dir: WorkDir = ""


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
        description="Earliest trained layer's learning rate relative to the head's; 1 is equal.",
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
    budget: str = Field(
        default="",
        description="Time (90s, 10m, 1.5h) from the start of extraction to the end of fine-tuning, "
        "in which a search compares cuts, full training and learning rates; it replaces "
        "strategies, and empty trains these.",
    )
    work_dir: WorkDir = ""

    @field_validator("budget")
    @classmethod
    def _is_a_time(cls, value: str) -> str:
        if value:
            parse_duration(value)
        return value


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


class ExportOptions(Options):
    """What an exported model contains in addition to its graph."""

    warmup_batch_size: int = Field(
        default=32,
        ge=1,
        le=1024,
        description="Images in the larger warm-up request of each signature.",
    )
    formats: tuple[Literal["litert", "litert_int8", "onnx"], ...] = Field(
        default=(),
        description="Additional export formats, comma-separated: litert, litert_int8, onnx.",
    )
    serving_precision: Literal["float32", "bfloat16"] = Field(
        default="float32",
        description="`bfloat16` also verifies the model as servers with --mixed_precision=bfloat16 "
        "compute it, so that it may be served so.",
    )
    int8_margin: Fraction = Field(
        default=0.02,
        description="Loss of accuracy that the paired test must exclude, otherwise litert_int8 is "
        "left out.",
    )
    drift_images: int = Field(
        default=1000,
        ge=0,
        le=10_000,
        description="Validation images whose features the model contains as the reference of "
        "`regraft drift`; 0 leaves it out.",
    )
    gpu_memory_mb: GpuMemoryMb = 0


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


class PublishOptions(Options):
    """What happens to versions at the destination."""

    version_label: Literal["", "stable", "canary"] = Field(
        default="", description="Label of the new version; empty sets none."
    )
    keep_last: int = Field(
        default=0, ge=0, description="Number of versions to keep; 0 keeps all of them."
    )
    model_registry: str = Field(
        default="",
        pattern="^(https?://.+)?$",
        description="URL of a Kubeflow Model Registry to register the version in; empty skips it.",
    )
    mlflow: str = Field(
        default="",
        pattern="^(https?://.+)?$",
        description="URL of an MLflow tracking server to log the run to; empty skips it.",
    )
