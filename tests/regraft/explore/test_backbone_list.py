"""What `regraft backbones` lists, with milliseconds that are measured and kept."""

from __future__ import annotations

from pathlib import Path

import keras
import pytest

from regraft.explore import backbone_list
from regraft.explore.backbone_list import list_backbones
from regraft_core.backbones.backbone_table import BACKBONES
from regraft_core.backbones.build import build_backbone
from regraft_core.backbones.parameter_counts import PARAMETERS
from regraft_core.runtime.kept_results import KeptResults
from tests.command_line import Regraft
from tests.hub_presets import write_preset


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbone_list, "KEPT", KeptResults(tmp_path / "kept.json"))
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kaggle"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))


def test_all_names_with_what_is_here(regraft: Regraft) -> None:
    ended = regraft("backbones", "--json")
    assert ended.code == 0
    found = {row["name"]: row for row in ended.json}
    assert set(BACKBONES) < set(found)
    preset = found["hub:vit_base_patch16_224_imagenet"]
    assert (preset["license"], preset["here"], preset["image_ms"]) == ("Apache-2.0", False, None)
    assert preset["parameters"] == 85798656
    assert found["efficientnet_lite0"]["here"] and not found["vgg16"]["here"]
    assert "hub:bert_base_en" not in found


def test_every_backbone_of_the_table_has_its_parameters() -> None:
    assert set(PARAMETERS) == set(BACKBONES)
    for name in ("tiny", "mobilenet"):
        assert PARAMETERS[name] == build_backbone(name, 32, "random").count_params()


def test_what_is_measured_is_kept(regraft: Regraft) -> None:
    (before,) = list_backbones(["tiny"])
    ended = regraft("backbones", "tiny", "vgg16", "--measure")
    assert ended.code == 0 and "tiny" in ended.out
    after, other = list_backbones(["tiny", "vgg16"])
    assert before.image_ms is None and other.image_ms is None
    assert after.image_ms is not None and after.image_ms > 0


def test_another_file_of_the_same_name_is_not_measured_yet(tmp_path: Path) -> None:
    path = tmp_path / "mine.keras"
    keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 1)]).save(path)
    list_backbones([str(path)], "unit", measure=True)
    (found,) = list_backbones([str(path)], "unit")
    assert (found.parameters, found.image_ms is None) == (8, False)
    with open(path, "ab") as file:
        file.write(b" ")
    (found,) = list_backbones([str(path)], "unit")
    assert (found.parameters, found.image_ms) == (None, None)


def test_a_preset_without_weights_is_not_here(tmp_path: Path, regraft: Regraft) -> None:
    name = write_preset(tmp_path / "vit")
    (found,) = list_backbones([name])
    assert (found.image_px, found.parameters, found.here) == (64, None, False)
    ended = regraft("backbones", "vgg61")
    assert ended.code == 2 and "did you mean" in ended.err
