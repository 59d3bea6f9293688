"""The formats in which the steps meet: folders with one JSON manifest each.

A folder is written beside its final place and renamed, so a reader sees all of it or nothing.
Every manifest carries `digest`, a SHA-256 over the content that it describes (not over times or
places), so that equal content is recognized whatever made it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from regraft_core.runtime.errors import InputError

SCHEMA_VERSION = 2
SPLITS = ("train", "validation", "test")
Split = Literal["train", "validation", "test"]


class Record(BaseModel):
    """A frozen, strictly typed part of a manifest; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class MadeBy(Record):
    """Where a folder came from; never part of its digest."""

    step: str = Field(description="Name of the step.")
    version: str = Field(description="Version of Regraft.")
    seconds: float = Field(description="Wall time that the step took.")


class Manifest(Record):
    """Common to all manifests: a named JSON file at the top of the folder that it describes."""

    file_name: ClassVar[str]

    schema_version: int = Field(
        default=SCHEMA_VERSION, description="Version of these formats; another one is refused."
    )
    digest: str = Field(description="SHA-256 (hex) of the content; each format says of what.")
    made_by: MadeBy = Field(description="Step, version and time; not part of the digest.")

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Self:
        """Read the manifest of `folder`.

        Raises:
            InputError: it is missing, not JSON, of another schema version, or misses a field.
        """
        path = Path(folder) / cls.file_name
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"expected {cls.file_name} in {folder}, found none") from None
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read {path}: {error}") from error
        version = values.get("schema_version") if isinstance(values, dict) else None
        if version != SCHEMA_VERSION:
            raise InputError(f"{path}: expected schema_version {SCHEMA_VERSION}, got {version!r}")
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise InputError(f"{path}: {where}: {first['msg']}") from error

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write the manifest into `folder`, synced to the disk."""
        write_text(Path(folder) / self.file_name, self.model_dump_json(indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically: a reader sees the old content or all of the new."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


@contextlib.contextmanager
def staged_folder(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary sibling of `target` that takes its place when the block ends well.

    An empty `target` folder (as kfp makes) is replaced; one with content is an error. When the
    block raises, the sibling is removed; after a kill it stays, hidden, and nobody reads it.

    Raises:
        InputError: `target` exists and is not an empty folder.
    """
    target = Path(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"expected no file or an empty folder at {target}, found content")
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        staging.chmod(0o755)
        yield staging
        if target.exists():
            target.rmdir()
        staging.rename(target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def digest_of(value: Any) -> str:
    """Return the SHA-256 (hex) of a JSON-serializable value, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def digest_file(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 (hex) of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Shard(Record):
    """One file of records: `file` relative to the folder, number of records, SHA-256."""

    file: str = Field(description="Name of the TFRecord file, relative to the folder.")
    count: int = Field(description="Records in it.")
    sha256: str = Field(description="SHA-256 (hex) of the file.")


class SplitInfo(Record):
    """One split of a dataset: its shards and its images by class name."""

    count: int = Field(description="Images of the split.")
    by_class: dict[str, int] = Field(description="Images by class name.")
    shards: list[Shard] = Field(description="Its files, in the order in which they are read.")


class DatasetManifest(Manifest):
    """`dataset.json`: TFRecord shards of encoded images, by split.

    `digest` covers the classes and, per split, the sorted image ids with their labels, so it
    does not depend on order, shard sizes, processes or file names.
    """

    file_name: ClassVar[str] = "dataset.json"

    classes: list[str] = Field(
        description="Class names; the place of a name is the label in the records."
    )
    splits: dict[Split, SplitInfo] = Field(description="Images and shards by split.")
    sources: list[str] = Field(description="Where the images came from, without credentials.")
    conversions: dict[str, int] = Field(
        default_factory=dict,
        description="Images that decoding or storing changes, by kind of change.",
    )
    quarantined: dict[str, int] = Field(
        default_factory=dict, description="Files left out, by reason; `quarantine.csv` names each."
    )
    ignored: int = Field(
        default=0, description="Files that are no images by their names, as `.DS_Store`."
    )
    duplicates: dict[str, int] = Field(
        default_factory=dict,
        description="What was found of exact and near duplicates, and done with it.",
    )
    warnings: list[str] = Field(
        default_factory=list,
        description="Sentences about what a reader of the figures should know.",
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="Options of the ingest that the dataset depends on."
    )


class FeatureShard(Record):
    """The features of one dataset shard in one view.

    `stem` names the arrays: `<stem>.<array>.npy`, in the record order of the dataset shard, and
    `<stem>.label.npy`.
    """

    stem: str = Field(description="First part of the names of its arrays.")
    split: Split = Field(description="Split of the dataset shard.")
    view: int = Field(description="Number of the view; 0 is the image as it is.")
    count: int = Field(description="Rows of each array.")


class FeaturesManifest(Manifest):
    """`features.json`: arrays computed once from the frozen backbone.

    `arrays` maps an array's name to the shape of one row: a pooling (`gap`, `gmp`, `flatten`) or
    `cut` (the activations at `cut`). All share `dtype`. `digest` covers what they are computed
    from: the dataset's digest, the weights', the worker's share and the options.
    """

    file_name: ClassVar[str] = "features.json"

    dataset_digest: str = Field(description="Digest of the dataset.")
    classes: list[str] = Field(description="Class names, as in the dataset.")
    backbone: str = Field(description="Name of the backbone.")
    weights: str = Field(description="`imagenet`, `random`, or the file or address of the weights.")
    weights_digest: str = Field(
        description="SHA-256 (hex) of the backbone's weights as they were loaded."
    )
    image_px: int = Field(description="Height and width to which images were resized, in pixels.")
    cut: str | None = Field(description="Layer whose activations are kept; null keeps none.")
    views: int = Field(description="Views of each training image; other splits have one.")
    augment: Literal["off", "light", "strong"] = Field(
        description="Strength of the augmented views."
    )
    seed: int = Field(description="Seed of the augmented views.")
    dtype: Literal["float16", "float32"] = Field(description="Type of the numbers in all arrays.")
    arrays: dict[str, list[int]] = Field(description="Arrays by name, with the shape of one row.")
    feature_map: list[int] = Field(description="Shape [h, w, c] of the backbone's output.")
    shard_index: int = Field(description="Number of the worker that wrote this folder, from 0.")
    shard_count: int = Field(description="Workers that share the dataset.")
    shards: list[FeatureShard] = Field(
        description="Features of the dataset shards that fell to this worker."
    )


class Preprocessing(Record):
    """All that turns encoded bytes into a backbone's input; the same everywhere."""

    image_px: int = Field(description="Height and width of the model's input, in pixels.")
    scaling: str = Field(description="Name of the backbone's own scaling of pixels in 0..255.")
    resize: Literal["bilinear_antialias"] = Field(
        default="bilinear_antialias", description="Method of resizing."
    )


class Parameters(Record):
    """Numbers of weights in a model."""

    total: int = Field(description="All.")
    trainable: int = Field(description="Those that training may change.")
    frozen: int = Field(description="Those that it may not.")


class Epoch(Record):
    """One line of a learning curve. `phase` is `head`, `top` or `full`; seconds of wall time."""

    phase: str = Field(description="What was trained: `head`, `top` or `full`.")
    epoch: int = Field(description="Number in its phase, from 0.")
    loss: float = Field(description="Mean training loss.")
    accuracy: float = Field(description="Accuracy on the training split, in 0..1.")
    validation_loss: float = Field(description="Mean loss on the validation split.")
    validation_accuracy: float = Field(description="Accuracy on the validation split, in 0..1.")
    seconds: float = Field(description="Wall time.")


class ModelManifest(Manifest):
    """`model.json` beside `model.keras`: a head (features to logits) or a complete candidate.

    The models give logits; probabilities are their softmax. `digest` is that of the file
    `model.keras`.
    """

    file_name: ClassVar[str] = "model.json"

    kind: Literal["head", "candidate"] = Field(
        description="A head alone, or a model from pixels to logits."
    )
    strategy: Literal["head", "top", "full"] = Field(description="What was trained.")
    requested_strategy: str = Field(description="What was asked for; `auto` chose `strategy`.")
    backbone: str = Field(description="Name of the backbone.")
    weights: str = Field(
        description="The backbone's weights before training, as in `features.json`."
    )
    weights_digest: str = Field(description="SHA-256 (hex) of those weights.")
    preprocessing: Preprocessing = Field(description="How encoded bytes become its input.")
    classes: list[str] = Field(description="Class names in the order of the logits.")
    dataset_digest: str = Field(description="Digest of the dataset that it learned from.")
    cut: str | None = Field(
        description="Layer above which it was trained; null unless the strategy is `top`."
    )
    head: dict[str, Any] = Field(description="Options that give the head its shape.")
    options: dict[str, Any] = Field(description="All options of the step, as they were in effect.")
    parameters: Parameters = Field(description="The model's numbers of weights.")
    head_parameters: dict[str, int] = Field(
        description="Weights that a head would have, by pooling."
    )
    history: list[Epoch] = Field(description="Learning curve, phase after phase.")
    validation_accuracy: float = Field(
        description="Accuracy of the best epoch, which is the one kept."
    )
    validation_loss: float = Field(description="Loss of that epoch.")
    reasoning: list[str] = Field(
        default_factory=list, description="Sentences that say what was chosen, and why."
    )
    measurements: dict[str, Any] = Field(
        default_factory=dict, description="Figures behind the reasoning."
    )


class Check(Record):
    """One reason of a verdict: what was expected, what was received, and whether it holds."""

    name: str = Field(description="What was checked.")
    expected: str = Field(description="What would pass.")
    received: str = Field(description="What was measured.")
    passed: bool = Field(description="Whether it holds.")


class ClassMetrics(Record):
    """Figures of one class on the test split."""

    name: str = Field(description="Name of the class.")
    support: int = Field(description="Its images in the test split.")
    precision: float = Field(
        description="Share of the images given this label that are of the class."
    )
    recall: float = Field(description="Share of its images that are given this label.")
    f1: float = Field(description="Harmonic mean of precision and recall.")
    recall_low: float = Field(description="Lower bound of the 95 % interval of the recall.")
    recall_high: float = Field(description="Upper bound of it.")


class CandidateResult(Record):
    """One candidate as it was compared: by validation only."""

    strategy: str = Field(description="What was trained.")
    digest: str = Field(description="Digest of the candidate.")
    validation_accuracy: float = Field(description="Its accuracy on the validation split.")
    validation_loss: float = Field(description="Its loss there.")
    seconds: float = Field(description="Wall time of all epochs.")
    chosen: bool = Field(description="Whether it is the one that was tested.")


class EvaluationManifest(Manifest):
    """`evaluation.json`: the chosen candidate, its figures on the test split, and the verdict.

    `digest` covers the verdict, its checks, the chosen model's digest and the dataset's.
    Predictions of the test split stand beside it in `predictions.npz` (ids, true_labels,
    probabilities), the report in `report.html`.
    """

    file_name: ClassVar[str] = "evaluation.json"

    verdict: Literal["accepted", "rejected"] = Field(description="What the gate decided.")
    checks: list[Check] = Field(description="Its reasons.")
    strategy: str = Field(description="Strategy of the chosen candidate.")
    model_digest: str = Field(description="Digest of the chosen candidate.")
    dataset_digest: str = Field(description="Digest of the dataset.")
    classes: list[str] = Field(description="Class names in the order of the columns.")
    candidates: list[CandidateResult] = Field(
        description="All candidates, as validation compared them."
    )
    metrics: dict[str, float] = Field(
        description="Figures on the test split by name; one that could not be had is absent."
    )
    per_class: list[ClassMetrics] = Field(description="Figures by class.")
    confusion: list[list[int]] = Field(
        description="Test images: a row for each true_label, a column for each answer."
    )
    temperature: float = Field(
        default=1.0, description="Divisor of the logits that calibrates the probabilities."
    )
    notes: list[str] = Field(
        default_factory=list,
        description="Sentences about what a reader of the figures should know.",
    )
    details: dict[str, Any] = Field(
        default_factory=dict,
        description="`familiar`: the threshold of familiarity; "
        "`champion`: the comparison with the model in service; either may be null.",
    )


class SavedModelManifest(Manifest):
    """`regraft.json` inside an exported SavedModel folder: what it is and what it came from.

    `digest` covers all other files of the folder (see `fingerprint`).
    """

    file_name: ClassVar[str] = "regraft.json"

    model_digest: str = Field(description="Digest of the candidate that was exported.")
    evaluation_digest: str = Field(description="Digest of the evaluation that let it pass.")
    dataset_digest: str = Field(description="Digest of the dataset that it learned from.")
    strategy: str = Field(description="What was trained.")
    backbone: str = Field(description="Name of the backbone.")
    weights_digest: str = Field(
        description="SHA-256 (hex) of the backbone's weights before training."
    )
    classes: list[str] = Field(description="Class names in the order of the probabilities.")
    preprocessing: Preprocessing = Field(description="What its signatures do with encoded bytes.")
    temperature: float = Field(description="Divisor of the logits, part of the graph.")
    metrics: dict[str, float] = Field(description="Figures on the test split.")
    checks: list[Check] = Field(description="Reasons of the verdict.")
    signatures: list[str] = Field(description="Names of the signatures.")
    versions: dict[str, str] = Field(
        description="Versions of Regraft, Python, TensorFlow and Keras that wrote it."
    )
    details: dict[str, Any] = Field(
        default_factory=dict,
        description="Verdict and notes of the evaluation, threshold of familiarity, inputs and "
        "outputs of the signatures, other formats.",
    )


class ParityRow(Record):
    """One image as the trained model and the server answered it."""

    image: str = Field(description="Path of the image in its source.")
    true_label: str = Field(description="Its class.")
    label: str = Field(description="Label by the trained model.")
    probability: float = Field(description="Probability of that label.")
    served: dict[str, str] = Field(description="Served label by protocol.")
    max_abs_diff: dict[str, float] = Field(
        description="Largest difference of a probability by protocol."
    )


class ParityManifest(Manifest):
    """`parity.json`: the proof that served answers equal the trained model's, by protocol."""

    file_name: ClassVar[str] = "parity.json"

    saved_model_digest: str = Field(description="Digest of the exported folder.")
    engine: str = Field(description="Server that answered.")
    tolerance: float = Field(description="Largest difference that passes.")
    max_abs_diff: dict[str, float] = Field(
        description="Largest difference over all images by protocol."
    )
    images: int = Field(description="Images that were asked about.")
    passed: bool = Field(description="Whether all differences are within the tolerance.")
    rows: list[ParityRow] = Field(description="Each image.")


class PublishedManifest(Manifest):
    """`published.json`: the record of a publish step (kept with the run, not with the version)."""

    file_name: ClassVar[str] = "published.json"

    name: str = Field(description="Name of the model.")
    version: int = Field(description="Number of the version.")
    path: str = Field(description="Folder or address of the version.")
    saved_model_digest: str = Field(description="Digest of the folder that was published.")
    parity: dict[str, float] = Field(
        description="Largest difference by protocol, from `parity.json`."
    )
