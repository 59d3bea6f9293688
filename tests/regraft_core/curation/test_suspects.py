"""The suspected images of a dataset with known problems."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from regraft_core.curation.suspects import LABEL_CONFLICT, LABEL_ERROR, OUTLIER, find_suspects
from regraft_core.runtime.errors import InputError
from tests.reviewable_run import ReviewableRun, build_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> ReviewableRun:
    return build_run(tmp_path_factory.mktemp("reviewable"))


def test_problems_are_found_in_the_order_of_harm(run: ReviewableRun) -> None:
    found = find_suspects(run.dataset, [run.features], run.head)
    kinds = {one.image.path: [finding.kind for finding in one.findings] for one in found}
    assert {path for path, names in kinds.items() if LABEL_ERROR in names} >= set(run.flipped)
    for one in found:
        if one.image.path in run.flipped:
            assert one.better == one.predicted[0][0] == run.flipped[one.image.path]
            assert one.image.label == one.image.path.split("/")[0]
    assert LABEL_CONFLICT in kinds[run.copy] and LABEL_CONFLICT in kinds[run.copied]
    [conflict] = [one for one in found if one.image.path == run.copied]
    assert any(run.copy in finding.text for finding in conflict.findings)
    assert OUTLIER in kinds[run.outlier] and "dark" in kinds[run.dark]
    first = [names[0] for names in kinds.values()]
    labels = [name in (LABEL_ERROR, LABEL_CONFLICT) for name in first]
    assert labels == sorted(labels, reverse=True)
    assert set(list(kinds)[:4]) >= set(run.flipped)


def test_folders_that_do_not_match_are_refused(run: ReviewableRun, tmp_path: Path) -> None:
    values = json.loads((run.head / "model.json").read_text())

    def refused(message: str, **changes: object) -> None:
        (tmp_path / "model.json").write_text(json.dumps(values | changes))
        with pytest.raises(InputError, match=message):
            find_suspects(run.dataset, [run.features], tmp_path)

    refused("expected a head of the same dataset", dataset_digest="other")
    refused("run the pipeline again", head={"pooling": "gap"})
    refused("expected features of 'gmp', got gap", head=values["head"] | {"pooling": "gmp"})
