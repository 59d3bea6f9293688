"""Batches that cannot fit are smaller from the start."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import keras
import pytest
import tensorflow as tf

from regraft_core.training.batch_limit import INDEXED, fitting_batch, largest_batch
from tests.regraft_core.runtime.nvidia import install, report


def model(side: int, filters: int) -> keras.Model:
    images = keras.Input((side, side, 3))
    maps = keras.layers.Conv2D(filters, 3, padding="same")(images)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(maps))


def test_a_layer_needs_its_input_and_its_output() -> None:
    per_image = 8 * 8 * (3 + 5) * 4
    assert largest_batch(model(8, 5), 10 * per_image) == 10
    assert largest_batch(model(8, 5), 10 * per_image - 1) == 9
    assert largest_batch(model(8, 5), 10 * per_image, value_bytes=2) == 20
    assert largest_batch(model(8, 5), 0) >= 4096
    assert largest_batch(model(8, 5), 0, indexed=8 * 8 * 5 * 7) == 7


def test_a_batch_of_vgg16_that_a_card_of_80_gb_cannot_compute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first layer alone needs 137 GB, and its output has more values than 32 bits can index."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    install(monkeypatch, tmp_path, report())
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [SimpleNamespace()])
    first_block = model(512, 64)
    assert fitting_batch("extract_features", 2048, first_block) == 64
    assert 64 * 512 * 512 * 64 <= INDEXED < 128 * 512 * 512 * 64 + 1
    line = "extract_features: batches of 2048 cannot fit in 85.5 GB, goes on with 64"
    assert line in capsys.readouterr().out
    assert fitting_batch("extract_features", 64, first_block) == 64
    assert fitting_batch("extract_features", 64, first_block, gpu_memory_mb=1000) == 8
    assert capsys.readouterr().out.count("\n") == 1


def test_on_a_cpu_the_main_memory_counts() -> None:
    assert fitting_batch("evaluate", 1 << 22, model(512, 64)) < 1 << 22
    assert fitting_batch("evaluate", 32, model(8, 5)) == 32
