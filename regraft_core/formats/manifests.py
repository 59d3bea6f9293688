"""The manifest of each step: the formats in which the steps exchange folders.

A folder is written next to its final path and renamed, so a reader sees all of it or nothing.
Every manifest has a `digest`, a SHA-256 of the content that it describes (not of times or paths),
so that equal content is recognized however it was made.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from regraft_core.formats.backbone_names import short_name
from regraft_core.formats.manifest_storage import Manifest, Record
from regraft_core.formats.options import Strength

SPLITS = ("train", "validation", "test")
Split = Literal["train", "validation", "test"]
LabelsPerImage = Literal["one", "several"]
_LABELS_PER_IMAGE = "Whether an image has one label, or any number of them."


# No path: a manifest from elsewhere names files of its own folder only.
_FILE_NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.=-]*$"


class Shard(Record):
    """One file of records."""

    file: str = Field(
        pattern=_FILE_NAME, description="Name of the TFRecord file, relative to the folder."
    )
    count: int = Field(description="Number of records.")
    sha256: str = Field(description="SHA-256 (hex) of the file.")


class SplitInfo(Record):
    """One split of a dataset: its shards and its images by class."""

    count: int = Field(description="Number of images.")
    by_class: dict[str, int] = Field(
        description="Number of images by class name; an image with several labels counts for each."
    )
    shards: list[Shard] = Field(description="Files, in reading order.")


class AppliedFixes(Record):
    """The decisions of a review that a dataset was made with; `fixes.csv` has all of them."""

    digest: str = Field(description="SHA-256 (hex) of the file of fixes.")
    relabeled: int = Field(description="Images with another label than in the source.")
    dropped: int = Field(description="Images that were excluded.")
    kept: int = Field(description="Images whose label was confirmed.")
    unsure: int = Field(description="Images that a reviewer could not decide on.")
    outdated: int = Field(
        description="Fixes that were not applied, because the source has another label now."
    )
    unknown: int = Field(description="Fixes of images that are not in the sources.")
    reviewers: dict[str, int] = Field(description="Number of fixes by reviewer.")
    first: str = Field(description="Time of the first decision, UTC.")
    last: str = Field(description="Time of the last decision, UTC.")


class DatasetManifest(Manifest):
    """`dataset.json`: TFRecord shards of encoded images, by split.

    `digest` covers the classes and, per split, the sorted image IDs with their labels, and slices
    if there are any, so it does not depend on order, shard sizes, processes or file names.
    """

    file_name: ClassVar[str] = "dataset.json"

    classes: list[str] = Field(
        description="Class names; the index of a name is the label in the records."
    )
    labels_per_image: LabelsPerImage = Field(default="one", description=_LABELS_PER_IMAGE)
    splits: dict[Split, SplitInfo] = Field(description="Images and shards by split.")
    sources: list[str] = Field(description="Sources of the images, without credentials.")
    conversions: dict[str, int] = Field(
        default_factory=dict,
        description="Images that decoding or storing changes, by kind of change.",
    )
    quarantined: dict[str, int] = Field(
        default_factory=dict, description="Excluded files by reason; `quarantine.csv` lists them."
    )
    ignored: int = Field(
        default=0, description="Files that are not images by their names, such as `.DS_Store`."
    )
    duplicates: dict[str, int] = Field(
        default_factory=dict, description="Exact and near duplicates, found and removed."
    )
    slices: dict[str, dict[str, int]] = Field(
        default_factory=dict,
        description="Number of images by value of each slice; a missing value is empty.",
    )
    warnings: list[str] = Field(
        default_factory=list, description="Warnings that affect how the metrics should be read."
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="Ingest options that the dataset depends on."
    )
    fixes: AppliedFixes | None = Field(
        default=None, description="Decisions of a review; null if there was none."
    )


class FeatureShard(Record):
    """The features of one dataset shard in one view.

    Its arrays are `<stem>.<array>.npy`, in the record order of the dataset shard, and so are
    `<stem>.label.npy` and `<stem>.group.npy`. The label is int32 [n], or with several labels an
    image uint8 [n, classes], 1 for each of its classes.
    """

    stem: str = Field(pattern=_FILE_NAME, description="First part of the file names of its arrays.")
    split: Split = Field(description="Split of the dataset shard.")
    view: int = Field(description="Number of the view; 0 is the original image.")
    count: int = Field(description="Number of rows of each array.")
    sha256: dict[str, str] = Field(
        default_factory=dict, description="SHA-256 (hex) of the file of each array, by its name."
    )


class Level(Record):
    """A feature map of the backbone, pooled to one value per channel."""

    layer: str = Field(description="Layer whose output is pooled.")
    pooling: Literal["average", "maximum"] = Field(description="What is taken of all positions.")
    width: int = Field(description="Number of channels.")


class BackboneTrial(Record):
    """A backbone at one image size, compared with others on the same sample.

    The difference is the accuracy of the most accurate one minus this one's.
    """

    backbone: str = Field(description="Name of the backbone.")
    weights: str = Field(description="Its weights, as the option.")
    image_px: int = Field(description="Height and width of its input, in pixels.")
    accuracy: float = Field(description="Accuracy of a head on held-out images of the sample.")
    accuracy_low: float = Field(description="Lower bound of its 95% interval.")
    accuracy_high: float = Field(description="Upper bound of its 95% interval.")
    difference_low: float = Field(description="Lower bound of the difference's 95% interval.")
    difference_high: float = Field(description="Upper bound of the difference's 95% interval.")
    image_ms: float = Field(description="Milliseconds per image on the machine that measured it.")
    mb: float = Field(description="Size of its weights in float32, in MB.")
    chosen: bool = Field(description="Whether it was chosen.")


class BackboneChoice(Record):
    """How a run chose its backbone and image size; `trials` are empty if there was no choice."""

    images: int = Field(description="Training images in the sample.")
    folds: int = Field(description="Folds of the cross-validation.")
    trials: list[BackboneTrial] = Field(description="What was compared, the most accurate first.")
    sentence: str = Field(description="What was chosen, and why.")

    def without_times(self) -> dict[str, Any]:
        """Return what a digest may cover, because it is the same on each machine of a kind."""
        return self.model_dump(exclude={"trials": {"__all__": {"image_ms"}}})


class FeaturesManifest(Manifest):
    """`features.json`: arrays that the frozen backbone computes once.

    An array is named by a pooling (`gap`, `gmp`, `flatten`) or is `cut` (the activations at the
    layer `cut`) or `levels` (all levels, one after another). `digest` covers what they are computed
    from: the digests of the dataset and of the weights, the worker's shard, the options, the choice
    of the backbone without its times, the engine with its precision and version, the batch size,
    and the kind of machine.
    """

    file_name: ClassVar[str] = "features.json"

    dataset_digest: str = Field(description="Digest of the dataset.")
    classes: list[str] = Field(description="Class names, as in the dataset.")
    labels_per_image: LabelsPerImage = Field(default="one", description=_LABELS_PER_IMAGE)
    backbone: str = Field(description="Name of the backbone.")
    weights: str = Field(description="`imagenet`, `random`, or the path or URI of the weights.")
    weights_digest: str = Field(description="SHA-256 (hex) of the backbone's weights as loaded.")
    image_px: int = Field(description="Height and width to which images were resized, in pixels.")
    backbone_choice: BackboneChoice | None = Field(
        default=None,
        description="How the backbone or the image size was chosen; null if both were given.",
    )
    cut: str | None = Field(description="Layer whose activations are cached; null caches none.")
    views: int = Field(description="Views of each training image; other splits have one.")
    augment: Strength = Field(description="Policy of the augmented views.")
    flips: bool = Field(default=False, description="Whether half of these views are mirrored.")
    flips_allowed: bool = Field(
        default=False, description="Whether views may be mirrored where validation shows a gain."
    )
    seed: int = Field(description="Seed of the augmented views.")
    dtype: Literal["float16", "float32"] = Field(description="Data type of all arrays.")
    batch_size: int = Field(
        default=0,
        description="Images per batch: as requested, or of the fastest engine on a GPU; fewer if "
        "the memory ran out.",
    )
    engine: Literal["tf", "openvino"] = Field(
        default="tf", description="What computed the backbone: TensorFlow or OpenVINO."
    )
    precision: str = Field(
        default="float32", description="Precision of the backbone: float32, float16 or bfloat16."
    )
    xla: bool = Field(default=False, description="Whether XLA compiled the backbone.")
    arrays: dict[str, list[int]] = Field(description="Arrays by name, with the shape of one row.")
    feature_map: list[int] = Field(description="Shape [h, w, c] of the backbone's output.")
    scaling: str = Field(
        default="auto", description="Scaling of the backbone's input; `auto` is its table's."
    )
    reasoning: list[str] = Field(
        default_factory=list,
        description="How the policy of the views and the engine were chosen, in sentences.",
    )
    levels: list[Level] = Field(
        default_factory=list, description="The levels in the array `levels`, in its order."
    )
    image_kb: dict[str, float] = Field(
        default_factory=dict, description="Size of the arrays of one view of an image, in kB."
    )
    shard_index: int = Field(description="Number of the worker that wrote this folder, from 0.")
    shard_count: int = Field(description="Number of workers that share the dataset.")
    shards: list[FeatureShard] = Field(description="Dataset shards assigned to this worker.")


class Preprocessing(Record):
    """How encoded bytes become a backbone's input, in training and in serving."""

    image_px: int = Field(description="Height and width of the model's input, in pixels.")
    scaling: str = Field(description="Name of the backbone's scaling of pixels in 0..255.")
    resize: Literal["bilinear_antialias"] = Field(
        default="bilinear_antialias", description="Resizing method."
    )


