"""An export for OpenVINO; that its predictions are the same is for the tests of `verify`."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf

from components.export.openvino_network import write_for_openvino
from components.export.signatures import traced
from regraft_core.formats.openvino_files import NETWORK_FILE

SPEC = tf.TensorSpec([None, 4, 4, 3], tf.float32)


def test_a_network_that_openvino_cannot_compute_is_left_out_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "assets.extra").mkdir()
    (tmp_path / "assets.extra" / "other").touch()
    network = traced(
        lambda pixels: [tf.numpy_function(lambda found: found, [pixels], tf.float32)], SPEC
    )
    assert not write_for_openvino(tmp_path, network)
    assert [path.name for path in (tmp_path / "assets.extra").iterdir()] == ["other"]
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("[regraft] export: OpenVINO cannot compute this network, so TensorFlow")


def test_a_network_that_openvino_computes_is_written(tmp_path: Path) -> None:
    network = traced(lambda pixels: [tf.reduce_mean(pixels, [1, 2])], SPEC)
    assert write_for_openvino(tmp_path, network)
    assert (tmp_path / NETWORK_FILE).exists()
    assert (tmp_path / NETWORK_FILE).with_suffix(".bin").exists()
