"""The parts of a backbone that a search trains: above cuts from late to early, then all of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import keras

from components.fine_tune.strategies import TRAINING_PASSES, Parts
from regraft_core.backbones.cuts import block_ends, find_cut
from regraft_core.backbones.flops import model_flops
from regraft_core.training.feature_store import CUT

# A part that trains hardly more operations than another one is not worth a search of its own.
MIN_RATIO = 1.5


@dataclass(frozen=True)
class TrainedPart:
    """A part to train: its strategy, its cut (None: all), and the operations per image."""

    strategy: str
    cut: str | None
    flops: float

    @property
    def name(self) -> str:
        """The name in reports."""
        return self.strategy if self.cut is None else f"{self.strategy} from {self.cut}"

    def of(self, parts: Parts) -> Parts:
        """Return the input of fine-tuning for this part; one cut only has cached activations."""
        features = parts.features
        if self.cut is None or self.cut == features.cut:
            return parts
        arrays = {name: shape for name, shape in features.arrays.items() if name != CUT}
        changed = features.model_copy(update={"cut": self.cut, "arrays": arrays})
        return replace(parts, features=changed)


def find_parts(parts: Parts) -> list[TrainedPart]:
    """Return the parts, from the one that trains least to the whole backbone.

    The first is above the cut of the features, whose activations are cached unless they are too
    many. The others read images, because activations of early layers are large: the layers below
    their cut compute in each step, but are not trained.
    """
    backbone = parts.backbone
    total, limit = model_flops(backbone), 1 << 30
    found: list[TrainedPart] = []
    trained = 0.0
    if parts.features.cut is not None:
        first = find_cut(backbone, parts.features.cut)
        limit, trained = first.index, _above(backbone, first.tensor)
        below = 0.0 if parts.cached else total - trained
        found.append(TrainedPart("top", first.name, below + TRAINING_PASSES * trained))
    for end in reversed(block_ends(backbone)[:-1]):
        above = _above(backbone, end.tensor)
        if end.index < limit and MIN_RATIO * trained <= above <= total / MIN_RATIO:
            found.append(TrainedPart("top", end.name, total - above + TRAINING_PASSES * above))
            trained = above
    return [*found, TrainedPart("full", None, float(TRAINING_PASSES * total))]


def _above(backbone: keras.Model, tensor: object) -> float:
    return float(model_flops(keras.Model(tensor, backbone.output)))
