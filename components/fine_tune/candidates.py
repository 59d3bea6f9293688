"""Trains all candidates of a run, one after another, from the same head."""

from __future__ import annotations

import os
from collections.abc import Sequence

import keras

from components.fine_tune.candidate import write_candidates
from components.fine_tune.fine_tune import fine_tune
from regraft_core.formats.manifest_storage import staged_folder
from regraft_core.formats.manifests.model import CandidatesManifest
from regraft_core.formats.options.fine_tune import FineTuneOptions
from regraft_core.runtime.step_reports import Clock
from regraft_core.training.feature_store import feature_folders


def fine_tune_all(
    dataset: str | os.PathLike[str],
    features: str | os.PathLike[str],
    head: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: Sequence[FineTuneOptions],
) -> CandidatesManifest:
    """Train one candidate for each of `options`, in `<out>/<strategy>`.

    They are not trained at once, because that could exhaust the memory of a GPU and is not faster
    on a CPU.

    Raises:
        InputError, RegraftError: as `fine_tune`.
    """
    clock = Clock()
    folders = feature_folders(features)
    with staged_folder(out) as folder:
        digests: dict[str, str] = {}
        for one in options:
            candidate = fine_tune(dataset, folders, head, folder / one.strategy, one)
            digests[one.strategy] = candidate.digest
            keras.backend.clear_session()
        return write_candidates(folder, digests, clock)
