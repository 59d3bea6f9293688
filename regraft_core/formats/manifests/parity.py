"""The manifest of a comparison with a server, which `verify` writes."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from regraft_core.formats.manifest_storage import Manifest, Record


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
