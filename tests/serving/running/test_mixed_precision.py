"""Serving in bfloat16: only versions that were verified so, on processors that have it."""

from __future__ import annotations

from pathlib import Path

import pytest

from regraft_core.runtime import machine
from regraft_core.runtime.errors import InputError
from serving.running.serve import serving_folder
from serving.server.flags import parse_flags
from tests.exported_model import write_manifest


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Versions 1, which is labeled and verified in both precisions, and 2."""
    write_version(tmp_path / "pets" / "1", "float32", "bfloat16")
    write_version(tmp_path / "pets" / "2", "float32")
    (tmp_path / "pets" / "labels.json").write_text('{"stable": 1}')
    return tmp_path


def write_version(folder: Path, *precisions: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    manifest = write_manifest(folder)
    manifest.model_copy(update={"serving_precisions": list(precisions)}).write(folder)


def serve(models: Path, precision: str) -> None:
    with serving_folder(models, "embedded", mixed_precision=precision):
        raise AssertionError("it was served")


def test_a_version_that_was_not_verified_in_bfloat16_is_not_served_in_it(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "computes_bfloat16", lambda: True)
    with pytest.raises(InputError, match="got pets version 2; run it with --serving-precision"):
        serve(models, "bfloat16")
    started: list[list[str]] = []

    def start(flags: list[str], *others: object) -> None:
        started.append(flags)
        raise InterruptedError

    monkeypatch.setattr("serving.running.serve.started_server", start)
    write_version(models / "pets" / "2", "float32", "bfloat16")
    with pytest.raises(InterruptedError):
        serve(models, "bfloat16")
    assert "--mixed_precision=bfloat16" in started[0]


def test_a_processor_without_bfloat16_or_another_precision_is_refused(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "computes_bfloat16", lambda: False)
    with pytest.raises(InputError, match="--mixed-precision: expected a processor that computes"):
        serve(models, "bfloat16")
    with pytest.raises(InputError, match="--mixed-precision: expected bfloat16, got float16"):
        serve(models, "float16")
    with pytest.raises(InputError, match="--mixed_precision: expected bfloat16, got float16"):
        parse_flags(["--model_base_path=/models", "--mixed_precision=float16"])
