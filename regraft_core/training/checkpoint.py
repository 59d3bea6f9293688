"""A training's state on disk, so that a killed one goes on from its last epoch."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from regraft_core.formats.manifest_storage import digest_file, digest_of, write_text
from regraft_core.formats.manifests import Epoch
from regraft_core.runtime.errors import InputError

STATE_FILE = "checkpoint.json"


@dataclass
class Best:
    """The best epoch so far, by validation loss, and the weights that it had."""

    loss: float = float("inf")
    epoch: int = -1
    weights: list[NDArray[Any]] | None = None


@dataclass
class Progress:
    """How far a training is; `fingerprint` names its model, data and options."""

    fingerprint: str
    history: list[Epoch] = field(default_factory=list)
    best: Best = field(default_factory=Best)


def checkpoint_folder(work_dir: str, step: str, fingerprint: str) -> Path | None:
    """Return where a step keeps its state in `work_dir`: a folder of its own a fingerprint."""
    return Path(work_dir) / f"{step}-{fingerprint[:16]}" if work_dir else None


def save(folder: Path, model: keras.Model, optimizer: Any, progress: Progress) -> None:
    """Write variables, optimizer state and best weights of a training."""
    groups = {
        # Beside weights, `variables` holds the state of dropout's draws.
        "variable": [variable.numpy() for variable in model.variables],
        "optimizer": [variable.numpy() for variable in optimizer.variables],
        "best": progress.best.weights or [],
    }
    facts = {
        "best": [progress.best.loss, progress.best.epoch],
        "history": [line.model_dump() for line in progress.history],
    }
    write_state(folder, progress.fingerprint, len(progress.history), groups, facts)


def restore(folder: Path, model: keras.Model, optimizer: Any, progress: Progress) -> bool:
    """Load the checkpoint of `folder`, if there is one, into model, optimizer and progress.

    Raises:
        InputError: it is damaged, or belongs to another model, dataset or options.
    """
    variables = {"variable": model.variables, "optimizer": optimizer.variables}
    state = read_state(folder, progress.fingerprint, variables, {"best": len(model.weights)})
    if state is None:
        return False
    facts, arrays = state
    progress.history = [Epoch(**line) for line in facts["history"]]
    progress.best = Best(facts["best"][0], facts["best"][1], arrays["best"] or None)
    return True


def write_state(
    folder: Path,
    fingerprint: str,
    epochs: int,
    groups: dict[str, list[NDArray[Any]]],
    facts: dict[str, Any],
) -> None:
    """Write the state after `epochs`: arrays by group, then the small JSON file with `facts`."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"epoch-{epochs}.npz"
    arrays: dict[str, Any] = {f"{g}-{i}": array for g, values in groups.items()
                              for i, array in enumerate(values)}  # fmt: skip
    temporary = folder / f".{os.getpid()}.{name}"
    with open(temporary, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / name)
    sha256 = digest_file(folder / name)
    state = {"fingerprint": fingerprint, "file": name, "sha256": sha256, "facts": facts}
    write_text(folder / STATE_FILE, json.dumps(state | {"digest": digest_of(state)}))
    for old in folder.glob("epoch-*.npz"):
        if old.name != name:
            old.unlink()


def read_state(
    folder: Path,
    fingerprint: str,
    variables: Mapping[str, Sequence[Any]],
    counts: Mapping[str, int] | None = None,
) -> tuple[dict[str, Any], dict[str, list[NDArray[Any]]]] | None:
    """Load the state of `folder` into `variables`, by group.

    Returns its facts, and the arrays of the groups in `counts` (none where the group is empty); or
    None where there is no checkpoint.

    Raises:
        InputError: it is damaged, or belongs to another model, dataset or options.
    """
    if not (folder / STATE_FILE).exists():
        return None
    state = _read_state(folder, fingerprint)
    with np.load(folder / state["file"], allow_pickle=False) as arrays:
        places = {f"{name}-{i}": variable for name, group in variables.items()
                  for i, variable in enumerate(group)}  # fmt: skip
        for place, variable in places.items():
            if place not in arrays or arrays[place].shape != tuple(variable.shape):
                raise _other(folder)
        for place, variable in places.items():
            variable.assign(arrays[place])
        others = {
            name: [arrays[f"{name}-{i}"] for i in range(count)] if f"{name}-0" in arrays else []
            for name, count in (counts or {}).items()
        }
    return state["facts"], others


def _read_state(folder: Path, fingerprint: str) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        digest = state.pop("digest")
        sha256 = digest_file(folder / state["file"])
        whole = digest == digest_of(state) and sha256 == state["sha256"]
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise InputError(
            f"damaged checkpoint in {folder} ({error}); remove it to restart"
        ) from error
    if not whole:
        raise InputError(f"damaged checkpoint in {folder} (digest differs); remove it to restart")
    if state["fingerprint"] != fingerprint:
        raise _other(folder)
    return state


def _other(folder: Path) -> InputError:
    return InputError(f"the checkpoint in {folder} is of another model, dataset or options")
