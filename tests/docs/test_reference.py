"""The reference has every metric, environment variable, exit code and schema."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from components.evaluate.assessment import (
    ChampionResult,
    Cost,
    LabeledLogits,
    Slices,
    assess,
)
from components.evaluate.label_assessment import ChampionScores, assess_labels
from components.evaluate.metrics.ood_score import OodScores
from components.evaluate.metrics.robustness import CorruptionDrop
from docs.error_messages import FOLDERS
from docs.reference_environment import VARIABLES
from docs.reference_metrics import BOTH, DRIFT, ONE_LABEL, SERVER, SEVERAL_LABELS
from docs.reference_pages import manifest_kinds, schema_text
from regraft.drift.prometheus import write_metrics
from regraft.drift.report import DriftReport
from regraft_core.drift.check import DriftTest
from regraft_core.formats.manifest_storage import Manifest
from regraft_core.formats.options.evaluate import GateOptions
from regraft_core.images.corruptions import CORRUPTIONS
from serving.server.metrics import Metrics
from serving.server.recording import request_log, shadow
from tests.docs.blocks import ROOT

CLASSES = [f"class {k}" for k in range(7)]
COST = Cost(model_mb=1.0, latency_ms=2.0)
UPPER = re.compile(r"[A-Z][A-Z0-9_]{2,}[A-Z0-9]")


def labeled(seed: int, count: int = 210) -> LabeledLogits:
    random = np.random.default_rng(seed)
    labels = np.arange(count) % len(CLASSES)
    logits = random.normal(size=(count, len(CLASSES))).astype(np.float32)
    logits[np.arange(count), labels] += 2
    return LabeledLogits(logits, labels)


def scores() -> OodScores:
    return OodScores(np.arange(50.0), np.arange(50.0), np.arange(50.0) - 20)


def test_the_metrics_of_an_evaluation_are_explained() -> None:
    test = labeled(2)
    slices = Slices(["camera"], [[f"{k % 2}"] for k in range(210)], {"camera": ["0", "1"]})
    drops = [CorruptionDrop(kind, 1, 10, 0.9, 0.8, 0.1, 0.0, 0.2) for kind in CORRUPTIONS]
    found = assess(
        labeled(1), replace(test, slices=slices), CLASSES,
        GateOptions(coverage=0.9, abstain_precision=0.8),
        cost=replace(COST, corruption_drops=drops),
        champion=ChampionResult("pets", np.arange(210) % 3 > 0), ood_scores=scores(),
        out_of_fold=labeled(3),
    ).metrics.values  # fmt: skip
    assert set(found) - set(BOTH) == set(ONE_LABEL)
    assert len(set(found) & set(BOTH)) == len(BOTH)


def test_the_metrics_of_several_labels_are_explained() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, (60, 7))
    test = LabeledLogits(random.normal(size=(60, 7)) + 2 * labels, labels)
    champion = ChampionScores("pets", random.uniform(size=(60, 7)))
    found = assess_labels(test, [0.5] * 7, CLASSES, GateOptions(), cost=COST, champion=champion,
                          ood_scores=scores()).metrics.values  # fmt: skip
    assert set(found) - set(BOTH) == set(SEVERAL_LABELS)
    assert set(found) & set(BOTH) == set(BOTH) - {"champion_accuracy", "champion_p_two_sided"}


def test_the_metrics_of_the_server_are_explained() -> None:
    metrics = Metrics()
    metrics.count("pets", "OK")
    metrics.request_latency("pets", "predict", "REST", 0.1)
    metrics.runtime_latency("pets", "predict", 0.1)
    for name in (request_log.COUNTER, shadow.COUNTER):
        metrics.count_own(name, "written")
    types = dict(re.findall(r"^# TYPE (\S+) (\w+)$", metrics.page(), re.MULTILINE))
    assert set(types) == set(SERVER)
    assert [name for name, kind in types.items() if not SERVER[name][0].startswith(kind)] == []


def test_the_metrics_of_a_drift_are_explained(tmp_path: Path) -> None:
    test = DriftTest("classes", 0.1, 0.5, 0.5, False)
    report = DriftReport("pets", 1, "ab", "log", 80, 80, {}, 0, "", "", 0.01, False, (test,), (),
                         0.1, 0.1)  # fmt: skip
    write_metrics(report, tmp_path / "drift.prom")
    text = (tmp_path / "drift.prom").read_text()
    assert set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE)) == set(DRIFT)


def test_every_environment_variable_that_is_read_is_explained() -> None:
    """Names are constants in expressions with `environ`, or constants called `..._VARIABLE`."""
    found = set()
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            source = path.read_text(encoding="utf-8")
            if not re.search(r"environ|_VARIABLE", source):
                continue
            for node in ast.walk(ast.parse(source)):
                text = ast.unparse(node) if isinstance(node, ast.expr | ast.Assign) else ""
                if not re.match(r"(os\.)?environ\b|environment\.get|\w+_VARIABLE = '", text):
                    continue
                found |= {
                    one.value
                    for one in ast.walk(node)
                    if isinstance(one, ast.Constant) and isinstance(one.value, str)
                    and UPPER.fullmatch(one.value)
                }  # fmt: skip
    assert {"KERAS_HOME", "REGRAFT_EVENTS", "NVIDIA_TF32_OVERRIDE"} <= found
    assert found - set(VARIABLES) == set()


@pytest.mark.parametrize("kind", manifest_kinds())
def test_schemas_have_every_field(kind: type[Manifest]) -> None:
    schema = json.loads(schema_text(kind))
    assert set(schema["properties"]) == set(kind.model_fields)
    assert schema["additionalProperties"] is False
    parts = re.findall(r'"#/\$defs/(\w+)"', schema_text(kind))
    assert "MadeBy" in parts and set(parts) == set(schema["$defs"])
