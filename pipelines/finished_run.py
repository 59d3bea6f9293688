"""What an estimate reads of a local run: its images and epochs, and the time of each step."""

from __future__ import annotations

from pathlib import Path

from pipelines.cluster.sample_runs import SampleRun
from pipelines.local.run import read_summary
from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.manifests.evaluation import EvaluationManifest
from regraft_core.runtime.errors import InputError


def read_sample_run(folder: Path) -> SampleRun:
    """Return the images of each split of a run, its epochs, and the seconds of each step.

    Raises:
        InputError: the folder contains no complete run, or that of another version.
    """
    summary = read_summary(folder)
    splits = DatasetManifest.read(Path(summary.dataset)).splits
    train, validation, test = (
        splits[name].count if name in splits else 0 for name in ("train", "validation", "test")
    )
    candidates = EvaluationManifest.read(summary.evaluation).candidates
    epochs = [one.epochs for one in candidates if one.strategy == "top"]
    if None in epochs:
        raise InputError(f"expected a run of this version of Regraft in {folder}, but the epochs "
                         "of its fine-tuning are not known; run it again")  # fmt: skip
    return SampleRun(train, validation, test, sum(one or 0 for one in epochs), summary.timings)
