"""`regraft review`: its outputs, and the runs that it refuses in one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from components.ingest.ingest import ingest
from regraft.review.reviewed_run import find_reviewed
from regraft_core.formats.fixes import Fix, write_fixes
from regraft_core.formats.options import IngestOptions
from tests.command_line import Regraft
from tests.reviewable_run import ENTRIES, ReviewableRun

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


def test_a_folder_that_is_no_run(tmp_path: Path, regraft: Regraft) -> None:
    ended = regraft("review", tmp_path)
    assert ended.code == 2 and "expected the summary of a run" in ended.err
