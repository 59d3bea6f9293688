"""Outputs of local steps in folders named by their content."""

from __future__ import annotations

from pathlib import Path

from kfp.dsl import Dataset

from regraft_core.formats.content_folder import keep_by_content


def written(root: Path, run: str, text: str) -> Dataset:
    folder = root / run / "ingest" / "dataset"
    folder.mkdir(parents=True)
    (folder / "file").write_text(text)
    return Dataset(name="dataset", uri=str(folder))


def test_equal_content_of_several_runs_is_in_one_folder(tmp_path: Path) -> None:
    first, second = written(tmp_path, "run-1", "old"), written(tmp_path, "run-2", "new")
    other = written(tmp_path, "run-3", "other")
    for artifact, digest in ((first, "a"), (second, "a"), (other, "b")):
        keep_by_content(artifact, digest)
    assert first.uri == second.uri != other.uri
    assert (Path(first.path) / "file").read_text() == "new"
    assert {path.name for path in (tmp_path / "by_content").iterdir()} == {"dataset-a", "dataset-b"}


def test_an_artifact_of_a_cluster_stays_in_its_run() -> None:
    artifact = Dataset(name="dataset", uri="minio://bucket/run/ingest/dataset")
    keep_by_content(artifact, "a")
    assert artifact.uri == "minio://bucket/run/ingest/dataset"
