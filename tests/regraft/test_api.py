"""The public Python API: what importing it costs, its names, and options that it refuses."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import regraft
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.version import VERSION
from serving.request_log_options import RequestLogOptions

HEAVY = ("tensorflow", "keras", "kfp", "numpy", "PIL", "pydantic", "requests", "grpc", "yaml")
IMPORT_S = 1.0


def test_importing_it_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, time\n"
        "start = time.process_time()\n"
        "import regraft\n"
        "assert set(regraft.__all__) <= set(dir(regraft))\n"
        "print(time.process_time() - start)\n"
        f"print(sorted(set({HEAVY}) & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    seconds, loaded = done.stdout.splitlines()
    assert loaded == "[]"
    assert float(seconds) < IMPORT_S


def test_serve_has_the_options_of_the_command_for_the_request_log() -> None:
    from regraft.cli.serving import serve as command

    options = {one.name: one.default for one in fields(RequestLogOptions)}
    for function in (regraft.serve, command):
        known = inspect.signature(function).parameters
        assert {name: known[name].default for name in options} == options


@pytest.mark.parametrize("options", [{"sample": 0.0}, {"log_max_mb": 0}, {"shadow_label": "x"}])
def test_serve_checks_the_options_of_the_request_log(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "saved_model.pb").touch()
    with pytest.raises(InputError, match="expected"), regraft.serve(tmp_path, **options):
        pass


@pytest.mark.parametrize("name", ["run", "Run", "serve", "Prediction"])
def test_runs_and_servers_are_there_without_tensorflow(name: str) -> None:
    code = f"import sys, regraft; regraft.{name}; print('tensorflow' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("name", sorted(set(regraft.__all__) - {"__version__"}))
def test_each_public_name_is_documented(name: str) -> None:
    value = getattr(regraft, name)
    assert value.__name__ == name
    assert inspect.getdoc(value)


@pytest.mark.parametrize(
    ("path", "sections"),
    [
        ("run", ("Args:", "Returns:", "Raises:", "Example:")),
        ("load", ("Args:", "Returns:", "Raises:", "Example:")),
        ("from_arrays", ("Args:", "Returns:", "Raises:", "Example:")),
        ("serve", ("Args:", "Yields:", "Raises:", "Example:")),
        ("Run.read", ("Args:", "Returns:", "Raises:", "Example:")),
        ("Model.predict", ("Args:", "Returns:", "Raises:", "Example:")),
        ("Model.predict_iter", ("Args:", "Yields:", "Raises:", "Example:")),
        ("Run", ("Attributes:", "Example:")),
        ("Model", ("Attributes:", "Example:")),
        ("Server", ("Attributes:",)),
    ],
)
def test_docstrings_have_the_sections_of_the_reference(
    path: str, sections: tuple[str, ...]
) -> None:
    value: Any = regraft
    for name in path.split("."):
        value = getattr(value, name)
    text = inspect.getdoc(value) or ""
    assert [section for section in sections if section not in text] == []
    if callable(value) and not isinstance(value, type):
        described = [name for name in inspect.signature(value).parameters if name != "self"]
        assert [name for name in described if f"{name}: " not in text] == []


def test_attributes_in_docstrings_exist() -> None:
    for kind in (regraft.Run, regraft.Model, regraft.Server):
        text = (inspect.getdoc(kind) or "").split("Attributes:")[1].split("Example:")[0]
        named = {line.split(":")[0].strip() for line in text.splitlines()
                 if line.startswith("    ") and not line.startswith("     ")}  # fmt: skip
        fields = set(kind.__dataclass_fields__)
        assert named == {field for field in fields if not field.startswith("_")}


def test_the_version_and_unknown_names() -> None:
    assert regraft.__version__ == VERSION
    with pytest.raises(AttributeError, match="no attribute 'fit'"):
        regraft.fit  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rat": 1e-3}, "unknown option 'learning_rat'; did you mean learning_rate"),
        ({"epochs": 3}, "unknown option 'epochs'; did you mean fine_tune_epochs"),
        ({"strategy": "top"}, "did you mean strategies"),
        ({"backbone": "vgg61"}, "did you mean vgg19 or vgg16"),
        ({"min_accuracy": 2.0}, "min_accuracy: expected"),
        ({"strategies": ["heda"]}, "strategies: expected"),
        ({"sources": ["x"]}, "expected either source or sources, got both"),
        ({"runner": "dokcer", "backbone": "tiny"}, "did you mean docker"),
    ],
)
def test_bad_options_are_input_errors_before_any_step(
    shapes: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(regraft.InputError, match=message):
        regraft.run(shapes, out=tmp_path / "run", **options)
    assert not (tmp_path / "run" / "steps").exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "sources: expected"),
        ("digit", "did you mean digits"),
        ("missing.yaml", "found no file missing.yaml|did you mean"),
        ([], "sources: expected"),
    ],
)
def test_a_run_needs_images(tmp_path: Path, source: Any, message: str) -> None:
    with pytest.raises(regraft.InputError, match=message):
        regraft.run(source, out=tmp_path / "run")
