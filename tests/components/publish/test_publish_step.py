from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from components.publish.publish import Compared, publish
from regraft_core.formats.manifest_storage import MadeBy
from regraft_core.formats.manifests import ParityManifest, PublishedManifest, SavedModelManifest
from regraft_core.formats.options import PublishOptions
from regraft_core.formats.run_outcome import read_last_publication, read_outcome
from regraft_core.runtime.errors import InputError, ParityError
from serving.publishing.publish import read_labels, set_label


def write_parity(folder: Path, digest: str, *, passed: bool = True) -> Path:
    folder.mkdir()
    ParityManifest(
        digest="p" * 64,
        made_by=MadeBy(step="verify", version="0", seconds=2.0),
        saved_model_digest=digest,
        engine="embedded",
        tolerance=1e-4,
        max_abs_diff={"grpc": 1e-7, "rest": 2e-7},
        images=1,
        passed=passed,
        rows=[],
    ).write(folder)
    return folder


def test_a_verified_model_is_published_with_its_record(exported: Path, tmp_path: Path) -> None:
    digest = SavedModelManifest.read(exported).digest
    parity = write_parity(tmp_path / "parity", digest)
    made = publish(exported, parity, tmp_path / "out", str(tmp_path / "models"), "m")

    assert made == PublishedManifest.read(tmp_path / "out")
    assert made.version == 1
    assert Path(made.path) == tmp_path / "models" / "m" / "1"
    assert made.parity == {"grpc": 1e-7, "rest": 2e-7}
    assert SavedModelManifest.read(made.path).digest == digest


@pytest.mark.parametrize(("digest", "passed"), [("other", True), (None, False)])
def test_a_model_that_is_not_verified_is_not_published(
    exported: Path, tmp_path: Path, digest: str | None, passed: bool
) -> None:
    own = SavedModelManifest.read(exported).digest
    parity = write_parity(tmp_path / "parity", digest or own, passed=passed)
    with pytest.raises((ParityError, InputError), match="parity report"):
        publish(exported, parity, tmp_path / "out", str(tmp_path / "models"), "m")
    assert not (tmp_path / "models").exists()
    assert not (tmp_path / "out").exists()


def test_a_second_try_adds_no_version_to_a_bucket(
    exported: Path, tmp_path: Path, bucket: str
) -> None:
    parity = write_parity(tmp_path / "parity", SavedModelManifest.read(exported).digest)
    first, again = (
        publish(exported, parity, tmp_path / name, f"{bucket}/models", "m")
        for name in ("first", "again")
    )
    assert (first.version, again.version) == (1, 1)
    assert again.path == f"{bucket}/models/m/1"


def test_publishing_the_same_model_again_adds_no_version(exported: Path, tmp_path: Path) -> None:
    parity = write_parity(tmp_path / "parity", SavedModelManifest.read(exported).digest)
    destination = str(tmp_path / "models")
    publish(exported, parity, tmp_path / "first", destination, "m")
    options = PublishOptions(version_label="stable")
    again = publish(exported, parity, tmp_path / "again", destination, "m", options)
    assert again.version == 1
    assert read_labels(destination, "m") == {"stable": 1}
    assert [path.name for path in (tmp_path / "models" / "m").iterdir()
            if path.name.isdigit()] == ["1"]  # fmt: skip


def test_the_record_of_a_run_says_whether_it_added_the_version(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parity = write_parity(tmp_path / "parity", SavedModelManifest.read(exported).digest)
    destination = str(tmp_path / "models")
    for run_id in ("run-1", "run-2"):
        publish(exported, parity, tmp_path / run_id, destination, "m", run_id=run_id)
    first, second = (read_outcome(destination, "m", run_id) for run_id in ("run-1", "run-2"))
    assert first is not None and second is not None
    assert (first.version, first.added) == (1, True)
    assert (second.version, second.added) == (1, False)
    added, unchanged = capsys.readouterr().out.splitlines()[-2:]
    assert added.endswith("/models/m/1")
    assert unchanged.endswith("/models/m/1 has this model already; no version was added")


def test_what_is_published_is_recorded_before_the_version(exported: Path, tmp_path: Path) -> None:
    digest = SavedModelManifest.read(exported).digest
    parity = write_parity(tmp_path / "parity", digest)
    destination = str(tmp_path / "models")
    assert read_last_publication(destination, "m") is None
    with pytest.raises(InputError, match="keep_last"):
        publish(exported, parity, tmp_path / "out", destination, "m",
                PublishOptions.model_construct(version_label="", keep_last=-1, model_registry=""),
                compared=Compared("inputs", "", ""))  # fmt: skip
    last = read_last_publication(destination, "m")
    assert last is not None
    assert (last.inputs, last.champion_digest, last.saved_model_digest) == (
        "inputs", "", digest,
    )  # fmt: skip


@pytest.mark.parametrize("other", ["added", "labeled"])
def test_a_model_is_not_published_over_a_champion_that_it_was_not_compared_with(
    exported: Path, tmp_path: Path, other: str
) -> None:
    """Another run publishes, or somebody rolls back, between `evaluate` and `publish`."""
    own = SavedModelManifest.read(exported)
    parity = write_parity(tmp_path / "parity", own.digest)
    destination, champion = str(tmp_path / "models"), str(tmp_path / "models" / "m")
    for number in ("1", "2"):
        copy_of(exported, Path(champion, number), number * 64)
    set_label(destination, "m", "stable", 1)
    compared = Compared("inputs", champion, "1" * 64)
    if other == "added":
        copy_of(exported, Path(champion, "3"), "3" * 64)
        set_label(destination, "m", "stable", 3)
    else:
        set_label(destination, "m", "stable", 2)
    before = sorted(Path(champion).rglob("*"))
    with pytest.raises(InputError, match=r"champion: expected 111111111111, as at the start of the "
                                         r"run, got .*; repeat or resume the run"):  # fmt: skip
        publish(exported, parity, tmp_path / "out", destination, "m", compared=compared)
    assert sorted(Path(champion).rglob("*")) == before
    assert not (tmp_path / "out").exists()
    set_label(destination, "m", "stable", 1)
    publish(exported, parity, tmp_path / "out", destination, "m", compared=compared)


def test_a_repeated_attempt_accepts_its_own_version_as_the_champion(
    exported: Path, tmp_path: Path
) -> None:
    parity = write_parity(tmp_path / "parity", SavedModelManifest.read(exported).digest)
    compared = Compared("inputs", str(tmp_path / "models" / "m"), "")
    for number in ("1", "2"):
        made = publish(exported, parity, tmp_path / number, str(tmp_path / "models"), "m",
                       compared=compared)  # fmt: skip
        assert made.version == 1


def copy_of(exported: Path, version: Path, digest: str) -> None:
    """Write the files of a published version from which a champion is identified."""
    version.mkdir(parents=True)
    shutil.copy(exported / "saved_model.pb", version)
    manifest = SavedModelManifest.read(exported).model_copy(update={"digest": digest})
    manifest.write(version)
