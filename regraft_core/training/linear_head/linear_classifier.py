"""A linear classifier of scaled features, and how features are scaled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft_core.training.stored_part import StoredPart


@dataclass(frozen=True)
class Scaling:
    """What is subtracted from features and what they are multiplied by, float32 [width] each."""

    shift: NDArray[np.float32]
    factor: NDArray[np.float32]

    def apply(self, rows: NDArray[Any] | StoredPart) -> NDArray[np.float32]:
        """Return scaled rows, float32 [n, width]."""
        scaled: NDArray[np.float32] = rows.astype(np.float32)
        scaled -= self.shift
        scaled *= self.factor
        return scaled


@dataclass(frozen=True)
class Weights:
    """A linear classifier: logits are `rows @ kernel + bias`, of shape [width, k] and [k]."""

    kernel: NDArray[np.float64]
    bias: NDArray[np.float64]

    def logits(self, rows: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the logits of rows, float64 [n, k]."""
        product: NDArray[np.float64] = (rows @ self.kernel.astype(rows.dtype)).astype(np.float64)
        product += self.bias
        return product

    def of_features(self, scaling: Scaling) -> Weights:
        """Return the same classifier for features before they are scaled."""
        kernel = self.kernel * scaling.factor[:, None].astype(np.float64)
        return Weights(kernel, self.bias - scaling.shift.astype(np.float64) @ kernel)
