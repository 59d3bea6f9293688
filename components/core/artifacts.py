"""The formats in which the steps meet: folders with one JSON manifest each.

A folder is written beside its final place and renamed, so a reader sees all of it or nothing.
Every manifest carries `digest`, a SHA-256 over the content that it describes (not over times or
places), so that equal content is recognised whatever made it.
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

from components.core.errors import InputError

SCHEMA_VERSION = 1
SPLITS = ("train", "validation", "test")
Split = Literal["train", "validation", "test"]


class Record(BaseModel):
    """A frozen, strictly typed part of a manifest; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class MadeBy(Record):
    """Where a folder came from; never part of its digest."""

    step: str
    version: str
    seconds: float


class Manifest(Record):
    """Common to all manifests: a named JSON file at the top of the folder that it describes."""

    file_name: ClassVar[str]

    schema_version: int = SCHEMA_VERSION
    digest: str
    made_by: MadeBy

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
    """Return the SHA-256 (hex) of a JSON-serialisable value, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def digest_file(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 (hex) of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Shard(Record):
    """One file of records: `file` relative to the folder, number of records, SHA-256."""

    file: str
    count: int
    sha256: str


class SplitInfo(Record):
    """One split of a dataset: its shards and its pictures by class name."""

    count: int
    by_class: dict[str, int]
    shards: list[Shard]


class DatasetManifest(Manifest):
    """`dataset.json`: TFRecord shards of encoded pictures, by split.

    `digest` covers the classes and, per split, the sorted picture ids with their labels, so it
    does not depend on order, shard sizes, processes or file names.
    """

    file_name: ClassVar[str] = "dataset.json"

    classes: list[str]
    splits: dict[Split, SplitInfo]
    sources: list[str]
    conversions: dict[str, int] = Field(default_factory=dict)
    quarantined: dict[str, int] = Field(default_factory=dict)
    ignored: int = 0
    duplicates: dict[str, int] = Field(default_factory=dict)
    warnings: list[str] = Field(default_factory=list)
    options: dict[str, Any] = Field(default_factory=dict)


class FeatureShard(Record):
    """The features of one dataset shard in one view.

    `stem` names the arrays: `<stem>.<array>.npy`, in the record order of the dataset shard, and
    `<stem>.label.npy`.
    """

    stem: str
    split: Split
    view: int
    count: int


class FeaturesManifest(Manifest):
    """`features.json`: arrays computed once from the frozen backbone.

    `arrays` maps an array's name to the shape of one row: a pooling (`gap`, `gmp`, `flatten`) or
    `cut` (the activations at `cut`). All share `dtype`. `feature_map` is the shape [h, w, c] of
    the backbone's output.
    """

    file_name: ClassVar[str] = "features.json"

    dataset_digest: str
    classes: list[str]
    backbone: str
    weights: str
    weights_digest: str
    image_px: int
    cut: str | None
    views: int
    augment: Literal["off", "light", "strong"]
    seed: int
    dtype: Literal["float16", "float32"]
    arrays: dict[str, list[int]]
    feature_map: list[int]
    shard_index: int
    shard_count: int
    shards: list[FeatureShard]


class Preprocessing(Record):
    """All that turns encoded bytes into a backbone's input; the same everywhere."""

    image_px: int
    scaling: str
    resize: Literal["bilinear_antialias"] = "bilinear_antialias"


class Parameters(Record):
    """Numbers of weights in a model."""

    total: int
    trainable: int
    frozen: int


class Epoch(Record):
    """One line of a learning curve. `phase` is `head`, `top` or `full`; seconds of wall time."""

    phase: str
    epoch: int
    loss: float
    accuracy: float
    validation_loss: float
    validation_accuracy: float
    seconds: float


class ModelManifest(Manifest):
    """`model.json` beside `model.keras`: a head (features to logits) or a complete candidate.

    The models give logits; probabilities are their softmax. `digest` is that of the file
    `model.keras`.
    """

    file_name: ClassVar[str] = "model.json"

    kind: Literal["head", "candidate"]
    strategy: Literal["head", "top", "full"]
    requested_strategy: str
    backbone: str
    weights: str
    weights_digest: str
    preprocessing: Preprocessing
    classes: list[str]
    dataset_digest: str
    cut: str | None
    head: dict[str, Any]
    options: dict[str, Any]
    parameters: Parameters
    head_parameters: dict[str, int]
    history: list[Epoch]
    validation_accuracy: float
    validation_loss: float
    reasoning: list[str] = Field(default_factory=list)
    measurements: dict[str, Any] = Field(default_factory=dict)


class Check(Record):
    """One reason of a verdict: what was expected, what was received, and whether it holds."""

    name: str
    expected: str
    received: str
    passed: bool


class ClassMetrics(Record):
    """Figures of one class on the test split."""

    name: str
    support: int
    precision: float
    recall: float
    f1: float
    recall_low: float
    recall_high: float


class CandidateResult(Record):
    """One candidate as it was compared: by validation only."""

    strategy: str
    digest: str
    validation_accuracy: float
    validation_loss: float
    seconds: float
    chosen: bool


class EvaluationManifest(Manifest):
    """`evaluation.json`: the chosen candidate, its figures on the test split, and the verdict.

    `digest` covers the verdict, its checks, the chosen model's digest and the dataset's.
    Predictions of the test split stand beside it in `predictions.npz` (ids, truths,
    probabilities), the report in `report.html`.
    """

    file_name: ClassVar[str] = "evaluation.json"

    verdict: Literal["accepted", "rejected"]
    checks: list[Check]
    strategy: str
    model_digest: str
    dataset_digest: str
    classes: list[str]
    candidates: list[CandidateResult]
    metrics: dict[str, float]
    per_class: list[ClassMetrics]
    confusion: list[list[int]]
    temperature: float = 1.0
    notes: list[str] = Field(default_factory=list)
    details: dict[str, Any] = Field(default_factory=dict)


class SavedModelManifest(Manifest):
    """`regraft.json` inside an exported SavedModel folder: what it is and what it came from.

    `digest` covers all other files of the folder (see `fingerprint`).
    """

    file_name: ClassVar[str] = "regraft.json"

    model_digest: str
    evaluation_digest: str
    dataset_digest: str
    strategy: str
    backbone: str
    weights_digest: str
    classes: list[str]
    preprocessing: Preprocessing
    temperature: float
    metrics: dict[str, float]
    checks: list[Check]
    signatures: list[str]
    versions: dict[str, str]
    details: dict[str, Any] = Field(default_factory=dict)


class ParityRow(Record):
    """One picture as the trained model and the server answered it."""

    picture: str
    truth: str
    label: str
    probability: float
    served: dict[str, str]
    max_abs_diff: dict[str, float]


class ParityManifest(Manifest):
    """`parity.json`: the proof that served answers equal the trained model's, by protocol."""

    file_name: ClassVar[str] = "parity.json"

    saved_model_digest: str
    engine: str
    tolerance: float
    max_abs_diff: dict[str, float]
    pictures: int
    passed: bool
    rows: list[ParityRow]


class PublishedManifest(Manifest):
    """`published.json`: the record of a publish step (kept with the run, not with the version)."""

    file_name: ClassVar[str] = "published.json"

    name: str
    version: int
    path: str
    saved_model_digest: str
    parity: dict[str, float]
