from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from regraft_core.runtime.openvino_models import EngineError, load_network, write_network

PX = 6


@pytest.fixture(scope="module")
def graph() -> Any:
    """A convolution with a variable; its outputs are mean, maximum and again mean of filters."""
    filters = tf.Variable(tf.random.stateless_normal([3, 3, 3, 4], [1, 2]))
    spec = tf.TensorSpec([None, PX, PX, 3], tf.float32)

    @tf.function(input_signature=[spec], autograph=False)
    def network(pixels: tf.Tensor) -> list[tf.Tensor]:
        maps = tf.nn.conv2d(pixels / 255.0, filters, 1, "SAME")
        mean = tf.reduce_mean(maps, [1, 2])
        return [mean, tf.reduce_max(maps, [1, 2]), tf.identity(mean)]

    concrete = network.get_concrete_function()
    concrete.filters = filters  # which a concrete function does not keep alive
    return concrete


@pytest.fixture(scope="module")
def file(graph: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("network") / "network.xml"
    write_network(path, graph)
    return path


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(count).uniform(0, 255, (count, PX, PX, 3)).astype(np.float32)


def test_a_written_network_has_the_outputs_of_the_graph_for_any_batch(
    graph: Any, file: Path
) -> None:
    network = load_network(file, "")
    batches = [pixels(count) for count in (1, 2, 5, 7, 1, 3)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(network, batches))
    for batch, outputs in zip(batches, found, strict=True):
        expected = graph(tf.constant(batch))
        assert len(outputs) == len(expected) == 3
        for received, exact in zip(outputs, expected, strict=True):
            np.testing.assert_allclose(received, exact, atol=1e-5)


def test_the_weights_of_a_written_network_are_in_float32(file: Path) -> None:
    assert file.with_suffix(".bin").stat().st_size >= 4 * 3 * 3 * 3 * 4


def test_a_file_that_openvino_cannot_read_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "network.xml").write_text("<net")
    for path in (tmp_path / "network.xml", tmp_path / "none.xml"):
        with pytest.raises(EngineError) as raised:
            load_network(path, "")
        assert 0 < len(str(raised.value)) <= 200 and "\n" not in str(raised.value)


def test_a_function_that_openvino_cannot_convert_is_an_error_of_one_line(tmp_path: Path) -> None:
    @tf.function(input_signature=[tf.TensorSpec([None, PX, PX, 3], tf.float32)], autograph=False)
    def network(values: tf.Tensor) -> list[tf.Tensor]:
        return [tf.numpy_function(lambda found: found, [values], tf.float32)]

    with pytest.raises(EngineError, match=r"^[^\n]*PyFunc[^\n]*$"):
        write_network(tmp_path / "network.xml", network.get_concrete_function())
