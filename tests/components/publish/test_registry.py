"""Published versions are registered; without a reachable registry nothing is published."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from components.publish.publish import publish
from components.publish.registry import Registry, RegistryError
from regraft_core.formats.manifests.saved_model import SavedModelManifest
from regraft_core.formats.options.publish import PublishOptions
from regraft_core.runtime.errors import InputError
from tests.components.publish.model_registry_server import RegistryServer
from tests.components.publish.test_publish_step import write_parity


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    with RegistryServer() as server:
        yield server


def publish_into(exported: Path, tmp_path: Path, address: str) -> None:
    digest = SavedModelManifest.read(exported).digest
    parity = write_parity(tmp_path / "parity", digest)
    publish(exported, parity, tmp_path / "out", str(tmp_path / "models"), "pets",
            PublishOptions(model_registry=address))  # fmt: skip


def test_versions_of_a_model_are_registered(
    exported: Path, tmp_path: Path, registry: RegistryServer
) -> None:
    publish_into(exported, tmp_path, registry.address)
    manifest = SavedModelManifest.read(exported)
    Registry(registry.address).register("pets", 2, "s3://bucket/models/pets/2", manifest)
    (model,) = registry.models.values()
    assert (model["name"], model["owner"]) == ("pets", "regraft")
    first, second = registry.versions.values()
    assert (first["name"], second["name"]) == ("1", "2")
    properties = first["customProperties"]
    assert properties["backbone"]["string_value"] == "tiny"
    assert properties["digest"]["string_value"] == manifest.digest
    artifact, stored = registry.artifacts.values()
    assert stored["uri"] == "s3://bucket/models/pets/2"
    assert artifact["uri"] == (tmp_path / "models" / "pets" / "1").as_uri()
    assert (artifact["modelFormatName"], artifact["modelFormatVersion"]) == ("tensorflow", "2")


def test_publishing_again_after_the_registry_failed_registers_the_version(
    exported: Path, tmp_path: Path, registry: RegistryServer
) -> None:
    registry.fault = ("POST /model_versions", 500)
    with pytest.raises(RegistryError):
        publish_into(exported, tmp_path, registry.address)
    registry.fault = ("", 0)
    parity = tmp_path / "parity"
    for again in ("again", "and-again"):
        publish(exported, parity, tmp_path / again, str(tmp_path / "models"), "pets",
                PublishOptions(model_registry=registry.address))  # fmt: skip
    assert [version["name"] for version in registry.versions.values()] == ["1"]


@pytest.mark.parametrize("status", [401, 500])
def test_nothing_is_published_if_the_registry_fails_first(
    exported: Path, tmp_path: Path, registry: RegistryServer, status: int
) -> None:
    registry.fault = ("GET /registered_models", status)
    with pytest.raises(RegistryError, match=rf"responded {status}: failed on purpose") as caught:
        publish_into(exported, tmp_path, registry.address)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "models").exists()


def test_a_registry_that_fails_afterwards_is_reported_with_the_version(
    exported: Path, tmp_path: Path, registry: RegistryServer
) -> None:
    registry.fault = ("POST /model_versions", 500)
    with pytest.raises(RegistryError, match=r"version 1 is published at .*, but not registered"):
        publish_into(exported, tmp_path, registry.address)
    assert (tmp_path / "models" / "pets" / "1").is_dir()
    assert (tmp_path / "out" / "published.json").is_file()


def test_a_version_is_not_registered_twice(
    exported: Path, tmp_path: Path, registry: RegistryServer
) -> None:
    manifest = SavedModelManifest.read(exported)
    Registry(registry.address).register("pets", 1, "s3://bucket/models/pets/1", manifest)
    with pytest.raises(RegistryError, match="Version 1 already exists"):
        Registry(registry.address).register("pets", 1, "s3://bucket/models/pets/1", manifest)


def test_an_unreachable_registry_publishes_nothing(exported: Path, tmp_path: Path) -> None:
    with RegistryServer() as stopped:
        address = stopped.address
    with pytest.raises(RegistryError, match="Cannot connect"):
        publish_into(exported, tmp_path, address)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("address", ["registry:8080", "http://", "http://user:hunter2@host"])
def test_a_url_is_http_without_secrets(address: str) -> None:
    with pytest.raises(InputError, match=r"expected http\(s\)") as caught:
        Registry(address)
    assert "hunter2" not in str(caught.value)
