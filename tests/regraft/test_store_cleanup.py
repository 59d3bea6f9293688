"""What `regraft gc` removes, and what it never removes, in a folder and in a bucket."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from regraft.store_cleanup import DAY_S, Cleanup, clean_up
from regraft_core.formats.content_store import ContentStore
from regraft_core.formats.manifest_storage import MadeBy
from regraft_core.formats.manifests.model import Preprocessing
from regraft_core.formats.manifests.saved_model import SavedModelManifest
from regraft_core.formats.store_records import (
    EntryOrigin,
    StartedRun,
    read_removal,
    read_runs,
    record_origin,
    record_run,
)
from tests.command_line import Regraft

OLD_DAYS = 100.0
MANIFESTS = {"dataset": "dataset.json", "features": "features.json", "head": "model.json",
             "saved_model": "regraft.json", "evaluation": "evaluation.json"}  # fmt: skip


def entry(kind: str, digit: str) -> str:
    return f"{kind}-{digit * 32}"


class Store:
    """A store in a folder, in which time can be set back."""

    def __init__(self, folder: Path, destination: str = "") -> None:
        self.folder, self.destination = folder, destination
        self.store = ContentStore(str(folder))
        self.store.generation()

    def add(self, name: str, days: float = OLD_DAYS, *, complete: bool = True) -> str:
        """Add an entry of 1,000 bytes that changed some days ago."""
        manifest = MANIFESTS.get(name.rpartition("-")[0], "checkpoint.json")
        self.store.write_record(f"{name}/large.bin", "x" * 998)
        if complete:
            self.store.write_record(f"{name}/{manifest}", "{}")
        for file in (self.folder / name).iterdir():
            os.utime(file, times=(time.time() - days * DAY_S,) * 2)
        return name

    def run(self, run: str, days: float, made: Iterable[str], model: str = "m") -> None:
        """Record a run that made entries, each from all entries before."""
        inputs: list[str] = []
        for name in made:
            step = name.split("-")[0]
            origin = EntryOrigin(step=step, options=run, inputs=list(inputs))
            record_origin(self.store, name, origin)
            inputs.append(name)
        steps = {name.split("-")[0]: run for name in made}
        started = StartedRun(started=time.time() - days * DAY_S, destination=self.destination,
                             model_name=model, steps=steps)  # fmt: skip
        record_run(self.store, run, started)

    def names(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()
                if path.is_dir() and path.name not in (".origins", ".runs")}  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store, whose runs publish to a folder."""
    return Store(tmp_path / "work", str(tmp_path / "models"))


def removed(cleanup: Cleanup) -> set[str]:
    return {one.name for one in cleanup.removed}


def test_content_of_a_replaced_run_is_removed(store: Store) -> None:
    shared, old, new = (store.add(entry(kind, digit)) for kind, digit in
                        (("dataset", "a"), ("features", "b"), ("features", "c")))  # fmt: skip
    store.run("first", 90, [shared, old])
    store.run("second", 80, [shared, new])
    found = clean_up(store.store, 30, dry_run=True)
    assert (removed(found), found.removed_bytes) == ({old}, 1000)
    assert (found.kept, found.kept_bytes) == (2, 2000)
    assert store.names() == {shared, old, new}
    assert set(read_runs(store.store)) == {".runs/first.json", ".runs/second.json"}
    assert clean_up(store.store, 30, dry_run=False) == found
    assert store.names() == {shared, new}
    assert set(read_runs(store.store)) == {".runs/second.json"}
    assert read_removal(store.store) == set()
    assert removed(clean_up(store.store, 30, dry_run=False)) == set()


def test_the_latest_run_of_each_model_keeps_its_content(store: Store) -> None:
    one, two = store.add(entry("dataset", "a")), store.add(entry("dataset", "b"))
    store.run("one", 90, [one], model="one")
    store.run("two", 80, [two], model="two")
    assert removed(clean_up(store.store, 1, dry_run=True)) == set()


@pytest.mark.parametrize(("days", "gone"), [(29.0, False), (31.0, True)])
def test_a_run_in_progress_keeps_old_content_that_the_cache_may_return(
    store: Store, days: float, gone: bool
) -> None:
    """It has made nothing yet: the entries were made long ago, by a run with the same options."""
    old = store.add(entry("dataset", "a"))
    store.run("same", days, [old])
    store.run("later", 1, [store.add(entry("dataset", "b"))])
    assert removed(clean_up(store.store, 30, dry_run=True)) == ({old} if gone else set())


@pytest.mark.parametrize(
    ("name", "days", "complete", "gone"),
    [
        (entry("features", "a"), 0.9, True, False),
        (entry("features", "a"), 1.1, True, True),
        (entry("features", "a"), 29.0, False, False),
        (entry("features", "a"), 31.0, False, True),
        (entry("train_head", "a"), 29.0, True, False),
        (entry("fine_tune-top-frozen", "a"), 31.0, True, True),
        (f".{entry('features', 'a')}.0123abcd", 0.9, False, False),
        (f".{entry('features', 'a')}.0123abcd", 1.1, False, True),
        ("photographs", 99.0, True, False),
    ],
)
def test_unnamed_content_stays_for_some_time(
    store: Store, name: str, days: float, complete: bool, gone: bool
) -> None:
    store.add(name, days, complete=complete)
    found = clean_up(store.store, 30, dry_run=False)
    assert removed(found) == ({name} if gone else set())
    assert store.names() == (set() if gone else {name})


