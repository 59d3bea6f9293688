from __future__ import annotations

import contextlib
import shutil
import threading
from pathlib import Path

import pytest

from components.publish.publish import Compared, publish
from regraft_core.formats.manifest_storage import MadeBy
from regraft_core.formats.manifests.parity import ParityManifest
from regraft_core.formats.manifests.published import PublishedManifest
from regraft_core.formats.manifests.saved_model import SavedModelManifest
from regraft_core.formats.options.publish import PublishOptions
from regraft_core.formats.run_outcome import LastPublication, read_last_publication, read_outcome
from regraft_core.runtime.errors import InputError, ParityError, RegraftError
from regraft_core.runtime.machine import machine_kind
from serving.publishing.publish import read_labels, set_label


def write_parity(
    folder: Path,
    digest: str,
    *,
    passed: bool = True,
    machine: str | None = None,
    device: str = "CPU",
) -> Path:
    folder.mkdir()
    ParityManifest(
        digest="p" * 64,
        made_by=MadeBy(step="verify", version="0", seconds=2.0),
        saved_model_digest=digest,
        engine="embedded",
        machine=machine_kind() if machine is None else machine,
        device=device,
        tolerance=1e-4,
        max_abs_diff={"grpc": 1e-7, "rest": 2e-7},
        images=1,
        passed=passed,
        rows=[],
    ).write(folder)
    return folder


def test_a_verified_model_is_published_with_its_record(exported: Path, tmp_path: Path) -> None:
    digest = SavedModelManifest.read(exported).digest
    parity = write_parity(tmp_path / "parity", digest, machine="")
    destination = str(tmp_path / "models")
    compared = Compared("inputs", f"{destination}/m", "")
    made = publish(exported, parity, tmp_path / "out", destination, "m", compared=compared)

    assert made == PublishedManifest.read(tmp_path / "out")
    assert made.version == 1
    last = LastPublication(inputs="inputs", champion_digest="", saved_model_digest=digest)
    assert read_last_publication(destination, "m") == last
    again = publish(exported, parity, tmp_path / "again", destination, "m", compared=compared)
    assert again.version == 1, "its own version is the champion now"
    assert Path(made.path) == tmp_path / "models" / "m" / "1"
    assert made.parity == {"grpc": 1e-7, "rest": 2e-7}
    assert SavedModelManifest.read(made.path).digest == digest


@pytest.mark.parametrize(
    ("machine", "device", "loads"),
    [(None, "CPU", False), (None, "NVIDIA H100", True), ("of another kind", "CPU", True)],
)
def test_what_was_served_on_such_a_machine_is_not_loaded_again(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str | None,
    device: str, loads: bool,
) -> None:  # fmt: skip
    def probe(folder: Path) -> None:
        raise RegraftError(f"loaded {folder}")

    monkeypatch.setattr("serving.publishing.publish.probe", probe)
    digest = SavedModelManifest.read(exported).digest
    parity = write_parity(tmp_path / "parity", digest, machine=machine, device=device)
    expected = pytest.raises(RegraftError, match="loaded") if loads else contextlib.nullcontext()
    with expected:
        publish(exported, parity, tmp_path / "out", str(tmp_path / "models"), "m")
    assert (tmp_path / "models" / "m" / "1").exists() is not loads


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


def test_a_champion_that_changes_while_the_model_is_loaded_is_noticed(
    exported: Path, tmp_path: Path
) -> None:
    """Two runs publish at the same time: the second one to be visible is refused."""
    parity = write_parity(tmp_path / "parity", SavedModelManifest.read(exported).digest)
    champion = tmp_path / "models" / "m"

    def publish_another() -> None:
        while not [*champion.glob(".publishing-*")]:
            threading.Event().wait(0.001)
        copy_of(exported, champion / "1", "1" * 64)

    other = threading.Thread(target=publish_another, daemon=True)
    other.start()
    with pytest.raises(InputError, match="champion: expected none, as at the start of the run"):
        publish(exported, parity, tmp_path / "out", str(tmp_path / "models"), "m",
                compared=Compared("inputs", str(champion), ""))  # fmt: skip
    other.join()
    assert sorted(one.name for one in champion.iterdir()) == [".lock", "1"]


def copy_of(exported: Path, version: Path, digest: str) -> None:
    """Write the files of a published version from which a champion is identified."""
    version.mkdir(parents=True)
    shutil.copy(exported / "saved_model.pb", version)
    manifest = SavedModelManifest.read(exported).model_copy(update={"digest": digest})
    manifest.write(version)


def test_a_model_for_bfloat16_needs_a_report_of_it(exported: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(exported, tmp_path / "saved_model"))
    manifest = SavedModelManifest.read(copy)
    manifest.model_copy(update={"serving_precisions": ["float32", "bfloat16"]}).write(copy)
    parity = write_parity(tmp_path / "parity", manifest.digest)
    with pytest.raises(ParityError, match="expected a parity report in bfloat16, too"):
        publish(copy, parity, tmp_path / "out", str(tmp_path / "models"), "m")