class Parameters(Record):
    """Numbers of parameters of a model."""

    total: int = Field(description="All parameters.")
    trainable: int = Field(description="Parameters that training updates.")
    frozen: int = Field(description="Parameters that training keeps.")


class Epoch(Record):
    """One epoch of a learning curve."""

    phase: str = Field(description="What was trained: `head`, `top` or `full`.")
    epoch: int = Field(description="Number within its phase, from 0.")
    loss: float = Field(description="Mean training loss.")
    accuracy: float = Field(description="Accuracy on the training split, in 0..1.")
    validation_loss: float = Field(description="Mean loss on the validation split.")
    validation_accuracy: float = Field(description="Accuracy on the validation split, in 0..1.")
    seconds: float = Field(description="Wall time.")


class ModelManifest(Manifest):
    """`model.json` next to `model.keras`: a head (features to logits) or a complete candidate.

    The models return logits; probabilities are their `activation`, in float32. `digest` is the
    SHA-256 of the file `model.keras`.
    """

    file_name: ClassVar[str] = "model.json"

    kind: Literal["head", "candidate"] = Field(
        description="`head`, or `candidate`: a model from pixels to logits."
    )
    strategy: Literal["head", "top", "full"] = Field(description="What was trained.")
    requested_strategy: str = Field(
        description="Requested strategy; `auto` or `search` chose `strategy`."
    )
    backbone: str = Field(description="Name of the backbone.")
    weights: str = Field(
        description="The backbone's weights before training, as in `features.json`."
    )
    weights_digest: str = Field(description="SHA-256 (hex) of the weights before training.")
    preprocessing: Preprocessing = Field(description="How encoded bytes become the input.")
    classes: list[str] = Field(description="Class names in the order of the logits.")
    activation: Literal["softmax", "sigmoid"] = Field(
        default="softmax",
        description="From logits to probabilities; `sigmoid` with several labels an image.",
    )
    thresholds: list[float] = Field(
        default_factory=list,
        description="With `sigmoid`, by class the lowest probability (float32) at which an image "
        "gets the label; empty with `softmax`.",
    )
    dataset_digest: str = Field(description="Digest of the training dataset.")
    cut: str | None = Field(
        description="Layer above which it was trained; null unless the strategy is `top`."
    )
    head: dict[str, Any] = Field(description="Options that define the head's layers.")
    options: dict[str, Any] = Field(description="All options of the step, as used.")
    parameters: Parameters = Field(description="Numbers of parameters of the model.")
    head_parameters: dict[str, int] = Field(
        description="Parameters that a head would have, by pooling."
    )
    history: list[Epoch] = Field(description="Learning curve, phase after phase.")
    validation_accuracy: float = Field(
        description="Validation accuracy of the best epoch, whose weights are kept."
    )
    validation_loss: float = Field(description="Validation loss of the best epoch.")
    reasoning: list[str] = Field(
        default_factory=list, description="Sentences that explain what was chosen."
    )
    measurements: dict[str, Any] = Field(
        default_factory=dict, description="Measurements behind the reasoning."
    )
    ood_detector: str | None = Field(
        default=None,
        description="SHA-256 (hex) of `ood_detector.npz`; null if the features allow none.",
    )

    @property
    def backbone_label(self) -> str:
        """The backbone's name without the folders of this machine."""
        return short_name(self.backbone)


