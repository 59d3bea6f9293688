"""Half precision in training only, where GPUs gain from it."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from regraft_core.backbones.build import build_backbone
from regraft_core.formats.options.option_types import Precision
from regraft_core.training.loop import Settings, _optimizer
from regraft_core.training.mixed_precision import (
    HalfPrecision,
    accelerate,
    choose_half_precision,
)
from regraft_core.training.rate_schedule import RateSchedule


@pytest.mark.parametrize(
    ("precision", "capabilities", "expected"),
    [
        ("auto", [], ""),
        ("auto", [(7, 0)], "float16"),
        ("auto", [(7, 5), (9, 0)], "float16"),
        ("auto", [(8, 0)], "bfloat16"),
        ("auto", [(8, 6), (9, 0)], "bfloat16"),
        ("auto", [(6, 1)], ""),
        ("auto", [(8, 0), (6, 1)], ""),
        ("auto", [(0, 0)], ""),
        ("float32", [(9, 0)], ""),
        ("mixed", [], "bfloat16"),
        ("mixed", [(7, 0)], "float16"),
        ("mixed", [(9, 0)], "bfloat16"),
        ("bfloat16", [], "bfloat16"),
        ("bfloat16", [(9, 0)], "bfloat16"),
    ],
)
def test_half_precision_follows_the_oldest_gpu(
    precision: Precision, capabilities: list[tuple[int, int]], expected: str
) -> None:
    assert choose_half_precision(precision, capabilities) == expected


@pytest.mark.parametrize(("half", "scaled"), [("", False), ("float16", True), ("bfloat16", False)])
def test_only_float16_scales_the_loss(half: HalfPrecision, scaled: bool) -> None:
    settings = Settings("top", epochs=1, batch_size=8, learning_rate=0.1, seed=0, classes=2,
                        half=half)  # fmt: skip
    optimizer = _optimizer(settings, RateSchedule(cosine_decay=True))
    assert isinstance(optimizer, keras.optimizers.LossScaleOptimizer) is scaled


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_half_precision_ends_with_the_training(half: HalfPrecision) -> None:
    """Layers compute in half precision with float32 variables, and are saved as float32 layers."""
    backbone = build_backbone("tiny", 32)
    head = keras.Sequential([keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)])
    model = keras.Model(backbone.input, head(backbone.output))
    pixels = np.random.default_rng(0).uniform(-1, 1, (4, 32, 32, 3)).astype(np.float32)
    before = model(pixels).numpy()
    with accelerate(backbone.layers, half):
        assert backbone(pixels).dtype == half
        computed = model(pixels)
        assert computed.dtype == "float32"
        assert {variable.dtype for variable in model.variables} == {"float32"}
    np.testing.assert_array_equal(model(pixels).numpy(), before)
    assert 0 < np.abs(computed.numpy() - before).max() < {"float16": 0.02, "bfloat16": 0.1}[half]
    assert half not in model.to_json()
