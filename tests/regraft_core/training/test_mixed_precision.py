"""Half precision in training only, where GPUs gain from it."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from regraft_core.backbones.build import build_backbone
from regraft_core.training.mixed_precision import (
    accelerate,
    use_mixed_precision,
)


@pytest.mark.parametrize(
    ("precision", "capabilities", "expected"),
    [
        ("auto", [], False),
        ("auto", [(7, 0)], True),
        ("auto", [(8, 6), (8, 6)], True),
        ("auto", [(6, 1)], False),
        ("auto", [(8, 0), (6, 1)], False),
        ("auto", [(0, 0)], False),
        ("float32", [(9, 0)], False),
        ("mixed", [], True),
    ],
)
def test_auto_uses_half_precision_if_every_gpu_has_tensor_cores(
    precision: str, capabilities: list[tuple[int, int]], expected: bool
) -> None:
    assert use_mixed_precision(precision, capabilities) is expected  # type: ignore[arg-type]


def test_half_precision_ends_with_the_training() -> None:
    """Layers compute in float16 with float32 variables, and are saved as float32 layers."""
    backbone = build_backbone("tiny", 32)
    head = keras.Sequential([keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)])
    model = keras.Model(backbone.input, head(backbone.output))
    pixels = np.random.default_rng(0).uniform(-1, 1, (4, 32, 32, 3)).astype(np.float32)
    before = model(pixels).numpy()
    with accelerate(backbone.layers, mixed=True):
        assert backbone(pixels).dtype == "float16"
        half = model(pixels)
        assert half.dtype == "float32"
        assert {variable.dtype for variable in model.variables} == {"float32"}
    np.testing.assert_array_equal(model(pixels).numpy(), before)
    assert 0 < np.abs(half.numpy() - before).max() < 0.02
    assert "float16" not in model.to_json()
