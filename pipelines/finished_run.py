"""What an estimate reads of a local run: its images, its head, and the time of each step."""

from __future__ import annotations

from pathlib import Path

from pipelines.cluster.sample_runs import SampleRun
from pipelines.local.run import read_summary
from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.manifests.model import ModelManifest


def read_sample_run(folder: Path) -> SampleRun:
    """Return the images of each split of a run, the features of its head, and the steps' seconds.

    Raises:
        InputError: the folder contains no complete run.
    """
    summary = read_summary(folder)
    splits = DatasetManifest.read(Path(summary.dataset)).splits
    train, validation, test = (
        splits[name].count if name in splits else 0 for name in ("train", "validation", "test")
    )
    model = ModelManifest.read(Path(summary.evaluation).parent / "model")
    return SampleRun(train, validation, test, _head_width(model), summary.timings)


def _head_width(model: ModelManifest) -> int:
    """Return the number of features of a linear head: those of its levels, or the pooled ones."""
    levels = model.head["levels"]
    if levels:
        return sum(level["width"] for level in levels)
    return model.head_parameters[model.head["pooling"]] // len(model.classes) - 1
