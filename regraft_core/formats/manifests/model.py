"""The manifests of a model and of a run's candidates: `train_head`, `fine_tune` and `evaluate`."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from regraft_core.formats.backbone_names import short_name
from regraft_core.formats.manifest_storage import Manifest, Record


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
