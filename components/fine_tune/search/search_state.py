"""The state of a search in the work folder, so that an interrupted one resumes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.fine_tune.search.trials import Trial
from regraft_core.formats.options.fine_tune import FineTuneOptions
from regraft_core.training.checkpoint import checkpoint_folder, read_state, write_state
from regraft_core.training.distribution import is_chief


@dataclass
class Best:
    """The best weights of a part, and the validation losses of the sample with them."""

    weights: list[Any]
    losses: NDArray[np.float32]


@dataclass
class SearchState:
    """What a search has done: its trainings, and the best weights of each part that gained."""

    fingerprint: str
    folder: Path | None
    trials: list[Trial] = field(default_factory=list)
    best: dict[str, Best] = field(default_factory=dict)
    seconds: float = 0.0

    @classmethod
    def open(cls, options: FineTuneOptions, fingerprint: str, arrays: int) -> SearchState:
        """Return the state in the work folder, or a new one; `arrays` is the number of weights.

        Raises:
            InputError: the state is damaged.
        """
        folder = checkpoint_folder(options.work_dir, "fine_tune-search", fingerprint)
        state = cls(fingerprint, folder)
        parts = _read_parts(folder, fingerprint)
        counts = {f"{name}{index}": count for index in range(len(parts))
                  for name, count in (("weights", arrays), ("losses", 1))}  # fmt: skip
        found = read_state(folder, fingerprint, {}, counts) if folder else None
        if found is not None:
            metadata, stored = found
            state.seconds = metadata["seconds"]
            state.trials = [Trial.of_json(trial) for trial in metadata["trials"]]
            for index, part in enumerate(parts):
                losses = stored[f"losses{index}"][0]
                state.best[part] = Best(stored[f"weights{index}"], losses)
        return state

    def save(self, seconds: float) -> None:
        """Write the state after a training, with the seconds that are used."""
        self.seconds = seconds
        if self.folder is None or not is_chief():
            return
        groups: dict[str, list[NDArray[Any]]] = {}
        for index, best in enumerate(self.best.values()):
            groups |= {f"weights{index}": best.weights, f"losses{index}": [best.losses]}
        trials = [trial.as_json() for trial in self.trials]
        metadata = {"seconds": seconds, "trials": trials, "parts": list(self.best)}
        write_state(self.folder, self.fingerprint, len(self.trials), groups, metadata)


def _read_parts(folder: Path | None, fingerprint: str) -> list[str]:
    found = read_state(folder, fingerprint, {}) if folder else None
    return found[0]["parts"] if found else []
