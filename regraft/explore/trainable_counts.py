"""The parameters that a fine-tuning strategy would train, counted before any training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from regraft_core.backbones.backbone_table import Backbone
from regraft_core.runtime.errors import unknown_name

STRATEGIES = ("head", "top", "full")
BATCH_NORMS = ("frozen", "adapt")


@dataclass(frozen=True)
class StrategyOptions:
    """A fine-tuning strategy, its cut (`auto` is the backbone's own), and its new head."""

    strategy: str
    cut: str = "auto"
    batch_norm: str = "frozen"
    classes: int = 10


@dataclass(frozen=True)
class StrategyCounts:
    """What one strategy would train. Forward FLOPs and bytes in the cache are per image.

    `note` states why another strategy is counted than was asked for.
    """

    strategy: str
    cut: str | None
    trained_layers: int
    first_trained: str
    trainable_parameters: int
    frozen_parameters: int
    forward_flops: int
    cache_bytes: int
    note: str = ""


def count_trainable(model: Any, row: Backbone, options: StrategyOptions) -> StrategyCounts:
    """Make the layers of a backbone trainable as a strategy does, and count them with a new head.

    Raises:
        InputError: unknown strategy, treatment of BatchNormalization, or cut.
    """
    from regraft.explore.model_summary import FLOAT16_BYTES, cut_rows
    from regraft_core.backbones.cuts import find_cut, has_cut, join
    from regraft_core.backbones.flops import model_flops
    from regraft_core.training.heads import build_head, pooling_layer
    from regraft_core.training.model_files import count_parameters

    if options.strategy not in STRATEGIES:
        raise unknown_name("strategy", options.strategy, STRATEGIES)
    if options.batch_norm not in BATCH_NORMS:
        raise unknown_name("batch norm", options.batch_norm, BATCH_NORMS)
    note, width = "", int(model.output_shape[-1])
    if (options.strategy, options.cut) == ("top", "auto") and not has_cut(model):
        options = replace(options, strategy="head")
        note = "The backbone has no cut point, so top trains only the head."
    head = build_head(width, options.classes)
    complete = join(model, [pooling_layer("gap"), *head.layers[1:]])
    cut, flops, cache = "", 0, 0
    if options.strategy == "full":
        flops = model_flops(model)
    elif options.strategy == "head":
        cache = FLOAT16_BYTES * width
    else:
        cut = find_cut(model, row.cut if options.cut == "auto" else options.cut).name
        at = next(point for point in cut_rows(model) if point.name == cut)
        flops, cache = at.flops_above, at.cache_bytes
    _unfreeze(model, options, cut)
    trained = [layer.name for layer in model.layers if layer.trainable_weights]
    counted = count_parameters(complete)
    return StrategyCounts(
        strategy=options.strategy,
        cut=cut or None,
        trained_layers=len(trained),
        first_trained=trained[0] if trained else "",
        trainable_parameters=counted.trainable,
        frozen_parameters=counted.frozen,
        forward_flops=flops,
        cache_bytes=cache,
        note=note,
    )


def _unfreeze(model: Any, options: StrategyOptions, cut: str) -> None:
    """Make the layers of a backbone trainable as the step `fine_tune` does."""
    import keras

    from regraft_core.backbones.cuts import freeze, split

    freeze(model)
    if options.strategy == "head":
        return
    for layer in (split(model, cut)[1] if cut else model).layers:
        batch_norm = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = not batch_norm or options.batch_norm == "adapt"
