"""A run to review, and what is suspected in it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from regraft.review.decisions import Decisions
from regraft.review.page import render_page
from regraft.review.reviewed_run import ReviewedRun, find_reviewed
from regraft.review.server import ReviewServer
from regraft_core.curation.suspects import Suspect, find_suspects
from tests.reviewable_run import ReviewableRun, build_run


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> ReviewableRun:
    return build_run(tmp_path_factory.mktemp("reviewable"))


@pytest.fixture(scope="module")
def reviewed(built: ReviewableRun) -> ReviewedRun:
    return find_reviewed(built.folder)


@pytest.fixture(scope="module")
def suspects(reviewed: ReviewedRun) -> list[Suspect]:
    return find_suspects(reviewed.dataset, reviewed.features, reviewed.head)


@pytest.fixture
def server(
    reviewed: ReviewedRun, suspects: list[Suspect], tmp_path: Path
) -> Iterator[ReviewServer]:
    """A running server of a review that saves to `fixes.csv` in the test's folder."""
    labels = {one.image.sha256: one.image.label for one in suspects}
    decisions = Decisions(tmp_path / "fixes.csv", labels, reviewed.data.classes, "ann", {})

    def page() -> str:
        return render_page(reviewed, suspects, len(suspects), decisions.fixes, served=True)

    with ReviewServer(0, page, decisions) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join(5)
