"""Real servers on free loopback ports, and their small models."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from serving.running.runner import Addresses, started_server
from tests.serving.tiny_model import export_tiny, lay_out


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--serving-address", help="gRPC host:port of a server to test")
    parser.addoption("--serving-rest-address", help="its REST host:port (default: port 8501)")


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny model exported twice: the labels of `odd` and `even` differ."""
    folder = tmp_path_factory.mktemp("exports")
    return {mark: export_tiny(folder / mark, mark) for mark in ("odd", "even")}


@pytest.fixture(scope="session")
def conformance_base(exports: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the conformance suite's model, next to its models.config."""
    base = tmp_path_factory.mktemp("models")
    lay_out(base, exports["odd"], exports["even"])
    return base


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Iterator[Addresses]:
    """A server of the model `tiny`, versions 1 and 2: that of the option, or an embedded one."""
    address = request.config.getoption("serving_address", None)
    if address:
        rest = request.config.getoption("serving_rest_address", None)
        yield Addresses(address, rest or f"{address.rsplit(':', 1)[0]}:8501", "external", 0)
        return
    base = request.getfixturevalue("conformance_base")
    flags = [
        f"--model_config_file={base / 'models.config'}",
        "--allow_version_labels_for_unavailable_models",
    ]
    with started_server(flags) as addresses:
        yield addresses


@pytest.fixture
def embedded(server: Addresses) -> Addresses:
    """The embedded server, for what TF Serving does not check, or may end from."""
    if server.engine == "external":
        pytest.skip("not sent to a server of --serving-address, whose process it may end")
    return server


@pytest.fixture
def model_base(exports: dict[str, Path], tmp_path: Path) -> Path:
    """A folder of its own with version 1 of `tiny`."""
    base = tmp_path / "tiny"
    shutil.copytree(exports["odd"], base / "1")
    return base


def png(color: tuple[int, int, int] = (200, 30, 60), size: tuple[int, int] = (9, 7)) -> bytes:
    """Return a small encoded image."""
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def images() -> list[bytes]:
    """Four encoded images of different sizes."""
    return [png((40 * n, 250 - 60 * n, 90), (6 + 3 * n, 12 - n)) for n in range(4)]
