"""The manifest of an exported model, which `export` writes."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from regraft_core.formats.manifest_storage import Manifest, Record
from regraft_core.formats.manifests.evaluation import Check
from regraft_core.formats.manifests.model import Preprocessing


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
