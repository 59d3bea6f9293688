"""Serving with OpenVINO: only versions that were verified so, by the embedded server."""

from __future__ import annotations

from pathlib import Path

import pytest

from regraft_core.formats import engine_packages
from regraft_core.runtime.errors import InputError
from serving.running.serve import serving_folder
from serving.server.flags import parse_flags
from tests.exported_model import write_manifest


def write_version(folder: Path, *engines: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    manifest = write_manifest(folder)
    manifest.model_copy(update={"serving_engines": list(engines)}).write(folder)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Version 1, which is labeled and verified with both engines, and version 2."""
    write_version(tmp_path / "pets" / "1", "tf", "openvino")
    write_version(tmp_path / "pets" / "2", "tf")
    (tmp_path / "pets" / "labels.json").write_text('{"stable": 1}')
    return tmp_path


def serve(models: Path, engine: str, server: str = "embedded", precision: str = "") -> None:
    with serving_folder(models, server, mixed_precision=precision, serving_engine=engine):
        raise AssertionError("it was served")


def test_a_version_that_was_not_verified_with_openvino_is_not_served_with_it(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="got pets version 2; run it with --serving-engine openv"):
        serve(models, "openvino")
    started: list[list[str]] = []

    def start(flags: list[str], *others: object) -> None:
        started.append(flags)
        raise InterruptedError

    monkeypatch.setattr("serving.running.serve.started_server", start)
    write_version(models / "pets" / "2", "tf", "openvino")
    for engine in ("openvino", "auto"):
        with pytest.raises(InterruptedError):
            serve(models, engine)
        assert f"--serving_engine={engine}" in started.pop()


def test_tf_serving_gets_no_engine(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(flags: list[str], *others: object) -> None:
        assert not any("serving_engine" in flag for flag in flags)
        raise InterruptedError

    monkeypatch.setattr("serving.running.serve._choose", lambda *_: "docker")
    monkeypatch.setattr("serving.running.serve.started_server", start)
    with pytest.raises(InterruptedError):
        serve(models, "auto", "docker")
    with pytest.raises(InputError, match="computed by the embedded server, got docker; add --eng"):
        serve(models, "openvino", "docker")


def test_a_missing_extra_and_an_unknown_engine_are_refused(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="--serving-engine: expected auto, tf, openvino, got onnx"):
        serve(models, "onnx")
    with pytest.raises(InputError, match="--serving_engine: expected auto, tf, openvino, got onnx"):
        parse_flags(["--model_base_path=/models", "--serving_engine=onnx"])
    monkeypatch.setattr(engine_packages, "ENGINE_PACKAGES", {"openvino": "not_installed_here"})
    with pytest.raises(InputError, match=r"serving-engine: openvino needs not_.*regraft\[openvino"):
        serve(models, "openvino")
