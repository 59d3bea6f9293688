"""Presets that cannot be used, each refused in one line; no network is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from regraft_core.backbones.backbone_table import backbone_path, find_backbone
from regraft_core.backbones.hub_presets import (
    find_preset,
    has_weights,
    image_presets,
    weight_files,
)
from regraft_core.formats.backbone_names import short_name
from regraft_core.runtime.errors import InputError
from tests.hub_presets import PRESET_CONFIG, write_preset


def test_what_a_preset_says(tmp_path: Path) -> None:
    name = write_preset(tmp_path / "vit")
    (tmp_path / "vit" / "README.md").write_text("---\nlibrary: x\nlicense: gemma\n---\n# Title\n")
    row = find_backbone(name)
    assert (row.image_px, row.step_px, row.width, row.cut) == (64, 16, 32, "block9")
    assert (row.scaling, row.license) == ("affine:0.1,0.2,0.3:-1,-2,-3", "gemma")
    assert find_backbone(name, "unit").scaling == "unit"
    assert not has_weights(name)
    assert short_name(f"{name}#sha256=00") == row.label == "hub:vit"
    assert backbone_path(name) == str(tmp_path / "vit")
    assert backbone_path("hub:vit_base_patch16_224_imagenet") == ""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hub:vit_base_patch16_225_imagenet", "did you mean vit_base_patch16_224_imagenet"),
        ("hub:bert_base_en", "bert_base_en is of the family bert, which is not among those"),
        ("hub:/nowhere/at/all", "expected a preset's folder at /nowhere/at/all, found none"),
        ("hub:vit_base", "did you mean vit_base_patch16_224_imagenet or"),
        ("hub:", "expected hub: and the name or the folder of a preset"),
        ("hub:kaggle://keras/vit", "expected hub:kaggle://OWNER/MODEL/keras/VARIANT/VERSION or"),
        ("hub:hf://../secret", "or hub:hf://OWNER/MODEL, got hub:hf://../secret"),
    ],
)
def test_names_that_cannot_be_used(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_backbone(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "BertBackbone"}, "is not a preset of a network for images .* BertBackbone"),
        ({"config": {"patch_size": 8}}, "invalid config.json: KeyError"),
        ({"config": PRESET_CONFIG | {"mlp_dim": {"class_name": "Lambda"}}}, "mlp_dim is an object"),
        (
            {"config": PRESET_CONFIG | {"num_layers": 10**9}},
            "num_layers is 1000000000, expected at",
        ),
        ({"config": PRESET_CONFIG | {"hidden_dim": 10**13}}, "hidden_dim is 10000000000000, expec"),
        ({"config": PRESET_CONFIG | {"patch_size": 0}}, "patches of 0 px, 32 channels"),
        (
            {"config": PRESET_CONFIG | {"image_shape": [64, 64, 1]}},
            r"expected images \[px, px, 3\]",
        ),
        (
            {
                "kind": "SwinTransformerBackbone",
                "config": {"embed_dim": 32, "depths": [9] * 99, "window_size": 7},
            },
            "depths is 891, expected at most 256",
        ),
        (
            {
                "kind": "SwinTransformerBackbone",
                "config": {"embed_dim": 32, "depths": [2, 2], "window_size": 10**6},
            },
            "window_size is 1000000, expected at most 64",
        ),
        ({"image_converter": {"config": {"scale": [1, 2], "offset": 0}}}, "one or three numbers"),
        ({"image_converter": {"config": {"scale": "x", "offset": 0}}}, "one or three numbers"),
        ({"image_converter": {"config": {"scale": 0, "offset": 0}}}, "none of them 0"),
        ({"image_converter": {}}, "name it with --scaling"),
        ({"image_converter": []}, "expected an object in image_converter.json"),
    ],
)
def test_presets_that_cannot_be_used(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    name = write_preset(tmp_path / "preset", **change)
    with pytest.raises(InputError, match=message):
        find_backbone(name)


@pytest.mark.parametrize("index", [{}, {"weight_map": "x"}, {"weight_map": {"block1": 3}}])
def test_an_index_of_weights_that_names_no_files(index: Any, tmp_path: Path) -> None:
    name = write_preset(tmp_path / "vit", **{"model.weights": index})
    with pytest.raises(InputError, match="hub:vit: expected files by layer in model"):
        weight_files(find_preset(name))


def test_the_addresses_of_named_presets_are_accepted() -> None:
    for preset in image_presets().values():
        assert find_preset(f"hub:{preset.address}").address == preset.address


def test_files_stay_in_the_folder(tmp_path: Path) -> None:
    name = write_preset(
        tmp_path / "vit", **{"model.weights": {"weight_map": {"a": ["../other.h5"]}}}
    )
    with pytest.raises(InputError, match=r"\.\./other\.h5 is outside the preset's folder"):
        weight_files(find_preset(name))
    (tmp_path / "secret.json").write_text("{}")
    (tmp_path / "vit" / "config.json").unlink()
    (tmp_path / "vit" / "config.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(InputError, match=r"config.json is outside the preset's folder"):
        find_backbone(name)


@pytest.mark.parametrize(
    "name", ["hub:kaggle://keras/vit/keras/none/1", "hub:hf://keras/none-of-this"]
)
def test_an_unreachable_hub_says_what_to_do_offline(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    # Its client would repeat the request for half a minute.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"could not download config\.json .*save_to_preset") as at:
        find_backbone(name)
    assert "\n" not in str(at.value)
