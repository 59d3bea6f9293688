"""Retries of a step with invalid input end at once; retries after other failures do not."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from regraft_core.formats import step_refusals
from regraft_core.formats.content_store import ContentStore
from regraft_core.formats.step_refusals import REFUSALS_FOLDER, refusals_of
from regraft_core.runtime.errors import DataError, InputError, ParityError, UnavailableError
from regraft_core.runtime.object_stores import access_error
from regraft_core.runtime.step_reports import run_step

TASK = "minio://bucket/regraft/run-1/ingest/salt/dataset"


def attempt(work_dir: str, error: Exception | None, task: str = TASK) -> tuple[int, bool]:
    """Return the exit code of an attempt of a task, and whether its body ran."""
    ran = False
    try:
        with run_step("ingest", refusals_of({"work_dir": work_dir}, SimpleNamespace(uri=task))):
            ran = True
            if error:
                raise error
    except SystemExit as ended:
        assert isinstance(ended.code, int)
        return ended.code, ran
    return 0, ran


@pytest.mark.parametrize("kind", [InputError, DataError])
def test_a_retry_ends_at_once_with_the_same_message(
    kind: type[Exception], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = kind("sources: expected two classes or more, got 1")
    assert attempt(str(tmp_path), error) == (2, True)
    first = capsys.readouterr().out
    assert attempt(str(tmp_path), None) == (2, False)
    again = capsys.readouterr().out
    line = "[regraft:error:2] ingest: sources: expected two classes or more, got 1"
    assert line in first and line in again
    assert "not run again" in again


def test_a_bucket_has_marks_too(s3: None) -> None:
    import fsspec

    fsspec.filesystem("s3").mkdir("refusals")
    assert attempt("s3://refusals/work", InputError("no")) == (2, True)
    assert attempt("s3://refusals/work", None) == (2, False)


@pytest.mark.parametrize(
    "error",
    [UnavailableError("the store did not respond"), ParityError("differs"),
     access_error("s3://b", ConnectionError("reset"))],
)  # fmt: skip
def test_a_failure_that_may_pass_is_tried_again(error: Exception, tmp_path: Path) -> None:
    assert attempt(str(tmp_path), error)[1]
    assert attempt(str(tmp_path), None) == (0, True)


def test_the_cause_of_an_error_counts(tmp_path: Path) -> None:
    """A message is often repeated with the name of the option, such as `champion: ...`."""
    outer, inner = InputError("champion: no response"), UnavailableError("no response")
    outer.__cause__ = inner
    assert attempt(str(tmp_path), outer) == (2, True)
    assert attempt(str(tmp_path), None) == (0, True)
    gone = access_error("s3://b", FileNotFoundError("b"))
    gone.__cause__ = FileNotFoundError("b")
    assert attempt(str(tmp_path), gone) == (2, True)
    assert attempt(str(tmp_path), None) == (2, False)


@pytest.mark.parametrize("other", [TASK.replace("run-1", "run-2"), TASK.replace("salt", "other")])
def test_another_run_or_task_ignores_the_mark(other: str, tmp_path: Path) -> None:
    assert attempt(str(tmp_path), InputError("no")) == (2, True)
    assert attempt(str(tmp_path), None, other) == (0, True)


def test_an_old_mark_does_not_count(tmp_path: Path) -> None:
    assert attempt(str(tmp_path), InputError("no")) == (2, True)
    store = ContentStore(str(tmp_path))
    (file,) = store.records(REFUSALS_FOLDER)
    then = time.time() - step_refusals.VALID_S - 1
    store.write_record(file, step_refusals.Refusal(message="no", at=then).model_dump_json())
    assert attempt(str(tmp_path), None) == (0, True)
    store.write_record(file, "damaged")
    assert attempt(str(tmp_path), None) == (0, True)


def test_a_store_that_fails_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    work_dir = str(tmp_path / "file" / "work")
    assert attempt(work_dir, InputError("no")) == (2, True)
    assert attempt(work_dir, None) == (0, True)


@pytest.mark.parametrize(
    ("work_dir", "uri"), [("", TASK), ("/work", "/runs/digits/steps/ingest/dataset")]
)
def test_without_a_store_or_on_this_machine_there_are_no_marks(work_dir: str, uri: str) -> None:
    assert refusals_of({"work_dir": work_dir}, SimpleNamespace(uri=uri)) is None
