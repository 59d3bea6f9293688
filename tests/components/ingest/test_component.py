"""The KFP component under the local runner."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components.ingest.component import ingest
from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.records import read_split


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


def run_on_a_cluster(source: Path, folder: Path, work_dir: str) -> tuple[Any, Any]:
    dataset, card = (
        SimpleNamespace(path=str(folder / name), uri=f"minio://b/run/{name}", metadata={})
        for name in ("dataset", "data_card")
    )
    options = {"sources": [str(source)], "processes": 1, "work_dir": work_dir}
    ingest.python_func(options, dataset, card)
    return dataset, card


@pytest.mark.parametrize("work_dir", ["", "{tmp}/work"])
def test_on_a_cluster_the_next_steps_do_not_download_the_data_card(
    shapes: Path, tmp_path: Path, work_dir: str
) -> None:
    dataset, card = run_on_a_cluster(shapes, tmp_path, work_dir.replace("{tmp}", str(tmp_path)))
    assert Path(card.path).stat().st_size > 10_000
    names = {p.name for p in Path(dataset.path).iterdir()}
    assert "data_card.html" not in names
    if work_dir:
        assert names == {"content.json", "dataset.json", "quarantine.csv"}


def test_renamed_images_are_another_dataset_in_a_bucket(
    shapes: Path, tmp_path: Path, s3: None
) -> None:
    """Its digest is the same, but the records contain the paths."""
    import fsspec

    fsspec.filesystem("s3").mkdir("renamed")
    renamed = tmp_path / "renamed"
    shutil.copytree(shapes, renamed)
    for image in renamed.rglob("*.png"):
        image.rename(image.with_name(f"renamed-{image.name}"))
    found = [run_on_a_cluster(source, tmp_path / name, "s3://renamed/work")[0]
             for name, source in (("first", shapes), ("second", renamed))]  # fmt: skip
    assert found[0].metadata["digest"] == found[1].metadata["digest"]
    paths = [next(read_split(dataset.path, "test")).path for dataset in found]
    assert "renamed-" not in paths[0] and "renamed-" in paths[1]
