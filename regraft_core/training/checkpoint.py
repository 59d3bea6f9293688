"""The state of a training on disk, so that an interrupted one resumes from its last epoch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from regraft_core.formats.content_store import ContentStore
from regraft_core.formats.manifest_storage import digest_file, digest_of, write_text
from regraft_core.formats.manifests.model import Epoch
from regraft_core.formats.stored_artifacts import save_work, working_folder
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.safe_files import replaced_file

STATE_FILE = "checkpoint.json"


@dataclass
class Best:
    """The best epoch so far, by validation loss, and its weights."""

    loss: float = float("inf")
    epoch: int = -1
    weights: list[NDArray[Any]] | None = None


@dataclass
class Progress:
    """Progress of a training; `fingerprint` identifies its model, data and options."""

    fingerprint: str
    history: list[Epoch] = field(default_factory=list)
    best: Best = field(default_factory=Best)


def checkpoint_folder(work_dir: str, step: str, fingerprint: str) -> Path | None:
    """Return the folder of the content store for a step's state, one per fingerprint."""
    return working_folder(work_dir, f"{step}-{fingerprint[:32]}")


def saved_states(work_dir: str, step: str) -> dict[str, float]:
    """Return when each state of a step was last saved, in seconds, by the name of its entry.

    Raises:
        InputError: the store cannot be read.
    """
    usage = ContentStore(work_dir).usage() if work_dir else {}
    return {name: one.changed for name, one in usage.items() if name.startswith(f"{step}-")}


def save(folder: Path, model: keras.Model, optimizer: Any, progress: Progress) -> None:
    """Write variables, optimizer state and best weights of a training."""
    groups = {
        # `variables` contains the random state of dropout in addition to the weights.
        "variable": [variable.numpy() for variable in model.variables],
        "optimizer": [variable.numpy() for variable in optimizer.variables],
        "best": progress.best.weights or [],
    }
    metadata = {
        "best": [progress.best.loss, progress.best.epoch],
        "history": [epoch.model_dump() for epoch in progress.history],
    }
    write_state(folder, progress.fingerprint, len(progress.history), groups, metadata)


def restore(folder: Path, model: keras.Model, optimizer: Any, progress: Progress) -> bool:
    """Load the checkpoint of `folder`, if there is one, into model, optimizer and progress.

    Raises:
        InputError: it is damaged, or of another model, dataset or options.
    """
    variables = {"variable": model.variables, "optimizer": optimizer.variables}
    state = read_state(folder, progress.fingerprint, variables, {"best": len(model.weights)})
    if state is None:
        return False
    metadata, arrays = state
    progress.history = [Epoch(**epoch) for epoch in metadata["history"]]
    progress.best = Best(metadata["best"][0], metadata["best"][1], arrays["best"] or None)
    return True


def write_state(
    folder: Path,
    fingerprint: str,
    epochs: int,
    groups: dict[str, list[NDArray[Any]]],
    metadata: dict[str, Any],
) -> None:
    """Write the state after `epochs`: arrays by group, then the JSON file with `metadata`."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"epoch-{epochs}.npz"
    arrays: dict[str, Any] = {f"{g}-{i}": array for g, values in groups.items()
                              for i, array in enumerate(values)}  # fmt: skip
    with replaced_file(folder / name) as file:
        np.savez(file, allow_pickle=False, **arrays)
    sha256 = digest_file(folder / name)
    state = {"fingerprint": fingerprint, "file": name, "sha256": sha256, "metadata": metadata}
    write_text(folder / STATE_FILE, json.dumps(state | {"digest": digest_of(state)}))
    for old in folder.glob("epoch-*.npz"):
        if old.name != name:
            old.unlink()
    save_work(folder)


def read_state(
    folder: Path,
    fingerprint: str,
    variables: Mapping[str, Sequence[Any]],
    counts: Mapping[str, int] | None = None,
) -> tuple[dict[str, Any], dict[str, list[NDArray[Any]]]] | None:
    """Load the state of `folder` into `variables`, by group.

    Returns its metadata, and the arrays of the groups in `counts` (none if the group is empty); or
    None if there is no checkpoint.

    Raises:
        InputError: it is damaged, or of another model, dataset or options.
    """
    if not (folder / STATE_FILE).exists():
        return None
    state = _read_state(folder, fingerprint)
    with np.load(folder / state["file"], allow_pickle=False) as arrays:
        by_name = {f"{name}-{i}": variable for name, group in variables.items()
                   for i, variable in enumerate(group)}  # fmt: skip
        for name, variable in by_name.items():
            if name not in arrays or arrays[name].shape != tuple(variable.shape):
                raise _mismatch(folder)
        for name, variable in by_name.items():
            variable.assign(arrays[name])
        others = {
            name: [arrays[f"{name}-{i}"] for i in range(count)] if f"{name}-0" in arrays else []
            for name, count in (counts or {}).items()
        }
    return state["metadata"], others


def _read_state(folder: Path, fingerprint: str) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        digest = state.pop("digest")
        sha256 = digest_file(folder / state["file"])
        intact = digest == digest_of(state) and sha256 == state["sha256"]
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise InputError(
            f"damaged checkpoint in {folder} ({error}); remove it to restart"
        ) from error
    if not intact:
        raise InputError(f"damaged checkpoint in {folder} (digest differs); remove it to restart")
    if state["fingerprint"] != fingerprint:
        raise _mismatch(folder)
    return state


def _mismatch(folder: Path) -> InputError:
    return InputError(f"the checkpoint in {folder} is of another model, dataset or options")
