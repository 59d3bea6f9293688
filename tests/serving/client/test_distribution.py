"""regraft-client as a distribution of its own: its imports, and its wheel without TensorFlow."""

from __future__ import annotations

import ast
import importlib
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import regraft_client
from serving.running.runner import Addresses

SOURCE = Path(regraft_client.__file__).parents[1]
MODULES = sorted((SOURCE / "regraft_client").glob("*.py"))
IMPORT_NAMES = {"grpcio": "grpc", "protobuf": "google", "requests": "requests"}


# Of the extra `images`.
OPTIONAL_IMPORTS = {"image_files.py": {"PIL"}}


def dependencies() -> set[str]:
    project = tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]
    return {text.split(">=")[0] for text in project["dependencies"]}


def test_the_dependencies_are_grpc_protobuf_and_requests() -> None:
    assert dependencies() == set(IMPORT_NAMES)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_modules_import_the_dependencies_and_each_other_relatively(path: Path) -> None:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(str(node.module).split(".")[0])
    optional = OPTIONAL_IMPORTS.get(path.name, set())
    assert names <= sys.stdlib_module_names | set(IMPORT_NAMES.values()) | optional


def test_every_exported_name_is_there() -> None:
    for name in regraft_client.__all__:
        assert getattr(regraft_client, name).__doc__ or name == "NO_RETRIES"
    with pytest.raises(AttributeError, match="has no attribute 'GrpcCliant'"):
        _ = regraft_client.GrpcCliant


@pytest.mark.parametrize(
    ("name", "absent"),
    [
        ("RegraftClientError", ["asyncio", "grpc", "requests"]),
        ("RestClient", ["grpc", "numpy", "tensorflow"]),
        ("GrpcClient", ["requests", "numpy", "tensorflow"]),
    ],
)
def test_a_name_imports_what_it_needs(name: str, absent: list[str]) -> None:
    program = (
        f"import sys; from regraft_client import {name}; "
        f"print([module for module in {absent} if module in sys.modules])"
    )
    command = [sys.executable, "-P", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Runs in an environment that has the wheel and its dependencies, and nothing else.
PROGRAM = """
import asyncio, importlib.util, sys
from pathlib import Path

import regraft_client
from regraft_client import AsyncGrpcClient, AsyncRestClient, GrpcClient, RestClient
from regraft_client.predict_files import predict_files

grpc, rest, image = sys.argv[1:]
assert not [name for name in ("tensorflow", "numpy", "aiohttp", "serving", "regraft_core")
            if importlib.util.find_spec(name)]
assert regraft_client.__file__.startswith(sys.prefix), regraft_client.__file__
assert Path(regraft_client.__file__).with_name("py.typed").exists()
content = [Path(image).read_bytes()]


async def by_asyncio(kind, address):
    async with kind(address, "tiny") as client:
        return await client.predict(content)


found = []
for client in (GrpcClient(grpc, "tiny"), RestClient(rest, "tiny")):
    with client:
        client.wait_ready(30)
        found.append(client.predict(content))
        assert client.status()[0].state == "AVAILABLE"
        assert "serving_default" in client.metadata().signatures
for kind, address in ((AsyncGrpcClient, grpc), (AsyncRestClient, rest)):
    found.append(asyncio.run(by_asyncio(kind, address)))
for server in (f"grpc://{grpc}", f"http://{rest}"):
    found.append([result.prediction for result in predict_files([image], server, "tiny")])
print({predictions[0].label for predictions in found})
"""


def test_the_wheel_works_without_tensorflow(
    server: Addresses, images: list[bytes], tmp_path: Path
) -> None:
    shutil.copytree(SOURCE, tmp_path / "source", ignore=shutil.ignore_patterns("*.egg-info"))
    python = tmp_path / "venv" / "bin" / "python"
    pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    (tmp_path / "image.png").write_bytes(images[0])

    def run(*command: str) -> str:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    run(sys.executable, "-m", "venv", "venv")
    run(*pip, "wheel", "--no-deps", "--wheel-dir", "dist", "./source")
    (wheel,) = (tmp_path / "dist").glob("regraft_client-*.whl")
    run(*pip, "install", str(wheel))
    result = run(str(python), "-P", "-c", PROGRAM, server.grpc, server.rest, "image.png")
    assert result in {f"{{'even-{name}'}}" for name in ("circle", "cross", "square")}


def test_errors_have_one_root() -> None:
    module = importlib.import_module("regraft_client.errors")
    defined = [kind for kind in vars(module).values() if isinstance(kind, type)]
    kinds = [kind for kind in defined if kind.__module__ == module.__name__]
    assert len(kinds) == 14
    assert all(issubclass(kind, regraft_client.RegraftClientError) for kind in kinds)
    assert all(f"{kind.__name__} " in str(module.__doc__) for kind in kinds)
