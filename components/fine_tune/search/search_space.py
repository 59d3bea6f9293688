"""The parts of a backbone that a search trains: above cuts from late to early, then all of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import keras

from components.fine_tune.strategies import TRAINING_PASSES, Parts
from regraft_core.backbones.cuts import block_ends, find_cut
from regraft_core.backbones.flops import model_flops
from regraft_core.formats.options.extract_features import Strength
from regraft_core.training.feature_store import CUT

# A part that trains hardly more operations than another one, or whose steps take nearly as long as
# those of all layers, is not worth a search of its own.
MIN_RATIO = 1.5


@dataclass(frozen=True)
class Views:
    """The augmentation of training images."""

    strength: Strength = "off"
    flips: bool = False

    @property
    def name(self) -> str:
        """The name in reports, empty for the stored images."""
        if self.strength == "off":
            return ""
        return f"{self.strength} views with flips" if self.flips else f"{self.strength} views"


@dataclass(frozen=True)
class TrainedPart:
    """A part to train: its strategy, its cut (None: all), and the operations per image.

    Its images are augmented as `views` say, first as the cached views are; `other_views` are those
    to try where a training no longer gains.
    """

    strategy: str
    cut: str | None
    flops: float
    views: Views = Views()
    other_views: tuple[Views, ...] = ()

    @property
    def name(self) -> str:
        """The name in reports."""
        return self.strategy if self.cut is None else f"{self.strategy} from {self.cut}"

    @property
    def all_views(self) -> list[str]:
        """The names of all its views, the first ones its own."""
        return [views.name for views in (self.views, *self.other_views)]

    def with_views(self, name: str) -> TrainedPart:
        """Return the part with those of its views that have this name."""
        views = next(one for one in (self.views, *self.other_views) if one.name == name)
        return replace(self, views=views)

    def of(self, parts: Parts) -> Parts:
        """Return the input of fine-tuning for this part; one cut only has cached activations."""
        features = parts.features
        changed = {"augment": self.views.strength, "flips": self.views.flips}
        features = features.model_copy(update=changed)
        if self.cut is not None and self.cut != features.cut:
            arrays = {name: shape for name, shape in features.arrays.items() if name != CUT}
            features = features.model_copy(update={"cut": self.cut, "arrays": arrays})
        return replace(parts, features=features)


def find_parts(parts: Parts) -> list[TrainedPart]:
    """Return the parts, from the one that trains least to the whole backbone.

    The first is above the cut of the features, whose activations are cached unless they are too
    many. The others read images, because activations of early layers are large: the layers below
    their cut compute in each step, but are not trained. They can augment them, unless an
    augmentation was chosen for the cached views.
    """
    backbone = parts.backbone
    total, limit = float(model_flops(backbone)), 1 << 30
    cached, others = _views(parts)
    found: list[TrainedPart] = []
    trained = 0.0
    if parts.features.cut is not None:
        first = find_cut(backbone, parts.features.cut)
        limit, trained = first.index, _above(backbone, first.tensor)
        below = 0.0 if parts.cached else total - trained
        first_views = () if parts.cached else others
        found.append(
            TrainedPart("top", first.name, below + TRAINING_PASSES * trained, cached, first_views)
        )
    for end in reversed(block_ends(backbone)[:-1]):
        above = _above(backbone, end.tensor)
        flops = total - above + TRAINING_PASSES * above
        if (
            end.index < limit
            and above >= MIN_RATIO * trained
            and TRAINING_PASSES * total >= MIN_RATIO * flops
        ):
            found.append(TrainedPart("top", end.name, flops, cached, others))
            trained = above
    return [*found, TrainedPart("full", None, TRAINING_PASSES * total, cached, others)]


def _views(parts: Parts) -> tuple[Views, tuple[Views, ...]]:
    """Return the augmentation of the cached views, and others to try."""
    features = parts.features
    cached = Views(features.augment, features.flips)
    if cached.strength != "off":
        return cached, ()
    flipped = [Views("light", flips=True)] if features.flips_allowed else []
    return cached, (*flipped, Views("light"))


def _above(backbone: keras.Model, tensor: object) -> float:
    return float(model_flops(keras.Model(tensor, backbone.output)))
