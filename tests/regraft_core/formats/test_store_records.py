"""Which entries of a store a run can use: the same options, and inputs that it can use."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from regraft_core.formats.content_store import ContentStore
from regraft_core.formats.store_records import (
    EntryOrigin,
    StartedRun,
    manifest_of,
    options_digest,
    read_origins,
    read_removal,
    read_runs,
    record_origin,
    record_removal,
    record_run,
    usable_entries,
)
from regraft_core.formats.stored_artifacts import keep, origin_of


def origin(step: str, options: str, *inputs: str) -> EntryOrigin:
    return EntryOrigin(step=step, options=options, inputs=list(inputs))


ORIGINS = {
    "dataset-1": [origin("ingest", "i1"), origin("ingest", "i3")],
    "dataset-2": [origin("ingest", "i2")],
    "features-1": [origin("extract_features", "e1", "dataset-1")],
    "features-2": [origin("extract_features", "e1", "dataset-2")],
    "head-1": [origin("train_head", "h1", "features-1")],
    "candidates-1": [origin("fine_tune", "f1", "dataset-1", "features-1", "head-1")],
}


@pytest.mark.parametrize(
    ("steps", "usable"),
    [
        ({}, set()),
        ({"ingest": "i1"}, {"dataset-1"}),
        ({"ingest": "i3", "extract_features": "e1"}, {"dataset-1", "features-1"}),
        ({"ingest": "i2", "extract_features": "e1", "train_head": "h1", "fine_tune": "f1"},
         {"dataset-2", "features-2"}),
        ({"ingest": "i1", "extract_features": "e1", "train_head": "h2", "fine_tune": "f1"},
         {"dataset-1", "features-1"}),
        ({"ingest": "i1", "extract_features": "e1", "train_head": "h1", "fine_tune": "f1"},
         {"dataset-1", "features-1", "head-1", "candidates-1"}),
        ({"extract_features": "e1"}, set()),
    ],
)  # fmt: skip
def test_a_run_can_use_what_its_options_make(steps: dict[str, str], usable: set[str]) -> None:
    assert usable_entries(ORIGINS, steps) == usable


def test_numbers_that_kubeflow_passes_as_floating_point_are_the_same_options() -> None:
    given = {"a": 1, "b": [1, True], "c": {"d": 2}, "e": "1", "f": None}
    passed = {"f": None, "a": 1.0, "b": [1.0, True], "c": {"d": 2.0}, "e": "1"}
    assert options_digest(given) == options_digest(passed)
    assert options_digest(given) != options_digest(given | {"b": [1, 1]})


@pytest.fixture(params=["folder", "bucket"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The root of an empty store."""
    if request.param == "folder":
        return str(tmp_path / "work")
    request.getfixturevalue("s3")
    import fsspec

    name = f"records-{abs(hash(str(tmp_path))) % 10**9}"
    fsspec.filesystem("s3").mkdir(name)
    return f"s3://{name}/work"


def artifact(folder: Path, uri: str, text: str) -> Any:
    folder.mkdir(parents=True)
    (folder / "thing.json").write_text("{}")
    (folder / "large.bin").write_text(text)
    return SimpleNamespace(path=str(folder), uri=uri)


def check_origins(root: str, folder: Path, *, on_cluster: bool) -> None:
    """Write two entries, the second from the first, and compare what is recorded."""
    options = {"work_dir": root, "number": 1}
    made: list[Any] = []
    for name in ("one", "two"):
        one = artifact(folder / name, f"{'minio://b' if on_cluster else folder}/{name}", name)
        keep(one, f"thing-{name}", "thing.json", origin_of(name, options, *made))
        made.append(SimpleNamespace(path=one.path if on_cluster else one.uri))
    store = ContentStore(root)
    digest = options_digest(options)
    assert read_origins(store) == read_origins(store, {digest}) == {
        "thing-one": [origin("one", digest)], "thing-two": [origin("two", digest, "thing-one")],
    }  # fmt: skip
    assert read_origins(store, {"other"}) == {}


def test_a_step_on_a_cluster_records_what_its_artifacts_refer_to(root: str, tmp_path: Path) -> None:
    check_origins(root, tmp_path / "run", on_cluster=True)


def test_a_step_on_this_machine_records_the_entries_that_it_read(tmp_path: Path) -> None:
    check_origins(str(tmp_path / "work"), tmp_path / "run", on_cluster=False)


def test_another_way_to_make_an_entry_is_added(root: str) -> None:
    store = ContentStore(root)
    for options in ("a", "b", "b"):
        record_origin(store, "dataset-1", origin("ingest", options))
    found = read_origins(store)["dataset-1"]
    assert sorted(one.options for one in found) == ["a", "b"]


def test_runs_and_removals_are_read_back(root: str) -> None:
    store = ContentStore(root)
    run = StartedRun(started=1.5, destination="/m", model_name="m", steps={"ingest": "i1"})
    record_run(store, "run-1", run)
    store.write_record(".runs/other.json", '{"of": "another version"}')
    assert read_runs(store) == {".runs/run-1.json": run}
    assert read_removal(store) == set()
    record_removal(store, ["a", "b"])
    assert read_removal(store) == {"a", "b"}
    store.write_record(".removing.json", '{"at": 1, "names": ["a"]}')
    assert read_removal(store) == set(), "the removal was interrupted long ago"


@pytest.mark.parametrize(
    ("name", "manifest"),
    [("dataset-1f", "dataset.json"), ("saved_model-1f", "regraft.json"), ("head-1f", "model.json"),
     ("train_head-1f", ""), ("fine_tune-top-frozen-1f", "")],
)  # fmt: skip
def test_the_manifest_of_an_entry_follows_from_its_kind(name: str, manifest: str) -> None:
    assert manifest_of(name) == manifest
