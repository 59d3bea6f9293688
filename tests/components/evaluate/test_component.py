"""The KFP component and its artifacts."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kfp.dsl import HTML, Artifact, ClassificationMetrics, Dataset, Metrics, Model

from components.evaluate.component import evaluate
from components.evaluate.kfp_outputs import evaluate_artifacts
from regraft_core.formats.manifest_storage import MadeBy
from regraft_core.formats.manifests.evaluation import EvaluationManifest
from regraft_core.formats.manifests.model import CandidatesManifest, ModelManifest
from regraft_core.runtime.errors import InputError
from regraft_core.training.model_files import load_model
from tests.conftest import Trained


def test_a_value_out_of_range_is_an_error_before_anything_is_read() -> None:
    outputs = {"evaluation": SimpleNamespace(path="nowhere")}
    with pytest.raises(InputError, match="min_accuracy"):
        evaluate_artifacts(None, None, outputs, {"min_accuracy": 1.01})


@pytest.fixture
def candidates(trained: Trained, tmp_path: Path) -> Path:
    """The candidates of a run as one folder."""
    folder = tmp_path / "candidates"
    digests = {}
    for name, source in trained.candidates.items():
        shutil.copytree(source, folder / name)
        digests[name] = ModelManifest.read(source).digest
    made_by = MadeBy(step="fine_tune", version="0", seconds=1.0)
    CandidatesManifest(digest="c" * 64, made_by=made_by, candidates=digests).write(folder)
    return folder


def test_a_champion_published_since_the_start_of_the_run_is_not_compared(
    candidates: Path, publish: Any, tmp_path: Path
) -> None:
    champion = publish(1, correct=True).parent
    values = {"champion": str(champion), "champion_digest": "", "inputs": "i" * 64}
    outputs = {"evaluation": SimpleNamespace(path=str(tmp_path / "evaluation"))}
    given = SimpleNamespace(path=str(candidates))
    with pytest.raises(InputError, match="champion: expected none, as at the start of the run"):
        evaluate_artifacts(given, SimpleNamespace(path="nowhere"), outputs, values)
    assert not (tmp_path / "evaluation").exists()


def outputs_in(folder: Path) -> dict[str, Any]:
    """Return the step's output artifacts, as kfp makes them."""
    return {
        name: kind(name=name, uri=str(folder / "run" / name))
        for name, kind in (("evaluation", Artifact), ("model", Model), ("metrics", Metrics),
                           ("classification", ClassificationMetrics), ("report", HTML))
    }  # fmt: skip


@pytest.mark.parametrize("location", ["machine", "cluster"])
def test_the_component_fills_the_artifacts_of_the_kfp_ui(
    dataset, candidates, tmp_path, location
) -> None:
    outputs = outputs_in(tmp_path)
    given: Any = Artifact(name="candidates", uri=str(candidates))
    if location == "cluster":
        given = SimpleNamespace(path=str(candidates), uri="minio://bucket/candidates")
    data = Dataset(name="dataset", uri=str(dataset))
    accepted = evaluate.python_func({"min_accuracy": 0.999}, given, data, **outputs)
    assert accepted is False
    result = EvaluationManifest.read(outputs["evaluation"].path)
    assert outputs["evaluation"].metadata["verdict"] == result.verdict == "rejected"
    assert outputs["metrics"].metadata["test_accuracy"] == result.metrics["test_accuracy"]
    _, manifest = load_model(outputs["model"].path)
    assert manifest.digest == result.model_digest == outputs["model"].metadata["digest"]
    shown = outputs["classification"].metadata
    names = [column["displayName"] for column in shown["confusionMatrix"]["annotationSpecs"]]
    assert names == result.classes
    assert [row["row"] for row in shown["confusionMatrix"]["rows"]] == result.confusion
    curve = shown["confidenceMetrics"]
    assert (curve[0]["recall"], curve[-1]["recall"]) == (0, 1) and len(curve) <= 200
    assert "Rejected" in Path(outputs["report"].path).read_text(encoding="utf-8")


@pytest.mark.parametrize("location", ["machine", "cluster"])
def test_an_evaluation_is_kept_and_later_steps_download_its_manifest_only(
    dataset, candidates, tmp_path, location
) -> None:
    outputs = outputs_in(tmp_path)
    if location == "cluster":
        path = outputs["evaluation"].path
        outputs["evaluation"] = SimpleNamespace(path=path, uri="minio://b/e", metadata={})
    evaluate.python_func(
        {"work_dir": str(tmp_path / "work")}, Artifact(uri=str(candidates)),
        Dataset(uri=str(dataset)), **outputs,
    )  # fmt: skip
    result = EvaluationManifest.read(outputs["evaluation"].path)
    (entry,) = (tmp_path / "work").glob("evaluation-*")
    assert EvaluationManifest.read(entry) == result
    found = sorted(p.name for p in Path(outputs["evaluation"].path).iterdir())
    kept = [name for name in outputs if Path(outputs[name].path).exists()]
    assert kept == list(outputs), "kfp's local cache returns nothing if an output has no file"
    if location == "cluster":
        assert found == ["evaluation.json"]
        assert not (entry / "report.html").exists(), "it is an artifact of its own"
    else:
        assert outputs["evaluation"].path == str(entry)
        assert "report.html" in found
    assert Path(outputs["report"].path).stat().st_size > 10_000
