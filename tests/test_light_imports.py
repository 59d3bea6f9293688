"""TensorFlow and Keras are loaded when they are used, and never at import of the light packages."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIGHT = {
    "regraft_core.formats": ROOT / "regraft_core/formats",
    "regraft_core.runtime": ROOT / "regraft_core/runtime",
    "pipelines": ROOT / "pipelines",
    "regraft": ROOT / "regraft",
    "regraft_client": ROOT / "serving/client/regraft_client",
}
# What predicts in this process; nothing imports it before it is called.
HEAVY = {"regraft.predictors"}
CODE = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    heavy = {"tensorflow", "keras"} & set(sys.modules)
    assert not heavy, f"{name} imports {heavy}"
"""


@pytest.mark.parametrize("package", LIGHT)
def test_no_module_of_a_light_package_imports_tensorflow(package: str) -> None:
    found = pkgutil.walk_packages([str(LIGHT[package])], f"{package}.")
    names = {module.name for module in found if not module.name.endswith("__main__")}
    modules = sorted(names - HEAVY)
    assert len(modules) >= 3
    command = [sys.executable, "-c", CODE, package, *modules]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_a_server_imports_tensorflow_without_the_packages_that_keras_does_not_need() -> None:
    code = """
import sys
from serving.server.__main__ import skip_unused_packages
skip_unused_packages()
import serving.server.app
assert "keras" in sys.modules
loaded = {name for name in ("matplotlib", "pandas", "sklearn") if sys.modules.get(name)}
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
