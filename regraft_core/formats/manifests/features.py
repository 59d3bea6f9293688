"""The manifest of features, which `extract_features` writes."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from regraft_core.formats.manifest_storage import Manifest, Record
from regraft_core.formats.manifests.dataset import (
    FILE_NAME,
    LABELS_PER_IMAGE,
    LabelsPerImage,
    Split,
)
from regraft_core.formats.options.extract_features import Strength


class FeatureShard(Record):
    """The features of one dataset shard in one view.

    Its arrays are `<stem>.<array>.npy`, in the record order of the dataset shard, and so are
    `<stem>.label.npy` and `<stem>.group.npy`. The label is int32 [n], or with several labels an
    image uint8 [n, classes], 1 for each of its classes.
    """

    stem: str = Field(pattern=FILE_NAME, description="First part of the file names of its arrays.")
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
    labels_per_image: LabelsPerImage = Field(default="one", description=LABELS_PER_IMAGE)
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
