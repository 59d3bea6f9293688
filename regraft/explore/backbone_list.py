"""What `regraft backbones` lists: the backbones by name, and how fast this machine computes them.

The milliseconds are measured on request and kept in the user's cache. Without a measurement,
TensorFlow is not imported.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from regraft_core.backbones.at_hand import has_imagenet_weights
from regraft_core.backbones.backbone_row import KERAS, Backbone
from regraft_core.backbones.backbone_table import BACKBONES, find_backbone, identified_backbone
from regraft_core.backbones.hub_presets import (
    family_of,
    has_weights,
    image_presets,
    is_here,
    preset_parameters,
)
from regraft_core.backbones.parameter_counts import PARAMETERS
from regraft_core.formats.backbone_names import PREFIX
from regraft_core.runtime.errors import RegraftError
from regraft_core.runtime.kept_results import KeptResults
from regraft_core.runtime.quiet_start import quiet_start

KEPT = KeptResults(Path("~/.cache/regraft/backbones.json"))
BATCH, BATCHES = 16, 5


@dataclass(frozen=True)
class BackboneFacts:
    """One backbone: unknown numbers are None.

    `image_px` is the default size; `parameters` are without a classification head; `image_ms` are
    milliseconds per image of a batch in float32, as last measured on this kind of machine.
    """

    name: str
    image_px: int | None
    license: str
    parameters: int | None
    image_ms: float | None
    weights_from: str
    here: bool

    def as_json(self) -> dict[str, Any]:
        """Return the value that `--json` prints."""
        return asdict(self)


def list_backbones(
    names: Sequence[str] = (), scaling: str = "auto", *, measure: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[BackboneFacts]:  # fmt: skip
    """Return facts about backbones.

    Args:
        names: of the backbones; none for the table, and the presets of KerasHub if installed.
        scaling: of the pixels, for a file that does not say.
        measure: whether to measure those whose weights are here.
        progress: receives how many are measured, and of how many.

    Raises:
        InputError: a name is unknown, or a file cannot be read.
    """
    found = _all_facts(names, scaling)
    if not measure:
        return found
    here = [one.name for one in found if one.here]
    for index, name in enumerate(here):
        _measure(find_backbone(name, scaling))
        if progress is not None:
            progress(index + 1, len(here))
    return _all_facts(names, scaling)


def _all_facts(names: Sequence[str], scaling: str) -> list[BackboneFacts]:
    if names:
        return [_facts(find_backbone(name, scaling)) for name in names]
    found = [_facts(row) for row in BACKBONES.values()]
    return found + [_preset_facts(f"{PREFIX}{name}") for name in image_presets()]


def _facts(row: Backbone) -> BackboneFacts:
    here = has_weights(row.location) if row.source == "preset" else True
    if row.source == "table":
        here = has_imagenet_weights(row) or row.weights_from.startswith("none")
    return BackboneFacts(
        name=row.name,
        image_px=row.image_px or None,
        license=row.license,
        parameters=_parameters(row),
        image_ms=KEPT.find(_key(row)),
        weights_from="Keras, downloaded once" if row.weights_from == KERAS else row.weights_from,
        here=here,
    )


def _preset_facts(name: str) -> BackboneFacts:
    """Return what is known of a preset by name; only one that is here is read."""
    if is_here(name):
        try:
            return _facts(find_backbone(name))
        except RegraftError:  # incomplete in the cache
            pass
    family = family_of(name)
    return BackboneFacts(
        name=name,
        image_px=None,
        license=family.license,
        parameters=preset_parameters(name),
        image_ms=None,
        weights_from="KerasHub, downloaded once from Kaggle",
        here=False,
    )


def _parameters(row: Backbone) -> int | None:
    if row.source == "table":
        return PARAMETERS.get(row.name)
    kept = KEPT.find(["parameters", *_key(row)])
    return kept if isinstance(kept, int) else preset_parameters(row.name)


def _key(row: Backbone) -> list[Any]:
    """Return what a measurement is kept for: of a file, its content, which can change."""
    is_here = row.source != "preset" or has_weights(row.location)
    return [identified_backbone(row.name) if is_here else row.name, row.image_px]


def _measure(row: Backbone) -> None:
    """Measure the milliseconds per image, and keep them with the number of parameters."""
    if not row.image_px:
        return
    with quiet_start():
        import numpy as np
        import tensorflow as tf

        from regraft_core.backbones.build import build_backbone

        model = build_backbone(row)
    compute = tf.function(
        lambda images: model(images, training=False),
        input_signature=[tf.TensorSpec([BATCH, *model.input_shape[1:]], tf.float32)],
    )
    images = tf.constant(np.zeros((BATCH, *model.input_shape[1:]), np.float32))
    compute(images).numpy()  # the first call takes longer
    seconds = list(_times(lambda: compute(images).numpy()))
    KEPT.keep(_key(row), round(1000 * statistics.median(seconds) / BATCH, 3))
    KEPT.keep(["parameters", *_key(row)], int(model.count_params()))


def _times(call: Callable[[], Any]) -> Iterator[float]:
    for _ in range(BATCHES):
        start = time.perf_counter()
        call()
        yield time.perf_counter() - start
