"""What a fine-tuning strategy would train of a backbone, counted before any training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from regraft_core.backbones.table import Backbone
from regraft_core.formats.options import HeadOptions
from regraft_core.runtime.errors import unknown_name

STRATEGIES = ("head", "top", "full")
BATCH_NORMS = ("frozen", "adapt")


@dataclass(frozen=True)
class PlanOptions:
    """The strategy, where it cuts, and the head that is put on; `auto` is the backbone's cut."""

    strategy: str
    cut: str = "auto"
    batch_norm: str = "frozen"
    classes: int = 10
    dense_width: int = 0


@dataclass(frozen=True)
class PlanRow:
    """What one strategy would train; FLOPs (forward) and bytes in the cache are of one image."""

    strategy: str
    cut: str | None
    trained_layers: int
    first_trained: str
    trainable_parameters: int
    frozen_parameters: int
    forward_flops: int
    cache_bytes: int


def plan_training(model: Any, row: Backbone, wanted: PlanOptions) -> PlanRow:
    """Make trainable, of a backbone, what a strategy trains, and count it with a new head.

    Raises:
        InputError: there is no such strategy, treatment of BatchNormalization, or cut.
    """
    from regraft.explore.flops import model_flops
    from regraft.explore.model_summary import FLOAT16_BYTES, cut_rows
    from regraft_core.backbones.cuts import find_cut, join
    from regraft_core.training.heads import build_head, pooling_layer
    from regraft_core.training.model_files import count_parameters

    if wanted.strategy not in STRATEGIES:
        raise unknown_name("plan", wanted.strategy, STRATEGIES)
    if wanted.batch_norm not in BATCH_NORMS:
        raise unknown_name("batch norm", wanted.batch_norm, BATCH_NORMS)
    head = build_head(row.width, wanted.classes, HeadOptions(dense_width=wanted.dense_width))
    complete = join(model, [pooling_layer("gap"), *head.layers[1:]])
    cut, flops, cache = "", 0, 0
    if wanted.strategy == "full":
        flops = model_flops(model)
    elif wanted.strategy == "head":
        cache = FLOAT16_BYTES * row.width
    else:
        cut = find_cut(model, row.cut if wanted.cut == "auto" else wanted.cut).name
        at = next(point for point in cut_rows(model) if point.name == cut)
        flops, cache = at.flops_above, at.cache_bytes
    _unfreeze(model, wanted, cut)
    trained = [layer.name for layer in model.layers if layer.trainable_weights]
    counted = count_parameters(complete)
    return PlanRow(
        strategy=wanted.strategy,
        cut=cut or None,
        trained_layers=len(trained),
        first_trained=trained[0] if trained else "",
        trainable_parameters=counted.trainable,
        frozen_parameters=counted.frozen,
        forward_flops=flops,
        cache_bytes=cache,
    )


def _unfreeze(model: Any, wanted: PlanOptions, cut: str) -> None:
    """Make trainable, of a backbone, what the step `fine_tune` would."""
    import keras

    from regraft_core.backbones.cuts import freeze, split

    freeze(model)
    if wanted.strategy == "head":
        return
    for layer in (split(model, cut)[1] if cut else model).layers:
        batch_norm = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = not batch_norm or wanted.batch_norm == "adapt"
