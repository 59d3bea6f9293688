"""The thresholds by which an exported model decides about labels, sets of labels and abstention.

`evaluate` sets them, `export` writes them into the graph, and `verify` applies them to the trained
model's probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

LABEL_SET, ABSTAIN = "label_set", "abstain"
SELECTED = "selected"


@dataclass(frozen=True)
class ServedThresholds:
    """What an exported model decides in addition to its prediction; None for nothing.

    `set_probability` is that of `label_sets`. The model abstains if its confidence is below
    `accepted_confidence`. `by_label` is only of a model for several labels an image: an image gets
    those whose probability reaches the threshold of their class.
    """

    set_probability: float | None = None
    accepted_confidence: float | None = None
    by_label: tuple[float, ...] | None = None

    @classmethod
    def of(cls, details: Mapping[str, Any]) -> Self:
        """Return those in the `details` of an evaluation; one from before has none."""
        sets, abstention = details.get("prediction_sets"), details.get("abstention")
        labels = details.get("labels")
        return cls(
            sets["threshold"] if sets else None,
            abstention["threshold"] if abstention else None,
            tuple(labels["thresholds"]) if labels else None,
        )

    def label_sets(self, probabilities: NDArray[np.floating]) -> NDArray[np.bool_] | None:
        """Return the sets of `label_sets`; None without a threshold."""
        if self.set_probability is None:
            return None
        return label_sets(probabilities, self.set_probability)

    def abstains(self, probabilities: NDArray[np.floating]) -> NDArray[np.bool_] | None:
        """Return whether the model abstains, bool [n], for probabilities float [n, classes].

        None without a threshold.
        """
        if self.accepted_confidence is None:
            return None
        return np.asarray(probabilities.max(axis=1) < self.accepted_confidence)

    def selects(self, probabilities: NDArray[np.floating]) -> NDArray[np.bool_] | None:
        """Return which labels the images get, bool [n, classes]; None with one label an image."""
        if self.by_label is None:
            return None
        return np.asarray(probabilities >= np.array(self.by_label, np.float32))


NO_THRESHOLDS = ServedThresholds()


def label_sets(probabilities: NDArray[np.floating], threshold: float) -> NDArray[np.bool_]:
    """Return which labels are in the sets of images, bool [n, classes].

    Those whose probability, float [n, classes], is at least the threshold, and always the predicted
    one, so that no set is empty.
    """
    inside = probabilities >= threshold
    inside[np.arange(len(inside)), probabilities.argmax(axis=1)] = True
    return inside
