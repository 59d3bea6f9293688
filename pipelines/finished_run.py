"""What an estimate reads of a local run: its images, its head, and the time of each step."""

from __future__ import annotations

from pathlib import Path

from components.evaluate.report.report_data import ReportData
from pipelines.cluster.sample_runs import SampleRun
from pipelines.local.run import read_summary
from regraft_core.formats.manifests.dataset import SPLITS
from regraft_core.formats.manifests.model import ModelManifest
from regraft_core.runtime.errors import InputError


def read_sample_run(folder: Path) -> SampleRun:
    """Return the images of each split of a run, the features of its head, and the steps' seconds.

    Raises:
        InputError: the folder contains no complete run.
    """
    summary = read_summary(folder)
    file = Path(summary.evaluation) / ReportData.file_name
    try:
        report = ReportData.model_validate_json(file.read_bytes())
    except (OSError, ValueError) as error:
        line = " ".join(str(error).split())[:200]
        raise InputError(f"expected the values of a report at {file}: {line}") from error
    train, validation, test = (
        report.dataset.splits[split].count if split in report.dataset.splits else 0
        for split in SPLITS
    )
    return SampleRun(train, validation, test, head_width(report.models[0]), summary.timings)


def head_width(model: ModelManifest) -> int:
    """Return the number of features of a linear head: those of its levels, or the pooled ones."""
    levels = model.head["levels"]
    if levels:
        return sum(level["width"] for level in levels)
    return model.head_parameters[model.head["pooling"]] // len(model.classes) - 1
