"""Artifacts are in a folder that Ray nodes see while a step runs, then where KFP expects them."""

# kfp 2.17 cannot read postponed annotations, so they are not postponed here.
import json
from pathlib import Path
from typing import Any

import pytest
from kfp.dsl import Dataset, Input, Model, Output

from pipelines.cluster.shared_artifacts import SharingExecutor, shared_folder

SEEN: list[str] = []


def count(dataset: Input[Dataset], model: Output[Model], fails: bool) -> None:
    """Write the length of a file of the dataset to the model."""
    SEEN[:] = [dataset.path, model.path]
    text = Path(dataset.path, "content.json").read_text()
    Path(model.path).mkdir()
    Path(model.path, "length").write_text(str(len(text)))
    model.metadata["length"] = len(text)
    if fails:
        raise ValueError("failed on purpose")


def step(folder: Path, *, fails: bool = False) -> dict[str, Any]:
    """Return the inputs and outputs of the step, as the launcher passes them."""
    (folder / "dataset").mkdir(exist_ok=True)
    (folder / "dataset" / "content.json").write_text("12345")

    def artifact(name: str, kind: str) -> dict[str, Any]:
        return {"artifacts": [{"name": name, "type": {"schemaTitle": kind},
                               "uri": str(folder / name)}]}  # fmt: skip

    return {
        "inputs": {"parameterValues": {"fails": fails},
                   "artifacts": {"dataset": artifact("dataset", "system.Dataset")}},
        "outputs": {"outputFile": str(folder / "output.json"),
                    "artifacts": {"model": artifact("model", "system.Model")}},
    }  # fmt: skip


def test_a_step_works_in_the_shared_folder_and_its_outputs_return(tmp_path: Path) -> None:
    shared = tmp_path / "work" / ".ray" / "run-1-count"
    shared.mkdir(parents=True)
    (shared / "left-by-a-killed-attempt").touch()
    SharingExecutor(step(tmp_path), count, shared).execute()
    assert [Path(one) for one in SEEN] == [shared / "in" / "dataset", shared / "out" / "model"]
    assert (tmp_path / "model" / "length").read_text() == "5"
    assert not shared.exists()
    described = json.loads((tmp_path / "output.json").read_text())["artifacts"]["model"]
    (described,) = described["artifacts"]
    assert (described["uri"], described["metadata"]) == (str(tmp_path / "model"), {"length": 5})
    assert not described.get("custom_path")


def test_a_failed_step_leaves_nothing_in_the_shared_folder(tmp_path: Path) -> None:
    shared = tmp_path / "work"
    with pytest.raises(ValueError, match="on purpose"):
        SharingExecutor(step(tmp_path, fails=True), count, shared).execute()
    assert not shared.exists()
    assert not (tmp_path / "model").exists()


def test_the_folder_is_in_the_content_store_of_the_step() -> None:
    given = {"inputs": {"parameterValues": {"options": {"work_dir": "/models/.work"}}}}
    assert shared_folder(given, "ingest", "run-1") == Path("/models/.work/.ray/run-1-ingest")
    assert shared_folder({"inputs": {}}, "ingest", "run-1") is None
