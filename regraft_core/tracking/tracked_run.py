"""What a tracking server records of a run, from what the run has written."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.manifests.evaluation import EvaluationManifest
from regraft_core.formats.manifests.model import ModelManifest
from regraft_core.formats.run_outcome import RunDetails
from regraft_core.formats.stored_artifacts import content_file
from regraft_core.runtime.addresses import redact_all
from regraft_core.runtime.errors import RegraftError
from regraft_core.runtime.printable import one_line

REPORT_DATA, REPORT_PAGE = "report.json", "report.html"


@dataclass(frozen=True)
class TrackedVersion:
    """A published version, and the labels of the model's versions."""

    model: str
    number: int
    path: str
    labels: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class TrackedRun:
    """One run that has ended with a verdict.

    Attributes:
        experiment: name of the experiment, the model's name.
        name: of the run.
        verdict: of the gate.
        metrics: on the test split.
        details: parameters, learning curve and dataset.
        report: the HTML page, if it is on this machine.
        version: the published version, if the model was accepted and published.
    """

    experiment: str
    name: str
    verdict: str
    metrics: Mapping[str, float]
    details: RunDetails
    report: Path | None = None
    version: TrackedVersion | None = None


def read_details(evaluation: str | os.PathLike[str]) -> RunDetails:
    """Return the details of a run from the folder of its evaluation.

    The report's data are not required: an evaluation of an earlier version has none, and they may
    be stored where they cannot be read.

    Raises:
        InputError: the folder has no evaluation.
    """
    found = EvaluationManifest.read(evaluation)
    plain = RunDetails(dataset_digest=found.dataset_digest)
    try:
        data = json.loads(content_file(evaluation, REPORT_DATA).read_bytes())
        models = [ModelManifest.model_validate(one) for one in data["models"]]
        dataset = DatasetManifest.model_validate(data["dataset"])
        gate = dict(data.get("options", {}))
    except (OSError, ValueError, KeyError, TypeError, ValidationError, RegraftError):
        return plain
    chosen = next((one for one in models if one.digest == found.model_digest), None)
    if chosen is None:
        return plain
    return RunDetails(
        dataset_digest=found.dataset_digest,
        parameters=_parameters(chosen, dataset, gate),
        history=chosen.history,
    )


def as_parameters(options: Mapping[str, Any]) -> dict[str, str]:
    """Return options as short texts on one line, without secrets in URLs."""
    return {
        name: one_line(json.dumps(value, ensure_ascii=False) if _is_nested(value) else value)
        for name, value in redact_all(dict(options)).items()
    }


def _parameters(
    model: ModelManifest, dataset: DatasetManifest, gate: Mapping[str, Any]
) -> dict[str, str]:
    images = {f"{name}_images": split.count for name, split in dataset.splits.items()}
    facts = {
        "strategy": model.strategy,
        "backbone": model.backbone_label,
        "weights": model.weights,
        "image_px": model.preprocessing.image_px,
        "cut": model.cut or "",
        "pooling": model.head.get("pooling", ""),
        "parameters": model.parameters.total,
        "classes": len(dataset.classes),
        "sources": dataset.sources,
        **images,
    }
    return as_parameters({**gate, **model.options, **facts})


def _is_nested(value: Any) -> bool:
    return isinstance(value, Mapping) or (
        isinstance(value, Sequence) and not isinstance(value, str)
    )


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics that are numbers; a server refuses the others."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}
