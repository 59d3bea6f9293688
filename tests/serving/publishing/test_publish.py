"""Publishing to a folder: versions, labels, rollback, retention, and rejected models."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from regraft_core.formats.fingerprint import check_fingerprint
from regraft_core.formats.manifests.saved_model import SavedModelManifest
from regraft_core.runtime.errors import InputError, RegraftError
from serving.publishing.publish import (
    delete_old_versions,
    open_store,
    publish_saved_model,
    publish_version,
    read_labels,
    rollback,
    set_label,
)
from serving.publishing.servable_check import replay
from serving.running.model_discovery import find_models
from tests.exported_model import write_warmup


@pytest.fixture
def models(tmp_path: Path) -> str:
    return str(tmp_path / "models")


def add(exported: Path, models: str) -> int:
    """Publish without loading the model, which takes seconds."""
    return open_store(models, "m").add(exported, check_fingerprint)


def visible(models: str) -> list[str]:
    return sorted(p.name for p in (Path(models) / "m").iterdir() if not p.name.startswith("."))


def test_a_warm_up_request_that_the_batching_file_refuses_is_an_error(exported: Path) -> None:
    write_warmup(exported, 3.0, rows=1024)
    assert replay(exported) == 1
    write_warmup(exported, 3.0, rows=1025)
    with pytest.raises(InputError, match="serving_default: expected warm-up requests of at most"):
        replay(exported)


def test_versions_grow_and_equal_the_export(exported: Path, models: str) -> None:
    assert add(exported, models) == 1
    second = publish_saved_model(exported, models, "m")
    assert second.number == 2
    assert visible(models) == ["1", "2"]
    check_fingerprint(second.path)
    assert not list((Path(models) / "m").glob(".publishing-*"))


def test_a_version_that_is_not_confirmed_is_never_visible(
    exported: Path, models: str, bucket: str
) -> None:
    """It is confirmed after all other work, while others cannot change labels in a folder."""
    for destination in (models, bucket):
        store = open_store(destination, "m")

        def refuse(destination: str = destination) -> None:
            if destination == models:
                with open(Path(models) / "m" / ".lock") as lock, pytest.raises(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            raise InputError("the champion has changed")

        with pytest.raises(InputError, match="the champion has changed"):
            store.add(exported, check_fingerprint, refuse)
        assert store.versions() == []
    assert visible(models) == []
    assert not list((Path(models) / "m").glob(".publishing-*"))


def test_a_version_that_exists_is_never_overwritten(exported: Path, models: str) -> None:
    other = Path(models) / "m" / "7"
    other.mkdir(parents=True)
    (other / "foreign.txt").write_text("keep")
    assert add(exported, models) == 8
    assert (other / "foreign.txt").read_text() == "keep"


def test_a_flipped_bit_is_found_and_nothing_is_published(exported: Path, models: str) -> None:
    data = exported / "variables" / "variables.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    with pytest.raises(InputError, match=r"variables\.data-00000-of-00001 is damaged"):
        publish_version(exported, models, "m")
    assert not Path(models).exists()


def test_a_model_that_does_not_load_is_not_published(
    exported: Path, models: str, reseal: Callable[[Path], SavedModelManifest]
) -> None:
    (exported / "variables" / "variables.index").unlink()
    reseal(exported)
    with pytest.raises(RegraftError, match="does not serve"):
        publish_version(exported, models, "m")
    assert visible(models) == []
    assert not list((Path(models) / "m").glob(".publishing-*"))


def test_missing_and_added_files_are_found(exported: Path) -> None:
    (exported / "assets.extra" / "note.txt").write_text("x")
    with pytest.raises(InputError, match=r"assets\.extra/note\.txt is not part"):
        check_fingerprint(exported)
    (exported / "assets.extra" / "note.txt").unlink()
    (exported / "assets.extra" / "tf_serving_warmup_requests").unlink()
    with pytest.raises(InputError, match=r"expected the file assets\.extra"):
        check_fingerprint(exported)


@pytest.mark.parametrize("name", ["", "../up", "a/b", "12", ".hidden"])
def test_invalid_names_are_rejected(exported: Path, models: str, name: str) -> None:
    with pytest.raises(InputError, match="name: expected"):
        publish_version(exported, models, name)


def test_labels_follow_publishing_and_rollback(exported: Path, models: str) -> None:
    publish_saved_model(exported, models, "m", label="stable")
    set_label(models, "m", "canary", add(exported, models))
    assert read_labels(models, "m") == {"stable": 1, "canary": 2}
    set_label(models, "m", "stable")
    assert read_labels(models, "m") == {"stable": 2, "canary": 2}
    assert list(json.loads(Path(models, "m", "labels.json").read_text())) == ["canary", "stable"]

    assert rollback(models, "m").number == 1
    assert read_labels(models, "m") == {"stable": 1, "canary": 1}
    assert visible(models) == ["1", "labels.json"]
    with pytest.raises(InputError, match="two versions or more"):
        rollback(models, "m")
    # The number of the withdrawn version is not used again.
    assert add(exported, models) == 3


def test_rollback_withdraws_the_latest_version_or_all_after_a_version(
    exported: Path, models: str
) -> None:
    for _ in range(5):
        add(exported, models)
    assert set_label(models, "m", "stable").number == 5
    set_label(models, "m", "canary", 1)
    assert rollback(models, "m").number == 4
    version = rollback(models, "m", to=2)
    assert (version.number, version.path) == (2, f"{models}/m/2")
    assert visible(models) == ["1", "2", "labels.json"]
    assert read_labels(models, "m") == {"stable": 2, "canary": 1}
    withdrawn = Path(models, "m").glob(".withdrawn-*/saved_model.pb")
    assert sorted(path.parent.name[-1] for path in withdrawn) == ["3", "4", "5"]


def test_a_label_of_a_missing_version_is_not_read(exported: Path, models: str) -> None:
    set_label(models, "m", "stable", add(exported, models))
    set_label(models, "m", "canary", add(exported, models))
    shutil.rmtree(Path(models, "m", "2"))
    assert read_labels(models, "m") == {"stable": 1}


def test_invalid_labels_and_versions_are_rejected(exported: Path, models: str) -> None:
    with pytest.raises(InputError, match="did you mean stable"):
        publish_saved_model(exported, models, "m", label="stabel")
    assert not Path(models).exists()
    with pytest.raises(InputError, match="found none"):
        set_label(models, "m", "stable")
    add(exported, models)
    with pytest.raises(InputError, match=r"expected one of the versions \[1\], got 4"):
        set_label(models, "m", "stable", 4)
    with pytest.raises(InputError, match=r"expected two versions or more .* got \[1\]"):
        rollback(models, "m")
    with pytest.raises(InputError, match="already the latest"):
        rollback(models, "m", to=1)
    add(exported, models)
    with pytest.raises(InputError, match="already the latest"):
        rollback(models, "m", to=2)


def test_keep_last_keeps_labeled_versions(exported: Path, models: str) -> None:
    set_label(models, "m", "stable", add(exported, models))
    for _ in range(2):
        add(exported, models)
    publish_saved_model(exported, models, "m", keep_last=2)
    assert visible(models) == ["1", "3", "4", "labels.json"]
    assert delete_old_versions(models, "m", 1) == [3]
    with pytest.raises(InputError, match="expected 0 or more, got -1"):
        publish_saved_model(exported, models, "m", keep_last=-1)
    with pytest.raises(InputError, match="expected 1 or more, got 0"):
        delete_old_versions(models, "m", 0)
    assert visible(models) == ["1", "4", "labels.json"]


def test_a_published_version_is_readable_by_servers_of_other_users(
    exported: Path, models: str
) -> None:
    exported.chmod(0o700)
    number = add(exported, models)
    assert Path(models, "m", str(number)).stat().st_mode & 0o777 == 0o755


def test_abandoned_folders_are_deleted_but_not_those_of_running_publishers(
    exported: Path, models: str
) -> None:
    add(exported, models)
    running = []
    for name in (".publishing-1", ".publishing-2", ".publishing-3", ".publishing-4", ".retired-5"):
        Path(models, "m", name, "1").mkdir(parents=True)
        if name in (".publishing-2", ".publishing-3"):
            running.append(os.open(Path(models, "m", name), os.O_RDONLY))
            fcntl.flock(running[-1], fcntl.LOCK_EX)
    add(exported, models)
    hidden = {path.name for path in Path(models, "m").glob(".*")}
    assert hidden == {".lock", ".publishing-2", ".publishing-3"}
    for held in running:
        os.close(held)
    add(exported, models)
    assert {path.name for path in Path(models, "m").glob(".*")} == {".lock"}


def test_a_removed_version_leaves_nothing_behind(exported: Path, models: str) -> None:
    for _ in range(3):
        add(exported, models)
    assert delete_old_versions(models, "m", 1) == [1, 2]
    assert {path.name for path in Path(models, "m").iterdir()} == {".lock", "3"}


def test_labels_are_written_to_the_configuration_of_tf_serving(exported: Path, models: str) -> None:
    for _ in range(4):
        add(exported, models)
    set_label(models, "m", "stable", 2)
    set_label(models, "m", "canary", 3)
    (model,) = find_models(models)
    assert (model.name, str(model.path)) == ("m", f"{models}/m")
    assert model.versions == {2, 3, 4}
    assert model.labels == {"stable": 2, "canary": 3}
