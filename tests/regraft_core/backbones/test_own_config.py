"""What the configuration of a network's file says, and what is refused; no network is built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import pytest

from regraft_core.backbones.backbone_table import backbone_path, find_backbone
from regraft_core.backbones.own_config import checked_config
from regraft_core.runtime.errors import InputError
from tests.own_networks import layer, sequential, write_network

CONV = layer("Conv2D", filters=4, kernel_size=3)
DIVIDED = {"class_name": "TrueDivide", "config": {"name": "divided"}, "module": "keras.src.ops",
           "inbound_nodes": [{"args": [{"class_name": "__keras_tensor__"}, 127.5]}]}  # fmt: skip


@pytest.mark.parametrize(
    "first",
    [
        [layer("Rescaling", scale=1 / 255)],
        [layer("RandomFlip"), layer("Resizing"), layer("Rescaling", scale=[0.01, 0.02, 0.03])],
        [layer("Sequential", layers=[layer("Rescaling", scale=1 / 127.5, offset=-1)])],
        [layer("Normalization", mean=[[120.0, 110.0, 100.0]])],
        [layer("Normalization", mean=None)],
        [DIVIDED],
    ],
)
def test_networks_that_scale_pixels_themselves(first: list[Any], tmp_path: Path) -> None:
    row = find_backbone(write_network(tmp_path / "m.keras", sequential(*first, CONV)))
    assert (row.scaling, row.image_px) == ("none", 24)


@pytest.mark.parametrize(
    "first",
    [
        [layer("Rescaling", scale=2, offset=-1)],  # of pixels in 0..1
        [layer("Normalization", mean=[0.5, 0.5, 0.5])],
        [CONV, layer("Rescaling", scale=1 / 255)],
        [],
    ],
)
def test_networks_whose_scaling_is_asked_for(first: list[Any], tmp_path: Path) -> None:
    name = write_network(tmp_path / "m.keras", sequential(*first, CONV))
    with pytest.raises(InputError, match=r"m.keras does not say .* --scaling"):
        find_backbone(name)
    assert find_backbone(name, "fraction").scaling == "fraction"


def test_pixels_are_not_scaled_twice(tmp_path: Path) -> None:
    network = sequential(layer("Rescaling", scale=1 / 255), CONV)
    name = write_network(tmp_path / "m.keras", network)
    assert find_backbone(name, "none").scaling == "none"
    with pytest.raises(InputError, match="so unit would scale them twice; leave --scaling out"):
        find_backbone(name, "unit")


def functional(**ends: Any) -> dict[str, Any]:
    """Return the configuration of a functional model."""
    given = {"input_layers": ["a", 0, 0], "output_layers": {"x": ["b", 0, 0]}} | ends
    first = layer("InputLayer", batch_shape=[None, 24, 24, 3])
    return layer("Functional", layers=[first, CONV], **given)


TWO = [["a", 0, 0], ["b", 0, 0]]


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (functional(input_layers=TWO), "m.keras has 2 inputs, expected one; save a keras.Model"),
        (functional(output_layers={"a": TWO[0], "b": TWO[1]}), "m.keras has 2 outputs, expected"),
        (sequential(CONV, shape=[None, 24, 32, 3]), r"got \[None, 24, 32, 3\]; save a model whose"),
        (sequential(CONV, shape=[None, 3, 24, 24]), r"expected an input \[n, px, px, 3\] or"),
        (sequential(CONV, shape=[None, 24, 24, 4]), r"got \[None, 24, 24, 4\]"),
        (sequential(layer("Conv2D", data_format="channels_first")), "conv2d of m.keras has channe"),
        (
            sequential(layer("Dense", dtype={"class_name": "QuantizedDTypePolicy", "config": {}})),
            "m.keras has quantized weights; use the network before quantization",
        ),
        (sequential(layer("TFOpLambda")), "or export the network as a SavedModel"),
        (layer("Mine", module="mine"), "expected a functional or sequential model in m.keras"),
    ],
)
def test_networks_that_are_refused(network: Any, message: str, tmp_path: Path) -> None:
    name = write_network(tmp_path / "m.keras", network)
    with pytest.raises(InputError, match=message) as at:
        find_backbone(name, "unit")
    assert "\n" not in str(at.value)


def function(name: str, module: str = "builtins") -> dict[str, Any]:
    """Return the configuration of a function, as Keras writes it."""
    return {"class_name": "function", "module": module, "config": name, "registered_name": name}


@pytest.mark.parametrize(
    ("activation", "message"),
    [
        (function("mine>act"), "contains the function mine>act, whose code is not run; expected a"),
        (function("eval"), "contains the function eval, whose code"),
        (function("relu") | {"config": {}}, "contains the function {}, whose code"),
        (function("get_file", "keras.utils"), "contains the function get_file, whose code"),
        (function("relu", "mine"), "contains function of mine, whose code is not run"),
        ({"value": ["4wEAAAA=", None, None]}, "the activation of conv2d in m.keras is code, which"),
    ],
)
def test_functions_are_activations_of_keras(activation: Any, message: str, tmp_path: Path) -> None:
    network = sequential(layer("Conv2D", activation=activation))
    with pytest.raises(InputError, match=message):
        find_backbone(write_network(tmp_path / "m.keras", network), "unit")
    network = sequential(layer("Conv2D", activation=function("gelu")))
    assert find_backbone(write_network(tmp_path / "m.keras", network), "unit").image_px == 24


def test_the_loss_of_a_network_is_not_read(tmp_path: Path) -> None:
    loss = {"class_name": "Mine", "module": "mine", "config": {}, "registered_name": "mine>Mine"}
    network = sequential(CONV) | {"compile_config": {"loss": loss}}
    nested = sequential(network)
    for one in (network, nested):
        path = Path(write_network(tmp_path / "m.keras", one))
        assert find_backbone(str(path), "unit").image_px == 24
        assert "compile_config" not in json.dumps(checked_config(path))


def test_a_size_that_no_run_can_have(tmp_path: Path) -> None:
    shape = [None, 100000, 100000, 1]
    row = find_backbone(write_network(tmp_path / "m.keras", sequential(CONV, shape=shape)), "unit")
    with pytest.raises(InputError, match=r"expected at most 2048, m\.keras has 100000"):
        row.side_px(0)


def test_a_damaged_archive(tmp_path: Path) -> None:
    path = Path(write_network(tmp_path / "m.keras", sequential(*[CONV] * 100)))
    content = bytearray(path.read_bytes())
    content[60:90] = b"\xff" * 30
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"cannot read the network in m\.keras"):
        find_backbone(str(path), "unit")


def test_all_layers_compute_in_float32(tmp_path: Path) -> None:
    policy = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "mixed_float16"}}
    network = sequential(layer("Conv2D", dtype=policy), layer("ReLU", dtype="bfloat16"))
    config = checked_config(Path(write_network(tmp_path / "m.keras", network)))
    _, *layers = config["config"]["layers"]
    assert [one["config"]["dtype"] for one in layers] == [
        policy | {"config": {"name": "float32"}}, "float32"
    ]  # fmt: skip


def test_what_only_keras_2_writes_is_translated(tmp_path: Path) -> None:
    network = functional(output_layers=[["block/out", 0, 0]])
    network["config"]["layers"] += [
        layer("DepthwiseConv2D", groups=1),
        layer("BatchNormalization", axis=[3], rng_type="stateful"),
        {"class_name": "ReLU", "name": "block/out", "config": {"name": "block/out"}},
    ]  # fmt: skip
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.attrs["model_config"] = json.dumps(network)
    config = checked_config(tmp_path / "m.h5")["config"]
    depthwise, norm, last = config["layers"][2:]
    assert "groups" not in depthwise["config"]
    assert norm["config"] == {"name": "batchnormalization", "axis": 3}
    assert config["output_layers"] == [["block_out", 0, 0]]
    assert last["name"] == last["config"]["name"] == "block_out"


def test_calls_of_nested_models_are_counted_from_zero(tmp_path: Path) -> None:
    """Keras 2 counts the construction of a nested model as its first call."""
    nested = functional() | {"name": "inner", "inbound_nodes": [[["a", 0, 0, {}]]]}
    network = functional(output_layers=[["last", 0, 0]])
    last = layer("ReLU", name="last") | {"name": "last", "inbound_nodes": [[["inner", 1, 0, {}]]]}
    network["config"]["layers"] += [nested, last]
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.attrs["model_config"] = json.dumps(network)
    config = checked_config(tmp_path / "m.h5")["config"]
    assert config["layers"][-1]["inbound_nodes"] == [[["inner", 0, 0, {}]]]
    assert config["layers"][-2]["inbound_nodes"] == [[["a", 0, 0, {}]]]


@pytest.mark.parametrize("name", ["s3://bucket/m.keras", "hub:s3://bucket/vit"])
def test_remote_networks_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="download it first"):
        backbone_path(name)
