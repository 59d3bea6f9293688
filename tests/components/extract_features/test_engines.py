"""The engines that a machine offers, and their features, which agree."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from components.extract_features import engines
from components.extract_features.engines import (
    Engine,
    build_network,
    difference,
    possible_engines,
)
from components.extract_features.openvino_network import build_openvino_network
from regraft_core.backbones.backbone_table import find_backbone
from regraft_core.backbones.build import build_backbone
from regraft_core.formats.options.extract_features import FeatureOptions
from regraft_core.runtime import machine
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.openvino_models import EngineError

CPU: list[tuple[int, int]] = []
TINY = find_backbone("tiny")


@pytest.mark.parametrize(
    ("options", "installed", "half", "expected"),
    [
        ({}, True, True, "tf float32, tf bfloat16, openvino float32, openvino bfloat16"),
        ({}, True, False, "tf float32, openvino float32"),
        ({}, False, True, "tf float32, tf bfloat16"),
        ({}, False, False, "tf float32"),
        ({"feature_engine": "tf", "precision": "float32"}, True, True, "tf float32"),
        ({"precision": "float32"}, True, True, "tf float32, openvino float32"),
        ({"precision": "bfloat16"}, True, True, "tf bfloat16, openvino bfloat16"),
        ({"precision": "mixed"}, True, False, "tf bfloat16, openvino bfloat16"),
        ({"feature_engine": "openvino"}, True, True, "openvino float32, openvino bfloat16"),
    ],
)
def test_a_cpu_offers_what_is_installed_and_allowed(
    options: dict[str, Any], installed: bool, half: bool, expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(engines, "is_engine_installed", lambda _: installed)
    for place in (engines, machine):
        monkeypatch.setattr(place, "computes_bfloat16", lambda: half)
    possible = possible_engines(FeatureOptions(**options), CPU)
    assert ", ".join(map(str, possible)) == expected


HOPPER, TURING, PASCAL = (9, 0), (7, 5), (6, 1)


@pytest.mark.parametrize(
    ("gpus", "options", "halves"),
    [
        ([HOPPER], {}, ["float32", "float16", "bfloat16"]),
        ([TURING], {}, ["float32", "float16"]),
        ([PASCAL], {}, ["float32"]),
        ([HOPPER, TURING], {}, ["float32", "float16"]),  # each computes a part
        ([HOPPER], {"precision": "float32"}, ["float32"]),
        ([HOPPER], {"precision": "mixed", "batch_size": 64}, ["bfloat16"]),
        ([TURING], {"precision": "mixed"}, ["float16"]),
        ([HOPPER], {"feature_engine": "tf", "batch_size": 64}, ["float32", "float16", "bfloat16"]),
    ],
)
def test_gpus_offer_precisions_larger_batches_and_xla(
    gpus: list[tuple[int, int]], options: dict[str, Any], halves: list[str]
) -> None:
    names = [f"tf {half}" for half in halves]
    plain = [*names, *(f"{name} in batches of 256" for name in names)]
    compiled = [text.replace(name, f"{name} with XLA") for text in plain for name in names
                if text.startswith(f"{name}")]  # fmt: skip
    assert list(map(str, possible_engines(FeatureOptions(**options), gpus))) == plain + compiled
    larger = FeatureOptions(**options | {"batch_size": 256})
    assert not any(engine.batch_size for engine in possible_engines(larger, gpus))


def test_a_pinned_engine_of_a_gpu_is_the_only_one() -> None:
    pinned = FeatureOptions(feature_engine="tf", precision="float32")
    assert possible_engines(pinned, [HOPPER]) == [Engine()]
    pinned = FeatureOptions(feature_engine="openvino", precision="float32")
    assert possible_engines(pinned, [HOPPER]) == [Engine("openvino")]


def test_what_this_machine_lacks_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "computes_bfloat16", lambda: False)
    with pytest.raises(InputError, match="precision: expected a processor that computes in bfl"):
        possible_engines(FeatureOptions(precision="bfloat16"), CPU)
    packages = {"openvino": "not_installed_here"}
    monkeypatch.setattr("regraft_core.formats.engine_packages.ENGINE_PACKAGES", packages)
    with pytest.raises(InputError, match=r"openvino needs not_.*regraft\[openvino\].*engine auto"):
        possible_engines(FeatureOptions(feature_engine="openvino"), CPU)
    assert {one.runtime for one in possible_engines(FeatureOptions(), CPU)} == {"tf"}


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return build_backbone(TINY, 32)


@pytest.fixture(scope="module")
def extractor(model: keras.Model) -> keras.Model:
    """An extractor whose outputs have another order than their names."""
    pooled = keras.layers.GlobalAveragePooling2D()(model.output)
    return keras.Model(model.input, {"gap": pooled, "cut": model.get_layer("block1_out").output})


PIXELS = np.random.default_rng(0).uniform(0, 255, (5, 32, 32, 3)).astype(np.float32)


def test_openvino_computes_the_same_features(model: keras.Model, extractor: keras.Model) -> None:
    """In one batch, in one that is not full, and by several threads."""
    exact = build_network(Engine(), model, extractor, TINY, 5)(tf.constant(PIXELS))
    network = build_network(Engine("openvino"), model, extractor, TINY, 4)
    parts = [network(tf.constant(part)) for part in (PIXELS[:4], PIXELS[4:])]
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in exact}
    assert {name: array.shape for name, array in arrays.items()} == {
        "cut": (5, *extractor.output["cut"].shape[1:]), "gap": (5, extractor.output["gap"].shape[1])
    }  # fmt: skip
    assert difference(arrays, exact) < 1e-5
    rounded = build_network(Engine("openvino", "bfloat16"), model, extractor, TINY, 5)
    assert difference(rounded(tf.constant(PIXELS)), exact) < 0.05


def test_xla_computes_the_same_features(model: keras.Model, extractor: keras.Model) -> None:
    """In full batches and in one that is filled up."""
    exact = build_network(Engine(), model, extractor, TINY, 5)(tf.constant(PIXELS))
    network = build_network(Engine(xla=True), model, extractor, TINY, 4)
    parts = [network(tf.constant(part)) for part in (PIXELS[:4], PIXELS[4:])]
    assert [len(part["gap"]) for part in parts] == [4, 1]
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in exact}
    assert difference(arrays, exact) < 1e-5


def test_openvino_sends_nothing() -> None:
    """Its package for messages cannot be imported, so that importing OpenVINO sends none."""
    graph = tf.function(lambda pixels: {"sum": tf.reduce_sum(pixels, [1, 2, 3])})
    concrete = graph.get_concrete_function(tf.TensorSpec([None, 2, 2, 3]))
    network = build_openvino_network(concrete, 3, "", 2)
    ones = np.ones((2, 2, 2, 3), np.float32)
    for factor in (1.0, 2.0):  # each result has memory of its own
        assert network(factor * ones)["sum"].tolist() == [12.0 * factor] * 2
    assert sys.modules["openvino_telemetry"] is None


def test_a_graph_that_openvino_cannot_convert_is_an_error_of_one_line() -> None:
    @tf.function(input_signature=[tf.TensorSpec([None, 2, 2, 3])])
    def graph(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"text": tf.strings.length(tf.strings.as_string(pixels))}

    with pytest.raises(EngineError) as raised:
        build_openvino_network(graph.get_concrete_function(), 3, "", 2)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("attempt", range(4))
def test_threads_can_begin_to_use_openvino_at_the_same_time(attempt: int) -> None:
    """Half of the processes would hang otherwise."""
    code = """
import sys, threading
from components.extract_features.openvino_network import import_openvino
openvino = import_openvino()
sys.setswitchinterval(1e-6)
start = threading.Barrier(8)
def use():
    start.wait()
    openvino.Type.f32.to_dtype()
threads = [threading.Thread(target=use, daemon=True) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(30)
sys.exit(any(thread.is_alive() for thread in threads))
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
