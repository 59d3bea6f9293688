"""models.config while labels and versions change, with a server that reports loaded versions."""

from __future__ import annotations

import http.server
import json
from pathlib import Path

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from regraft_core.runtime.errors import InputError
from serving.running.model_discovery import ConfigUpdater, find_models, models_config
from tests.local_server import LocalServer, write_response


class StatusServer(LocalServer):
    """Responds to every status request with the versions in `loaded`."""

    loaded: tuple[int, ...] = ()

    def respond(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        ok = {"error_code": "OK", "error_message": ""}
        states = [{"version": str(number), "state": "AVAILABLE", "status": ok}
                  for number in self.loaded]  # fmt: skip
        write_response(handler, 200, {}, json.dumps({"model_version_status": states}).encode())


def configured(config: Path) -> tuple[list[int], dict[str, int]]:
    """Return versions and labels of the only model of a models.config."""
    parsed = text_format.Parse(config.read_text(), model_server_config_pb2.ModelServerConfig())
    (model,) = parsed.model_config_list.config
    return list(model.model_version_policy.specific.versions), dict(model.version_labels)


def test_all_models_below_a_folder_are_found(tmp_path: Path) -> None:
    for name in ("a/1", "a/2", "b/7", "none", ".hidden"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a" / "labels.json").write_text('{"stable": 1, "canary": 9}')
    models = find_models(tmp_path)
    assert [(m.name, m.labels) for m in models] == [("a", {"stable": 1}), ("b", {})]
    text = models_config(models)
    assert "specific { versions: 1 versions: 2 }" in text
    assert [m.name for m in find_models(tmp_path / "b")] == ["b"]
    with pytest.raises(InputError, match="found no version"):
        find_models(tmp_path / "none")


def test_a_label_is_set_once_its_version_is_loaded(tmp_path: Path) -> None:
    config, model = tmp_path / "models.config", tmp_path / "models" / "m"

    def label(**labels: int) -> None:
        (model / "labels.json").write_text(json.dumps(labels))

    for number in (1, 2):
        (model / str(number)).mkdir(parents=True)
    label(stable=1)
    updater = ConfigUpdater(find_models(tmp_path / "models"), config)
    assert configured(config) == ([1, 2], {"stable": 1})
    with StatusServer() as server:
        (model / "3").mkdir()
        label(stable=1, canary=3)
        server.loaded = (1, 2)
        updater.step(server.address)
        assert configured(config) == ([1, 2, 3], {"stable": 1})
        server.loaded = (1, 2, 3)
        updater.step(server.address)
        assert configured(config) == ([1, 3], {"stable": 1, "canary": 3})
        label(stable=3, canary=3)
        updater.step(server.address)
        assert configured(config) == ([3], {"stable": 3, "canary": 3})
        (model / "3").rename(model / ".withdrawn-3")
        label(stable=2, canary=2)
        server.loaded = (2, 3)
        updater.step(server.address)
        assert configured(config) == ([2], {"stable": 2, "canary": 2})


def test_without_labels_the_file_does_not_change(tmp_path: Path) -> None:
    (tmp_path / "models" / "m" / "1").mkdir(parents=True)
    updater = ConfigUpdater(find_models(tmp_path / "models"), tmp_path / "models.config")
    before = (tmp_path / "models.config").stat()
    (tmp_path / "models" / "m" / "2").mkdir()
    updater.step("127.0.0.1:1")  # no request is sent
    assert (tmp_path / "models.config").stat().st_mtime_ns == before.st_mtime_ns
    assert configured(tmp_path / "models.config") == ([], {})


def test_no_label_is_set_while_the_server_does_not_respond(tmp_path: Path) -> None:
    model = tmp_path / "models" / "m"
    (model / "1").mkdir(parents=True)
    updater = ConfigUpdater(find_models(tmp_path / "models"), tmp_path / "models.config")
    (model / "labels.json").write_text('{"stable": 1}')
    updater.step("127.0.0.1:1")
    assert configured(tmp_path / "models.config") == ([1], {})


@pytest.mark.parametrize("text", ["[]", '{"stable": "x"}', "{"])
def test_malformed_labels_are_bad_input(tmp_path: Path, text: str) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "labels.json").write_text(text)
    with pytest.raises(InputError, match="expected an object of label to version"):
        find_models(tmp_path)
