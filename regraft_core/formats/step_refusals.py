"""Refusals: marks in a content store at which the retries of a step with invalid input end.

Kubeflow Pipelines knows no exit codes, so it retries a step whatever its error. All retries of a
task write to the same URI, which contains the run, the task and a random part. So its digest
identifies the task, and no other run reads the mark.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from typing import Any

from pydantic import Field, ValidationError

from regraft_core.formats.content_store import ContentStore
from regraft_core.formats.manifest_storage import Record
from regraft_core.runtime.addresses import is_remote
from regraft_core.runtime.errors import InputError, may_pass

REFUSALS_FOLDER = ".refusals"
# Longer than the waits between retries. Somebody may correct the cause and retry the same task.
VALID_S = 900.0


class Refusal(Record):
    """Why a step refused its input."""

    message: str = Field(description="The error, in one line.")
    at: float = Field(description="Time in seconds since 1970.")


class Refusals:
    """The mark of one task of a run on a cluster, for `run_step`."""

    def __init__(self, work_dir: str, task: str) -> None:
        self._work_dir = work_dir
        self._file = f"{REFUSALS_FOLDER}/{hashlib.sha256(task.encode()).hexdigest()[:32]}.json"

    def find(self) -> InputError | None:
        """Return the error of the attempt before, if the input was invalid then."""
        text = ContentStore(self._work_dir).read_record(self._file)
        try:
            refusal = None if text is None else Refusal.model_validate_json(text)
        except ValidationError:
            return None
        recent = refusal is not None and time.time() - refusal.at < VALID_S
        return InputError(refusal.message) if refusal and recent else None

    def leave(self, error: Exception) -> None:
        """Leave a mark if no other attempt can succeed."""
        if may_pass(error):
            return
        refusal = Refusal(message=str(error), at=time.time())
        ContentStore(self._work_dir).write_record(self._file, refusal.model_dump_json())


def refusals_of(options: Mapping[str, Any], output: Any) -> Refusals | None:
    """Return the mark of a task; None without a store, or on this machine, without retries.

    Args:
        options: the step's options, with `work_dir`.
        output: an output artifact of the task.
    """
    work_dir = options.get("work_dir", "")
    return Refusals(work_dir, output.uri) if work_dir and is_remote(output.uri) else None
