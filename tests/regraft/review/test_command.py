"""`regraft review`: its outputs, and the runs that it refuses in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import fsspec
import pytest

from components.ingest.ingest import ingest
from regraft.review.reviewed_run import find_reviewed
from regraft_core.formats.content_store import ContentStore
from regraft_core.formats.fixes import Fix, write_fixes
from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.manifests.evaluation import EvaluationManifest
from regraft_core.formats.manifests.features import FeaturesManifest
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.formats.store_records import (
    EntryOrigin,
    manifest_of,
    read_origins,
    record_origin,
)
from regraft_core.formats.stored_artifacts import refer_to
from tests.command_line import Regraft
from tests.reviewable_run import ENTRIES, MADE_BY, ReviewableRun

WHEN = "2026-11-27T21:50:00Z"


def test_the_list_and_the_page(built: ReviewableRun, tmp_path: Path, regraft: Regraft) -> None:
    listed = regraft("review", built.folder, "--json", "--count", 3).json
    assert len(listed) == 3
    assert {one["image"]["path"] for one in listed} & set(built.flipped)
    ended = regraft("review", built.folder, "--html", tmp_path / "out" / "page.html")
    assert ended.code == 0 and "suspected images" in ended.out
    assert (tmp_path / "out" / "page.html").read_text().count(listed[0]["image"]["sha256"]) >= 2


def test_images_that_were_decided_are_not_shown_again(
    built: ReviewableRun, tmp_path: Path, regraft: Regraft, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run with the fixes of a review: what they settled is not suspected any more."""
    first, second, third, *_ = regraft("review", built.folder, "--json").json
    fixes = [Fix(one["image"]["sha256"], action, one["image"]["label"], "", "ann", WHEN)
             for one, action in ((first, "keep"), (second, "unsure"))]  # fmt: skip
    # The label in the source has changed since, so this one is not applied.
    fixes.append(Fix(third["image"]["sha256"], "drop", "another", "", "ann", WHEN))
    write_fixes(tmp_path / "fixes.csv", fixes)
    run = shutil.copytree(built.folder, tmp_path / "run")
    dataset = run / "steps/by_content" / ENTRIES["dataset"]
    shutil.rmtree(dataset)
    options = IngestOptions(processes=1, test_fraction=0.1, fixes=str(tmp_path / "fixes.csv"))
    ingest([str(built.folder.parent / "images")], dataset, options)
    capsys.readouterr()
    assert set(find_reviewed(run).fixes) == {fix.sha256 for fix in fixes}
    shown = [one["image"]["sha256"] for one in regraft("review", run, "--json").json]
    assert fixes[0].sha256 not in shown
    assert fixes[1].sha256 in shown and fixes[2].sha256 in shown


@pytest.mark.parametrize("kind", ["dataset", "features", "head"])
def test_a_run_without_what_a_review_reads(
    built: ReviewableRun, tmp_path: Path, regraft: Regraft, kind: str
) -> None:
    run = shutil.copytree(built.folder, tmp_path / "run")
    shutil.rmtree(run / "steps/by_content" / ENTRIES[kind])
    ended = regraft("review", run, "--json")
    assert ended.code == 2 and ended.err.count("\n") == 1
    assert f"expected the {kind} of the run" in ended.err and "regraft gc" in ended.err


def test_a_run_whose_content_is_in_a_bucket(
    built: ReviewableRun, tmp_path: Path, regraft: Regraft, s3: None
) -> None:
    """On this machine, the steps' outputs are small files with references."""
    fsspec.filesystem("s3").mkdir("review-store")
    local, store = built.folder / "steps/by_content", ContentStore("s3://review-store/work")
    for name, made in read_origins(ContentStore(str(local))).items():
        for origin in made:
            record_origin(store, name, origin)
    steps = tmp_path / "run/steps/regraft-1"
    for kind in ("dataset", "features", "head"):
        (steps / kind).mkdir(parents=True)
        refer_to(local / ENTRIES[kind], steps / kind, store.location(ENTRIES[kind]), ["*.json"])
        content = shutil.copytree(local / ENTRIES[kind], tmp_path / kind)
        store.add(content, ENTRIES[kind], manifest_of(ENTRIES[kind]))
    (steps / "evaluation").mkdir()
    dataset = DatasetManifest.read(built.dataset)
    EvaluationManifest(
        digest="0" * 64, made_by=MADE_BY, verdict="rejected", checks=[], strategy="head",
        model_digest="m", dataset_digest=dataset.digest, classes=dataset.classes, candidates=[],
        metrics={}, per_class=[], confusion=[],
    ).write(steps / "evaluation")  # fmt: skip
    summary = json.loads((built.folder / "summary.json").read_text())
    summary |= {kind: str(steps / kind) for kind in ("dataset", "evaluation")}
    (tmp_path / "run/summary.json").write_text(json.dumps(summary))
    found = regraft("review", tmp_path / "run", "--json").json
    assert found == regraft("review", built.folder, "--json").json
    fsspec.filesystem("s3").rm("review-store/work", recursive=True)
    ended = regraft("review", tmp_path / "run", "--json")
    assert ended.code == 2 and ended.err.count("\n") == 1
    assert "expected the dataset of the run in s3://review-store/work" in ended.err


def test_a_run_whose_features_several_workers_extracted(
    built: ReviewableRun, tmp_path: Path, regraft: Regraft
) -> None:
    """Their merged copy is in no store, so the model was made from no features of the store."""
    run = shutil.copytree(built.folder, tmp_path / "run")
    store = ContentStore(str(run / "steps/by_content"))
    features = Path(store.location(ENTRIES["features"]))
    whole = FeaturesManifest.read(features)
    for worker in (1, 0):
        name = f"features-{worker}{'1' * 31}"
        part = shutil.copytree(features, store.location(name))
        shards = [one for one in whole.shards if (one.split == "train") == (worker == 0)]
        changed = {"shard_index": worker, "shard_count": 2, "shards": shards}
        whole.model_copy(update=changed).write(Path(part))
        record_origin(store, name, EntryOrigin(step="extract_features", options="0",
                                               inputs=[ENTRIES["dataset"]]))  # fmt: skip
    origins = run / "steps/by_content/.origins"
    for made in (ENTRIES["features"], ENTRIES["candidates"]):
        shutil.rmtree(origins / made)
    shutil.rmtree(features)
    record_origin(store, ENTRIES["candidates"], EntryOrigin(
        step="fine_tune", options="0", inputs=[ENTRIES["dataset"], ENTRIES["head"]]))  # fmt: skip
    found = regraft("review", run, "--json").json
    assert found == regraft("review", built.folder, "--json").json


def test_a_folder_that_is_no_run(tmp_path: Path, regraft: Regraft) -> None:
    ended = regraft("review", tmp_path)
    assert ended.code == 2 and "expected the summary of a run" in ended.err