class CandidatesManifest(Manifest):
    """`candidates.json`: the complete candidates of a run, one folder per requested strategy.

    With a budget they are `head` and, if a training was better, `search`.

    `digest` covers the strategies with the digests of their models.
    """

    file_name: ClassVar[str] = "candidates.json"

    candidates: dict[str, str] = Field(
        description="Digests of the models by requested strategy, which is the folder's name."
    )


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


class DriftReferenceInfo(Record):
    """The drift reference in an exported model, `assets.extra/drift_reference.npz`."""

    images: int = Field(description="Validation images in the sample.")
    width: int = Field(description="Features of each image.")
    bytes: int = Field(description="Size of the file.")


class SavedModelManifest(Manifest):
    """`regraft.json` in the folder of an exported SavedModel: its contents and provenance.

    `digest` covers all other files of the folder (see `fingerprint`).
    """

    file_name: ClassVar[str] = "regraft.json"

    model_digest: str = Field(description="Digest of the exported candidate.")
    evaluation_digest: str = Field(description="Digest of the evaluation that accepted it.")
    dataset_digest: str = Field(description="Digest of the training dataset.")
    strategy: str = Field(description="What was trained.")
    backbone: str = Field(description="Name of the backbone.")
    weights_digest: str = Field(
        description="SHA-256 (hex) of the backbone's weights before training."
    )
    classes: list[str] = Field(description="Class names in the order of the probabilities.")
    preprocessing: Preprocessing = Field(description="How its signatures preprocess images.")
    temperature: float = Field(description="Divisor of the logits, part of the graph.")
    metrics: dict[str, float] = Field(description="Metrics on the test split.")
    checks: list[Check] = Field(description="Checks of the gate.")
    signatures: list[str] = Field(description="Names of the signatures.")
    serving_precisions: list[Literal["float32", "bfloat16"]] = Field(
        default=["float32"],
        description="Precisions in which it is verified and may be served.",
    )
    serving_engines: list[Literal["tf", "openvino"]] = Field(
        default=["tf"],
        description="Engines with which it is verified and may be served.",
    )
    drift_reference: DriftReferenceInfo | None = Field(
        default=None, description="What drift is measured against; null if there is none."
    )
    versions: dict[str, str] = Field(
        description="Versions of Regraft, Python, TensorFlow and Keras that wrote it."
    )
    details: dict[str, Any] = Field(
        default_factory=dict,
        description="Verdict and notes of the evaluation, threshold for out-of-distribution "
        "images, inputs and outputs of the signatures, additional formats.",
    )


