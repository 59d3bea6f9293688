"""The KFP component under the local runner."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.ingest.component import ingest
from regraft_core.formats.manifests import DatasetManifest


def test_the_component_writes_the_artifacts(runner: Path, images: Path) -> None:
    task = ingest(options={"sources": [str(images)], "processes": 1})
    dataset = task.outputs["dataset"]
    manifest = DatasetManifest.read(dataset.path)
    assert dataset.metadata["digest"] == manifest.digest
    assert dataset.metadata["train"] == manifest.splits["train"].count
    assert "<html" in Path(task.outputs["data_card"].path).read_text(encoding="utf-8")


def test_an_error_is_one_line_and_fails_the_task(
    runner: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RuntimeError):
        ingest(options={"sources": ["sample:digitz"]})
    output = "".join(capfd.readouterr())
    assert "[regraft:error:2] ingest: unknown source 'sample:digitz'" in output
    assert "Traceback" not in output.split("[regraft:error:2]")[1].split("\n")[0]
