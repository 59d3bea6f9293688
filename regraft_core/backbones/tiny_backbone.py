"""A backbone with ten thousand weights for tests: convolutions, BatchNorm, residual connection."""

from __future__ import annotations

from typing import Any


def _conv(x: Any, width: int, stride: int, name: str) -> Any:
    from keras import layers

    x = layers.Conv2D(width, 3, stride, padding="same", use_bias=False, name=f"{name}_conv")(x)
    return layers.BatchNormalization(name=f"{name}_bn")(x)


def tiny(*, include_top: bool, weights: str | None, input_shape: tuple[int, int, int]) -> Any:
    """Build the tiny backbone: images in -1..1 to 32 channels at an eighth of the size.

    The arguments are those of keras.applications, but there is no classification head, and the
    weights are always the initial ones, as the table states.
    """
    import keras
    from keras import layers

    if include_top or weights not in (None, "imagenet"):
        raise ValueError(f"expected no head and no file, got {include_top=}, {weights=}")
    inputs = layers.Input(input_shape, name="image")
    x = layers.ReLU(name="stem_out")(_conv(inputs, 12, 2, "stem"))
    x = layers.ReLU(name="block1_out")(_conv(x, 16, 2, "block1"))
    x = shortcut = layers.ReLU(name="block2_out")(_conv(x, 16, 1, "block2a"))
    x = layers.Add(name="block2_add")([_conv(x, 16, 1, "block2b"), shortcut])
    x = layers.ReLU(name="block3_out")(_conv(x, 32, 2, "block3"))
    return keras.Model(inputs, x, name="tiny")
