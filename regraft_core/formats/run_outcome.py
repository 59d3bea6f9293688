"""The outcome of a run on a cluster, and of the last publication: `<destination>/<model>/.runs/`.

Kubeflow Pipelines has no verdict, and a published and a rejected run have the same state. So
`record_verdict` writes `<run>.json`, `publish` adds the published version, and `conclude` reads it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from typing import Literal

from pydantic import Field, ValidationError

from regraft_core.formats.content_store import ContentStore
from regraft_core.formats.manifest_storage import Record
from regraft_core.formats.manifests.evaluation import Check
from regraft_core.formats.manifests.model import Epoch
from regraft_core.runtime.errors import InputError

RUNS_FOLDER = ".runs"
_LAST_PUBLICATION = f"{RUNS_FOLDER}/last_publication.json"


def main_metric(metrics: Mapping[str, float]) -> str:
    """Return the name of the metric that stands for a run.

    With several labels an image, that is the mean average precision.
    """
    name = "mean_average_precision"
    return name if name in metrics else "test_accuracy"


class RunDetails(Record):
    """What a tracking server logs of a run, in addition to its metrics."""

    dataset_digest: str = Field(default="", description="Digest of the dataset.")
    parameters: dict[str, str] = Field(
        default_factory=dict, description="Options and facts by name, without secrets in URLs."
    )
    history: list[Epoch] = Field(
        default_factory=list, description="Learning curve of the chosen candidate."
    )


class RunOutcome(Record):
    """The verdict of one run and its result."""

    verdict: Literal["accepted", "rejected"] = Field(description="Decision of the gate.")
    strategy: str = Field(description="Strategy of the chosen candidate.")
    metrics: dict[str, float] = Field(description="Metrics on the test split.")
    checks: list[Check] = Field(default_factory=list, description="The gate's checks.")
    version: int | None = Field(
        default=None, description="Published version with this model, if any."
    )
    path: str = Field(default="", description="Folder or URI of that version.")
    added: bool = Field(
        default=True, description="Whether the run added it; otherwise it was already published."
    )
    details: RunDetails = Field(
        default_factory=RunDetails, description="What is logged to a tracking server."
    )

    @property
    def accepted_only(self) -> bool:
        """Whether the gate accepted the model, and no version was published (yet)."""
        return self.verdict == "accepted" and self.version is None


class LastPublication(Record):
    """`last_publication.json`: what the model that was published last was compared with.

    After a publication the champion is the run's own model. The same run again, with the same
    inputs, compares nothing anew: its evaluation against the champion before is still valid.
    """

    inputs: str = Field(description="Digest of the run's options and of its sources' state.")
    champion_digest: str = Field(description="Digest of the champion before; empty without one.")
    saved_model_digest: str = Field(description="Digest of the published folder.")


def write_outcome(destination: str, model_name: str, run_id: str, outcome: RunOutcome) -> None:
    """Write the outcome of a run, or replace it.

    Raises:
        InputError: the run id could be a path, or the destination cannot be written to.
    """
    _write(_model(destination, model_name), _outcome_file(run_id), outcome)


def read_outcome(destination: str, model_name: str, run_id: str) -> RunOutcome | None:
    """Return the outcome of a run, or None if it wrote none.

    Raises:
        InputError: the destination cannot be read, or the file is damaged.
    """
    text = _model(destination, model_name).read_record(_outcome_file(run_id))
    try:
        return None if text is None else RunOutcome.model_validate_json(text)
    except ValidationError as error:
        location = outcome_location(destination, model_name, run_id)
        raise InputError(f"{location}: expected the outcome of a run: {error}") from error


def write_last_publication(destination: str, model_name: str, last: LastPublication) -> None:
    """Write what a run is about to publish, or replace it.

    Raises:
        InputError: the destination cannot be written to.
    """
    _write(_model(destination, model_name), _LAST_PUBLICATION, last)


def read_last_publication(destination: str, model_name: str) -> LastPublication | None:
    """Return what was published last; None if it is not known.

    Raises:
        InputError: the destination cannot be read.
    """
    return last_publication_of(_model(destination, model_name).root)


def last_publication_of(model: str) -> LastPublication | None:
    """Return what was published last at the folder or URI of a model; None if it is not known.

    Raises:
        InputError: the folder cannot be read.
    """
    text = ContentStore(model).read_record(_LAST_PUBLICATION)
    with contextlib.suppress(ValidationError):  # of another version of Regraft
        return None if text is None else LastPublication.model_validate_json(text)
    return None


def outcome_location(destination: str, model_name: str, run_id: str) -> str:
    """Return the path or URI of the outcome of a run.

    Raises:
        InputError: the run id could be a path.
    """
    return _model(destination, model_name).location(_outcome_file(run_id))


def _outcome_file(run_id: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", run_id):
        raise InputError(f"run id: expected letters, digits, '-' or '_', got {run_id!r}")
    return f"{RUNS_FOLDER}/{run_id}.json"


def _model(destination: str, model_name: str) -> ContentStore:
    """Return the folder of a model as a store, whose records are read and written."""
    return ContentStore(f"{destination.rstrip('/')}/{model_name}")


def _write(model: ContentStore, file: str, record: Record) -> None:
    model.write_record(file, record.model_dump_json(indent=2) + "\n")
