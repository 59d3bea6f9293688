"""models.config while labels and versions change, with a server that reports loaded versions."""

from __future__ import annotations

import http.server
import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from regraft_core.runtime.errors import InputError
from serving.publishing.publish import rollback
from serving.running.model_discovery import ConfigUpdater, find_models
from tests.local_server import LocalServer, write_response


class EagerServer(LocalServer):
    """TF Serving's behavior while its models.config and its folders change.

    Each `tick` reads both. A version that is no longer listed, or whose folder is gone, is unloaded
    at once; another is loaded in `LOAD_TICKS`. Labels on versions that are not loaded are refused.
    """

    LOAD_TICKS = 3

    def __init__(self, config: Path) -> None:
        super().__init__()
        self._config = config
        self._loading: dict[int, int] = {}
        self.loaded: set[int] = set()
        self.labels: dict[str, int] = {}

    def tick(self) -> None:
        model = parsed(self._config)
        names = {path.name for path in Path(model.base_path).iterdir()}
        chosen = {n for n in model.model_version_policy.specific.versions if str(n) in names}
        self.loaded &= chosen
        for number in chosen - self.loaded:
            assert (Path(model.base_path) / str(number)).is_dir()
            self._loading[number] = self._loading.get(number, 0) + 1
            if self._loading[number] >= self.LOAD_TICKS:
                del self._loading[number]
                self.loaded.add(number)
        if set(model.version_labels.values()) <= self.loaded:
            self.labels = dict(model.version_labels)

    def respond(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        parts = handler.path.split("/")
        if "labels" not in parts:
            ok = {"error_code": "OK", "error_message": ""}
            states = [{"version": str(number), "state": "AVAILABLE", "status": ok}
                      for number in sorted(self.loaded)]  # fmt: skip
            body: dict[str, object] = {"model_version_status": states}
        else:
            version = self.labels.get(parts[parts.index("labels") + 1])
            if version not in self.loaded:
                return write_response(handler, 404, {}, b'{"error": "Servable not found"}')
            spec = {"name": "m", "signature_name": "", "version": str(version)}
            signatures = {"signature_def": {"signature_def": {}}}
            body = {"model_spec": spec, "metadata": signatures}
        return write_response(handler, 200, {}, json.dumps(body).encode())


def parsed(config: Path) -> Any:
    """Return the only model of a models.config."""
    message = text_format.Parse(config.read_text(), model_server_config_pb2.ModelServerConfig())
    (model,) = message.model_config_list.config
    return model


def configured(config: Path) -> tuple[list[int], dict[str, int]]:
    """Return versions and labels of the only model of a models.config."""
    model = parsed(config)
    return list(model.model_version_policy.specific.versions), dict(model.version_labels)


def test_all_models_below_a_folder_are_found(tmp_path: Path) -> None:
    for name in ("a/1", "a/2", "b/7", "none", ".hidden"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a" / "labels.json").write_text('{"stable": 1, "canary": 9}')
    models = find_models(tmp_path)
    assert [(m.name, m.labels) for m in models] == [("a", {"stable": 1}), ("b", {})]
    assert [sorted(m.versions) for m in models] == [[1, 2], [7]]
    assert [m.name for m in find_models(tmp_path / "b")] == ["b"]
    with pytest.raises(InputError, match="found no version"):
        find_models(tmp_path / "none")


def publish(model: Path, *numbers: int, **labels: int) -> None:
    for number in numbers:
        (model / str(number)).mkdir(parents=True)
        (model / str(number) / "saved_model.pb").touch()
    if labels:
        (model / "labels.json").write_text(json.dumps(labels))


def settle(updater: ConfigUpdater, server: EagerServer, label: str = "") -> list[set[int]]:
    """Run updater and server side by side; return the versions loaded meanwhile.

    At each moment a version is loaded, and one responds to `label`.
    """
    history = []
    for _ in range(20):
        server.tick()
        assert server.loaded
        assert not label or server.labels[label] in server.loaded
        history.append(set(server.loaded))
        updater.step(server.address)
    return history


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tmp_path / "models" / "m"


def start(model: Path) -> tuple[ConfigUpdater, EagerServer]:
    config = model.parents[1] / "models.config"
    updater = ConfigUpdater(find_models(model.parent), config)
    server = EagerServer(config)
    for _ in range(server.LOAD_TICKS):
        server.tick()
    return updater, server


def test_a_label_is_set_once_its_version_is_loaded(model: Path) -> None:
    publish(model, 1, 2, stable=1)
    updater, server = start(model)
    config = model.parents[1] / "models.config"
    assert configured(config) == ([1, 2], {"stable": 1})
    with server:
        publish(model, 3, stable=1, canary=3)
        updater.step(server.address)
        assert configured(config) == ([1, 2, 3], {"stable": 1})
        updater.step(server.address)
        assert configured(config) == ([1, 2, 3], {"stable": 1})
        settle(updater, server, "stable")
        assert configured(config) == ([1, 3], {"stable": 1, "canary": 3})
        publish(model, stable=3, canary=3)
        settle(updater, server, "stable")
        assert configured(config) == ([3], {"stable": 3, "canary": 3})
        assert server.labels == {"stable": 3, "canary": 3}
        assert [link.name for link in (config.parent / "versions" / "m").iterdir()] == ["3"]


@pytest.mark.parametrize(
    ("labels", "to", "label"),
    [
        ({}, None, ""),
        ({"stable": 3}, None, "stable"),
        ({"stable": 3}, 1, "stable"),
        ({"stable": 2, "canary": 3}, None, "canary"),
        ({"stable": 2, "canary": 3}, None, "stable"),
        ({"stable": 3, "canary": 2}, 1, "stable"),
    ],
)
def test_a_rollback_loads_the_older_version_before_the_newer_goes(
    model: Path, labels: dict[str, int], to: int | None, label: str
) -> None:
    publish(model, 1, 2, 3, **labels)
    updater, server = start(model)
    with server:
        settle(updater, server, label)
        older = rollback(str(model.parent), "m", to).number
        settle(updater, server, label)
        assert server.loaded == {older}
        assert server.labels == {name: min(number, older) for name, number in labels.items()}


def test_without_labels_a_new_version_is_loaded_before_the_old_one_goes(model: Path) -> None:
    publish(model, 1)
    updater, server = start(model)
    with server:
        publish(model, 2)
        history = settle(updater, server)
    assert {1, 2} in history
    assert server.loaded == {2}


def test_a_folder_that_is_moved_away_and_back_is_served_throughout(model: Path) -> None:
    publish(model, 1)
    updater, server = start(model)
    with server:
        (model / "1").rename(model.parent / "elsewhere")
        settle(updater, server)
        (model.parent / "elsewhere").rename(model / "1")
        settle(updater, server)
    assert server.loaded == {1}


def test_no_label_is_set_while_the_server_does_not_respond(model: Path) -> None:
    publish(model, 1)
    updater = ConfigUpdater(find_models(model.parent), model.parents[1] / "models.config")
    publish(model, stable=1)
    updater.step("127.0.0.1:1")
    assert configured(model.parents[1] / "models.config") == ([1], {})


@pytest.mark.parametrize("text", ["[]", '{"stable": "x"}', "{"])
def test_malformed_labels_are_bad_input(tmp_path: Path, text: str) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "labels.json").write_text(text)
    with pytest.raises(InputError, match="expected an object of label to version"):
        find_models(tmp_path)
