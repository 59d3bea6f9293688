"""Names of version folders: ASCII digits in TF Serving's range, wherever versions are listed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from regraft.explore.inspection import InspectOptions, inspect_model
from regraft.model_folder import models_in, versions_in
from regraft_core.formats.published_versions import locate_version
from regraft_core.formats.version_names import version_names, version_number
from regraft_core.runtime.errors import InputError
from serving.publishing.folder_store import FolderStore
from serving.publishing.publish import open_store
from serving.running.model_discovery import find_models
from serving.running.runner import find_base_path
from serving.server.models.lifecycle import find_versions

LARGEST = 2**63 - 1
OTHER_NAMES = ("²", "٣", "1²", "-1", "+1", "1_0", " 1", "1.0", "", "9" * 300, str(LARGEST + 1))


@pytest.mark.parametrize(
    ("name", "number"),
    [("1", 1), ("0", 0), ("007", 7), (str(LARGEST), LARGEST), *((n, None) for n in OTHER_NAMES)],
)
def test_a_version_is_a_number_of_tf_serving(name: str, number: int | None) -> None:
    assert version_number(name) == number


def test_versions_are_sorted_by_number_and_the_shorter_name_wins() -> None:
    found = version_names(["10", "02", "²", "2", "labels.json"])
    assert list(found.items()) == [(2, "2"), (10, "10")]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Folders of one model: versions 2 and 10, and names that only resemble versions."""
    for name in ("2", "10", "²", "٣", str(LARGEST + 1), ".withdrawn-²"):
        (tmp_path / "models" / "pets" / name).mkdir(parents=True)
        (tmp_path / "models" / "pets" / name / "saved_model.pb").write_bytes(b"graph")
    return tmp_path / "models"


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        (lambda models: FolderStore(models / "pets").versions(), [2, 10]),
        (lambda models: FolderStore(models / "pets")._used_numbers(), [2, 10]),
        (lambda models: locate_version(str(models / "pets"))[0].rsplit("/", 1)[1], "10"),
        (lambda models: [*find_versions(models / "pets")], [2, 10]),
        (lambda models: versions_in(models / "pets"), [2, 10]),
        (models_in, ["pets"]),
        (lambda models: [one.name for one in find_models(models)], ["pets"]),
        (lambda models: find_base_path(models, "pets").name, "pets"),
    ],
)
def test_other_names_are_no_versions_in_a_folder(
    models: Path, listed: Callable[[Path], Any], expected: Any
) -> None:
    assert listed(models) == expected


def test_other_names_are_no_versions_in_a_bucket(models: Path, s3: None) -> None:
    store = fsspec.filesystem("s3")
    store.mkdir("version-names")
    store.put(str(models), "version-names/", recursive=True)
    store.pipe_file("version-names/models/pets/.claims/³", b"")
    assert open_store("s3://version-names/models", "pets").versions() == [2, 10]
    located = locate_version("s3://version-names/models/pets")
    assert located is not None and located[0] == "s3://version-names/models/pets/10"


def test_a_version_with_leading_zeros_is_found_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "007").mkdir()
    (tmp_path / "007" / "saved_model.pb").write_bytes(b"graph")
    located = locate_version(str(tmp_path))
    assert located is not None and located[0] == str(tmp_path / "007")


def test_a_folder_without_versions_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "²").mkdir()
    with pytest.raises(InputError, match="expected version folders"):
        find_base_path(tmp_path, "pets")
    with pytest.raises(InputError, match="got the folder"):
        inspect_model(str(tmp_path), InspectOptions())