def test_a_run_that_starts_while_content_is_removed_keeps_its_own(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from regraft import store_cleanup

    mine, other = store.add(entry("dataset", "a")), store.add(entry("dataset", "b"))
    announce = store_cleanup.record_removal

    def start_a_run(content: ContentStore, names: list[str]) -> None:
        announce(content, names)
        if mine in names:
            store.run("new", 0, [mine])

    monkeypatch.setattr(store_cleanup, "record_removal", start_a_run)
    assert removed(clean_up(store.store, 30, dry_run=False)) == {other}
    assert store.names() == {mine}


def publish(folder: Path) -> SavedModelManifest:
    """Write the files of a published version that name content."""
    manifest = SavedModelManifest(
        digest="c" * 64, made_by=MadeBy(step="export", version="0", seconds=1.0),
        model_digest="m" * 64, evaluation_digest="e" * 64, dataset_digest="d" * 64,
        strategy="head", backbone="tiny", weights_digest="w" * 64, classes=["a", "b"],
        preprocessing=Preprocessing(image_px=32, scaling="tiny"), temperature=1.0, metrics={},
        checks=[], signatures=[], versions={},
    )  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").touch()
    manifest.write(folder)
    return manifest


def test_published_versions_keep_what_they_were_made_from(store: Store, tmp_path: Path) -> None:
    version = tmp_path / "models" / "m" / "1"
    publish(version)
    made = [store.add(entry(kind, digit)) for kind, digit in
            (("dataset", "a"), ("features", "a"), ("head", "a"), ("saved_model", "c"))]  # fmt: skip
    evaluation = store.add(entry("evaluation", "e"))
    store.run("published", 90, made)
    origin = EntryOrigin(step="export", options="o", inputs=[entry("dataset", "a")])
    features, head = made[1:3]
    for file in (store.folder / ".origins" / entry("saved_model", "c")).iterdir():
        file.unlink()
    record_origin(store.store, entry("saved_model", "c"), origin)
    store.run("later", 80, [store.add(entry("dataset", "b"))])
    assert removed(clean_up(store.store, 30, dry_run=True)) == {features, head}
    version.rename(version.with_name("withdrawn"))
    assert removed(clean_up(store.store, 30, dry_run=True)) == {*made, evaluation}


def test_a_destination_that_is_not_here_is_noted(store: Store) -> None:
    store.run("one", 1, [store.add(entry("dataset", "a"))])
    (note,) = clean_up(store.store, 30, dry_run=True).notes
    assert note.startswith(f"{store.destination}: no folder on this machine")


def test_a_bucket_is_cleaned(s3: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    from regraft import store_cleanup

    fsspec.filesystem("s3").mkdir("cleaned")
    content = ContentStore("s3://cleaned/work")
    content.generation()
    old, new = entry("dataset", "a"), entry("dataset", "b")
    for name in (old, new):
        content.write_record(f"{name}/dataset.json", "{}")
    record_origin(content, new, EntryOrigin(step="ingest", options="i", inputs=[]))
    run = StartedRun(started=1.0, destination="", model_name="m", steps={"ingest": "i"})
    record_run(content, "run", run)
    assert removed(clean_up(content, 30, dry_run=False)) == set(), "all is new"
    later = time.time() + 2 * DAY_S
    monkeypatch.setattr(store_cleanup.time, "time", lambda: later)
    assert removed(clean_up(content, 30, dry_run=False)) == {old}
    assert [name for name in content.usage() if not name.startswith(".")] == [new]


def test_the_command_finds_the_store_of_a_run(
    regraft: Regraft, store: Store, tmp_path: Path
) -> None:
    inside = Store(tmp_path / "run" / "steps" / "by_content")
    name = inside.add(entry("features", "a"))
    shown = regraft("gc", tmp_path / "run", "--dry-run")
    assert shown.code == 0
    assert name in shown.out and "would free 0.0 MB in 1 entries" in shown.out
    assert inside.names() == {name}
    freed = regraft("gc", tmp_path / "run" / "steps" / "by_content", "--json")
    assert (freed.code, freed.json["removed_bytes"], freed.json["dry_run"]) == (0, 1000, False)
    assert inside.names() == set()


@pytest.mark.parametrize(
    ("location", "more", "message"),
    [
        ("{tmp}", [], "location: expected the folder of a run or a --work-dir, found no store"),
        ("{tmp}/nothing", [], "location: expected the folder of a run"),
        ("{tmp}/work", ["--keep-days", "0.5"], "keep_days: expected 1 or more, got 0.5"),
        ("{tmp}/work", ["--keep-days", "nan"], "keep_days: expected 1 or more, got nan"),
        ("s4://bucket/work", [], "cannot open s4://"),
    ],
)
def test_invalid_input_is_one_line(
    regraft: Regraft, store: Store, tmp_path: Path, location: str, more: list[str], message: str
) -> None:
    ended = regraft("gc", location.replace("{tmp}", str(tmp_path)), *more)
    assert ended.code == 2
    assert message in ended.err and ended.err.count("\n") == 1
