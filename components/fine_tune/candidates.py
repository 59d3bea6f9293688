"""Trains all candidates of a run, one after another, from the same head."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import keras

from components.fine_tune.candidate import write_candidates
from components.fine_tune.fine_tune import fine_tune
from components.fine_tune.node_training import Inputs, fine_tune_on_nodes, pays
from regraft_core.formats.manifest_storage import staged_folder
from regraft_core.formats.manifests.model import CandidatesManifest
from regraft_core.formats.options.fine_tune import FineTuneOptions
from regraft_core.runtime.step_reports import Clock
from regraft_core.training.feature_store import feature_folders

if TYPE_CHECKING:
    from regraft_core.parallel.ray_group import NodeGroup


def fine_tune_all(
    dataset: str | os.PathLike[str],
    features: str | os.PathLike[str],
    head: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: Sequence[FineTuneOptions],
    nodes: NodeGroup | None = None,
) -> CandidatesManifest:
    """Train one candidate for each of `options`, in `<out>/<strategy>`.

    They are not trained at once, because that could exhaust the memory of a GPU and is not faster
    on a CPU.

    Args:
        dataset: folder of the dataset.
        features: folder of the features, or of those of all workers.
        head: folder of the head.
        out: a folder to make.
        options: of each candidate.
        nodes: train those for which it pays.

    Raises:
        InputError, RegraftError: as `fine_tune` and `NodeGroup.run`.
    """
    clock = Clock()
    folders = feature_folders(features)
    with staged_folder(out) as folder:
        digests: dict[str, str] = {}
        for one in options:
            inputs = Inputs.of(dataset, folders, head)
            if nodes is not None and pays(inputs, one, nodes):
                digests[one.strategy] = fine_tune_on_nodes(inputs, folder, one, nodes)
            else:
                candidate = fine_tune(dataset, folders, head, folder / one.strategy, one)
                digests[one.strategy] = candidate.digest
            keras.backend.clear_session()
        return write_candidates(folder, digests, clock)
