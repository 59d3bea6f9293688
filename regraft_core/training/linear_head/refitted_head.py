"""The chosen head, fitted again to train and validation, and the logits it is calibrated by.

Candidates are compared fitted to train alone. If the head is chosen, it serves with the weights of
all images; what the validation split then says about them it says by the logits from before.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft_core.formats.array_file import read_arrays, write_arrays
from regraft_core.formats.manifests.model import ModelManifest

REFIT_FILE = "refit.npz"


@dataclass(frozen=True)
class RefittedHead:
    """`kernel` [width, k] and `bias` [k] of the layer of the logits, float32.

    `validation_logits` float32 [n, k] are of the head fitted to train alone; `validation_labels`
    int32 [n]. `held_out_logits` float32 [m, k] and `held_out_labels` int32 [m] are those of train
    images by the fits that did not see them; files from before have none. With several labels an
    image, labels are uint8 [n, k].
    """

    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]
    validation_logits: NDArray[np.float32]
    validation_labels: NDArray[Any]
    held_out_logits: NDArray[np.float32] = field(
        default_factory=lambda: np.empty((0, 0), np.float32)
    )
    held_out_labels: NDArray[Any] = field(default_factory=lambda: np.empty(0, np.int32))

    def write(self, folder: str | os.PathLike[str]) -> str:
        """Write the file into `folder`; return its SHA-256."""
        return write_arrays(folder, REFIT_FILE, vars(self))

    @classmethod
    def of_candidate(
        cls, folder: str | os.PathLike[str], manifest: ModelManifest
    ) -> RefittedHead | None:
        """Return the refitted head of a candidate; None if its head was not fitted again.

        Raises:
            InputError: as `read`.
        """
        digest = manifest.head.get("refit")
        if manifest.strategy != "head" or digest is None:
            return None
        return cls.read(folder, digest)

    @classmethod
    def read(cls, folder: str | os.PathLike[str], digest: str) -> RefittedHead:
        """Read the file of `folder`.

        Raises:
            InputError: it is missing, or does not have the digest.
        """
        return cls(**read_arrays(folder, REFIT_FILE, digest))
