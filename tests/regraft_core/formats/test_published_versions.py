"""The production version of a model in a folder or an object store, and its copy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from regraft_core.formats.fingerprint import check_fingerprint, write_fingerprint
from regraft_core.formats.manifest_storage import MadeBy
from regraft_core.formats.manifests.model import Preprocessing
from regraft_core.formats.manifests.saved_model import SavedModelManifest
from regraft_core.formats.published_versions import GRAPH_FILE, production_version, resolve_version
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.object_stores import open_store_uri


@pytest.mark.parametrize(
    ("versions", "labels", "expected"),
    [
        ([], {}, None),
        ([], {"stable": 1}, None),
        ([1, 2, 10], {}, 10),
        ([1, 2, 10], {"canary": 10}, 10),
        ([1, 2, 10], {"stable": 2, "canary": 10}, 2),
        ([3, 10], {"stable": 2}, 10),
    ],
)
def test_the_stable_version_is_in_production_otherwise_the_latest(
    versions: list[int], labels: dict[str, int], expected: int | None
) -> None:
    assert production_version(versions, labels) == expected


def write_model(folder: Path) -> Path:
    (folder / "variables").mkdir(parents=True)
    (folder / GRAPH_FILE).write_bytes(b"graph")
    (folder / "variables" / "data").write_bytes(b"weights")
    SavedModelManifest(
        digest=write_fingerprint(folder),
        made_by=MadeBy(step="export", version="0", seconds=1.0),
        model_digest="m" * 64, evaluation_digest="e" * 64, dataset_digest="d" * 64,
        strategy="head", backbone="tiny", weights_digest="w" * 64, classes=["a", "b"],
        preprocessing=Preprocessing(image_px=8, scaling="tiny"), temperature=1.0, metrics={},
        checks=[], signatures=["serving_default"], versions={},
    ).write(folder)  # fmt: skip
    return folder


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A model `m` with the versions 1, 2 and 10, an incomplete one, and a withdrawn one."""
    model = tmp_path / "models" / "m"
    for number in (1, 2, 10):
        write_model(model / str(number))
    (model / "11").mkdir()
    (model / "11" / "labels.txt").write_text("a")
    shutil.copytree(model / "10", model / ".withdrawn-12")
    return model


def upload(folder: Path, uri: str) -> str:
    store, path = open_store_uri(uri)
    for file in folder.rglob("*"):
        if file.is_file():
            store.pipe_file(f"{path}/{file.relative_to(folder)}", file.read_bytes())
    return uri


def test_the_production_version_of_a_bucket(bucket: str, models: Path, tmp_path: Path) -> None:
    uri = upload(models, f"{bucket}/some/m")
    latest = resolve_version(uri, tmp_path / "latest")
    assert latest == tmp_path / "latest" / "m" / "10"
    check_fingerprint(latest)
    (models / "labels.json").write_text('{"stable": 2}')
    upload(models, uri)
    assert resolve_version(uri, tmp_path / "stable") == tmp_path / "stable" / "m" / "2"
    one = resolve_version(f"{uri}/1/", tmp_path / "one")
    assert one == tmp_path / "one" / "m" / "1"


def test_the_production_version_of_a_folder(models: Path, tmp_path: Path) -> None:
    assert resolve_version(str(models), tmp_path) == models / "10"
    (models / "labels.json").write_text('{"stable": 2}')
    assert resolve_version(f"file://{models}", tmp_path) == models / "2"
    assert resolve_version(str(models / "1"), tmp_path) == models / "1"


def test_a_location_without_versions_has_no_production_version(bucket: str, tmp_path: Path) -> None:
    store, path = open_store_uri(bucket)
    store.pipe_file(f"{path}/half/1/variables", b"x")
    for location in (f"{bucket}/none", f"{bucket}/half", f"{bucket}-of-nobody/m"):
        assert resolve_version(location, tmp_path / "work") is None
    assert not (tmp_path / "work").exists()


def test_a_damaged_version_is_an_error(bucket: str, models: Path, tmp_path: Path) -> None:
    uri = upload(models / "1", f"{bucket}/m/1")
    store, path = open_store_uri(uri)
    store.pipe_file(f"{path}/variables/data", b"weighte")
    with pytest.raises(InputError, match="variables/data is damaged"):
        resolve_version(f"{bucket}/m", tmp_path / "work")
    store.rm_file(f"{path}/variables/data")
    with pytest.raises(InputError, match="expected the file variables/data, found none"):
        resolve_version(f"{bucket}/m", tmp_path / "again")


def test_a_store_that_does_not_respond_is_an_error(
    s3: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    store = open_store_uri("s3://unreachable")[0].__class__
    store.clear_instance_cache()
    with pytest.raises(InputError, match=r"cannot read s3://unreachable/m: .*127\.0\.0\.1"):
        resolve_version("s3://unreachable/m", tmp_path)
    store.clear_instance_cache()
