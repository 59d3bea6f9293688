"""The engine, and the container image that `make test-containers` has built."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from regraft_core.runtime.container_image import IMAGE

# What Kubernetes' strictest profile leaves to a pod.
STRICT = {
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "tmpfs": {"/tmp": ""},
}


@pytest.fixture(scope="session")
def engine() -> Iterator[Any]:
    client = docker.from_env()
    client.images.get(IMAGE)
    yield client
    client.close()


@pytest.fixture(scope="session")
def in_image(engine: Any) -> Callable[..., str]:
    """Run a command in the container image as a strict cluster would; return its output."""

    def run(*command: str, **options: Any) -> str:
        printed = engine.containers.run(IMAGE, list(command), remove=True, **(STRICT | options))
        return str(printed.decode())

    return run


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture
def owned_by() -> Callable[[Path], bool]:
    """Whether everything below a folder belongs to this user and can be read."""

    def check(folder: Path) -> bool:
        return all(path.stat().st_uid == os.getuid() and os.access(path, os.R_OK)
                   for path in folder.rglob("*"))  # fmt: skip

    return check
