"""The KFP component: the options of the gate, and the KFP artifacts."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import SimpleNamespace

import pytest
from kfp.dsl import HTML, Artifact, ClassificationMetrics, Dataset, Metrics, Model

from components.evaluate.component import evaluate
from components.evaluate.kfp_outputs import evaluate_artifacts
from regraft_core.formats.manifests import EvaluationManifest
from regraft_core.formats.options import GateOptions
from regraft_core.runtime.errors import InputError

ARTIFACTS = {"candidates", "dataset", "evaluation", "metrics", "classification", "report"}


def test_the_inputs_of_the_component_are_the_options_of_the_gate() -> None:
    inputs = inspect.signature(evaluate.python_func).parameters
    assert set(inputs) - set(GateOptions.model_fields) == ARTIFACTS | {"champion"}
    defaults = GateOptions().model_dump()
    for name, value in defaults.items():
        assert inputs[name].default == value


def test_a_value_out_of_range_is_an_error_before_anything_is_read() -> None:
    outputs = {"evaluation": SimpleNamespace(path="nowhere")}
    with pytest.raises(InputError, match="min_accuracy"):
        evaluate_artifacts([], None, outputs, {"min_accuracy": 1.01}, "")


def test_the_component_fills_the_artifacts_of_the_kfp_ui(dataset, trained, tmp_path) -> None:
    outputs = {
        name: kind(name=name, uri=str(tmp_path / "steps" / "run" / "evaluate" / name))
        for name, kind in (("evaluation", Artifact), ("metrics", Metrics),
                           ("classification", ClassificationMetrics), ("report", HTML))
    }  # fmt: skip
    candidates = [Model(name="model", uri=str(trained.candidates["head"]))]
    data = Dataset(name="dataset", uri=str(dataset))
    accepted = evaluate.python_func(candidates, data, **outputs, min_accuracy=0.999)
    assert accepted is False
    result = EvaluationManifest.read(outputs["evaluation"].path)
    assert outputs["evaluation"].metadata["verdict"] == result.verdict == "rejected"
    assert outputs["metrics"].metadata["test_accuracy"] == result.metrics["test_accuracy"]
    shown = outputs["classification"].metadata
    names = [column["displayName"] for column in shown["confusionMatrix"]["annotationSpecs"]]
    assert names == result.classes
    assert [row["row"] for row in shown["confusionMatrix"]["rows"]] == result.confusion
    curve = shown["confidenceMetrics"]
    assert (curve[0]["recall"], curve[-1]["recall"]) == (0, 1) and len(curve) <= 200
    assert "Rejected" in Path(outputs["report"].path).read_text(encoding="utf-8")
