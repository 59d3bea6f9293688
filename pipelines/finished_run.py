"""What an estimate reads of a local run: its images, and the time of each step."""

from __future__ import annotations

from pathlib import Path

from pipelines.cluster.sample_runs import SampleRun
from pipelines.local.run import read_summary
from regraft_core.formats.manifests.dataset import DatasetManifest


def read_sample_run(folder: Path) -> SampleRun:
    """Return the images of each split of a run, and the seconds of each step.

    Raises:
        InputError: the folder contains no complete run.
    """
    summary = read_summary(folder)
    splits = DatasetManifest.read(Path(summary.dataset)).splits
    train, validation, test = (
        splits[name].count if name in splits else 0 for name in ("train", "validation", "test")
    )
    return SampleRun(train, validation, test, summary.timings)
