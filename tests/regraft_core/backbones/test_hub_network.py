"""Each family of KerasHub: built from a saved preset, cut, saved, and equal to KerasHub's own."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from regraft_core.backbones.backbone_table import find_backbone, identified_backbone
from regraft_core.backbones.build import build_backbone
from regraft_core.backbones.cuts import block_ends, split
from regraft_core.backbones.hub_families import FAMILIES
from regraft_core.backbones.position_embeddings import resize_positions
from regraft_core.runtime.errors import InputError
from regraft_core.training.model_files import read_keras_file
from tests.hub_presets import NETWORKS, PX, save_preset

SLOW = ("Swin", "MiT", "DeiT", "DINOv3")
IMAGES = np.random.default_rng(0).uniform(-1, 1, (2, PX, PX, 3)).astype(np.float32)


def pooled(family: str, network: Any) -> NDArray[np.float32]:
    """Return the features of KerasHub's network, pooled as its family does."""
    network = network.vision_encoder if family == "SigLIP" else network
    given = network.input
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not support masking.*")
        output = network(dict.fromkeys(given, IMAGES) if isinstance(given, dict) else IMAGES)
    values = np.asarray(list(output.values())[-1] if isinstance(output, dict) else output)
    if family in ("ViT", "DeiT", "DINOv2", "DINOv3"):
        return values[:, 0]
    return values if values.ndim == 2 else values.mean(axis=tuple(range(1, values.ndim - 1)))


def test_the_table_and_its_tests_have_the_same_families() -> None:
    assert {family.name for family in FAMILIES.values()} == set(NETWORKS)


@pytest.mark.parametrize(
    "family",
    [pytest.param(family, marks=pytest.mark.long(seconds=6) if family in SLOW else ())
     for family in NETWORKS],
)  # fmt: skip
def test_a_preset_is_the_same_network_that_can_be_cut(family: str, tmp_path: Path) -> None:
    network = save_preset(family, tmp_path / "preset")
    row = find_backbone(f"hub:{tmp_path / 'preset'}")
    assert (row.image_px, row.label, row.scaling) == (PX, "hub:preset", "affine:0.00784313725:-1")

    model = build_backbone(row)
    features = np.asarray(model(IMAGES))
    assert features.ndim == 4 and features.shape[-1] == row.width
    np.testing.assert_allclose(features.mean(axis=(1, 2)), pooled(family, network), atol=1e-5)

    bottom, top = split(model, row.cut)
    np.testing.assert_allclose(np.asarray(top(bottom(IMAGES))), features, atol=1e-6)
    note = row.position_note(PX)
    assert note.startswith("The position") if family == "DINOv2" else note == ""
    assert len(block_ends(model)) >= 2 and top.count_params() > 0

    model.save(tmp_path / "model.keras")
    again = read_keras_file(tmp_path / "model.keras")
    np.testing.assert_array_equal(np.asarray(again(IMAGES)), features)


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "vit"
    save_preset("ViT", folder)
    return folder


def test_positions_are_resized_for_another_size(preset: Path) -> None:
    row = find_backbone(f"hub:{preset}")
    assert row.position_note(PX) == ""
    assert "resized from 4 x 4 to 6 x 6 patches" in row.position_note(48)
    small, large = build_backbone(row), build_backbone(row, 48)
    patches = [model.get_layer("tokens").get_weights()[1] for model in (small, large)]
    np.testing.assert_allclose(patches[1], resize_positions(patches[0], 6))
    assert large.output_shape == small.output_shape
    with pytest.raises(InputError, match="image_px: hub:vit expects a multiple of 8, got 50"):
        row.side_px(50)


def test_resizing_keeps_a_slope_and_the_same_size() -> None:
    rows = np.repeat(np.arange(4.0, dtype=np.float32), 4)[:, None]
    assert resize_positions(rows, 4) is rows
    middle = resize_positions(rows, 8).reshape(8, 8)[2:6, 0]
    np.testing.assert_allclose(np.diff(middle), 0.5, atol=0.05)


def test_random_weights_are_those_of_the_seed(preset: Path) -> None:
    row = find_backbone(f"hub:{preset}")
    first, other = (build_backbone(row, weights="random", seed=seed) for seed in (1, 2))
    values = [model.get_layer("block1").get_weights()[2] for model in (first, other)]
    assert np.abs(values[0]).max() > 0 and not np.array_equal(*values)


def test_weights_that_do_not_fit(preset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(preset, folder)
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(900)]).save_weights(
        folder / "model.weights.h5"
    )
    with pytest.raises(InputError, match="hub:other: the preset's files do not match"):
        build_backbone(f"hub:{folder}")


def test_a_network_of_another_size_than_its_weights(preset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "wide"
    shutil.copytree(preset, folder)
    config = json.loads((folder / "config.json").read_text())
    config["config"]["num_layers"] = 1
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        InputError, match=r"weights have \d+ values, the network in config.json has"
    ):
        build_backbone(f"hub:{folder}")
    config["config"] |= {"hidden_dim": 1 << 19, "mlp_dim": 1 << 20}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"hub:wide has \d{13} parameters, more than its \d+ byte"):
        build_backbone(f"hub:{folder}")


def test_a_changed_preset_is_noticed(preset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "vit"
    shutil.copytree(preset, folder)
    name = identified_backbone(f"hub:{folder}")
    assert name == identified_backbone(name)
    (folder / "config.json").write_text((folder / "config.json").read_text() + "\n")
    with pytest.raises(InputError, match="expected SHA-256"):
        build_backbone(name)
    with pytest.raises(InputError, match="expected SHA-256"):
        identified_backbone(name)