class ParityRow(Record):
    """Predictions of the trained model and of the server for one image."""

    image: str = Field(description="Path of the image in its source.")
    true_label: str = Field(description="True class of the image.")
    label: str = Field(description="Label predicted by the trained model.")
    probability: float = Field(description="Probability of that label.")
    served: dict[str, str] = Field(description="Served label by protocol.")
    max_abs_diff: dict[str, float] = Field(
        description="Maximum difference between probabilities, by protocol."
    )


class ParityManifest(Manifest):
    """`parity.json`: comparison of served predictions with the trained model's, by protocol."""

    file_name: ClassVar[str] = "parity.json"

    saved_model_digest: str = Field(description="Digest of the exported folder.")
    engine: str = Field(description="Server that was tested.")
    device: str = Field(default="", description="Device of the trained model: `CPU` or a GPU.")
    machine: str = Field(
        default="", description="Processor, system and version of TensorFlow that served the model."
    )
    precision: Literal["float32", "tf32"] = Field(
        default="float32", description="Precision of float32 products; TF32 is off by default."
    )
    batches: dict[str, list[int]] = Field(
        default_factory=dict, description="Batch sizes of the trained and of the served model."
    )
    verified: bool = Field(
        default=True,
        description="Whether the result holds for all batch sizes; not with TF32.",
    )
    tolerance: float = Field(description="Maximum difference that passes.")
    max_abs_diff: dict[str, float] = Field(
        description="Maximum difference over all images, by protocol."
    )
    bfloat16_tolerance: float | None = Field(
        default=None, description="Maximum difference that passes when it is served in bfloat16."
    )
    bfloat16_max_abs_diff: dict[str, float] = Field(
        default_factory=dict, description="Maximum difference in bfloat16, by protocol."
    )
    decisions: list[str] = Field(
        default_factory=list,
        description="Other outputs that were compared: `label_set`, `abstain`.",
    )
    openvino_tolerance: float | None = Field(
        default=None,
        description="Maximum difference that passes when it is served with OpenVINO in float32.",
    )
    openvino_max_abs_diff: dict[str, float] = Field(
        default_factory=dict, description="Maximum difference with OpenVINO, by protocol."
    )
    openvino_bfloat16_max_abs_diff: dict[str, float] = Field(
        default_factory=dict,
        description="Maximum difference with OpenVINO in bfloat16, by protocol; "
        "`bfloat16_tolerance` passes.",
    )
    images: int = Field(description="Number of images sent.")
    passed: bool = Field(description="Whether all differences are within the tolerance.")
    rows: list[ParityRow] = Field(description="Comparison of each image.")


class PublishedManifest(Manifest):
    """`published.json`: the record of a publish step (kept with the run, not with the version)."""

    file_name: ClassVar[str] = "published.json"

    name: str = Field(description="Name of the model.")
    version: int = Field(description="Number of the version.")
    path: str = Field(description="Folder or URI of the version.")
    saved_model_digest: str = Field(description="Digest of the published folder.")
    parity: dict[str, float] = Field(
        description="Maximum difference by protocol, from `parity.json`."
    )
