"""A chosen preset and a SavedModel by a whole run, from images to a served prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import pytest
from keras import layers

import regraft
from regraft_client.rest import RestClient
from regraft_core.formats.backbone_names import short_name
from regraft_core.formats.manifests.features import FeaturesManifest
from regraft_core.formats.manifests.saved_model import SavedModelManifest
from tests.hub_presets import PX, save_preset

FAMILIES = ("ViT", "HGNetV2")
OPTIONS = {
    "engine": "embedded", "min_accuracy": 0.0, "baseline_rule": "off", "recall_floor": 0.0,
    "verify_images": 4, "fine_tune_epochs": 1, "model_name": "shapes",
}  # fmt: skip


def publish_and_serve(shapes: Path, out: Path, **options: Any) -> SavedModelManifest:
    """Run all steps, then send an image to a server; return what the version says of itself."""
    run = regraft.run(shapes, out=out, progress=lambda line: None, **OPTIONS | options)
    assert run.accepted and run.published is not None
    image = (shapes / "circle" / "000.png").read_bytes()
    expected = regraft.load(out).predict([image])[0]
    with regraft.serve(out) as server, RestClient(server.rest, "shapes") as client:
        [served] = client.predict([image])
    assert served.label == expected.label
    assert served.probabilities == pytest.approx(expected.probabilities, abs=1e-5)
    assert max(run.summary["parity"].values()) < 1e-4
    return SavedModelManifest.read(run.published)


@pytest.mark.long(seconds=45)
def test_one_of_two_presets_is_chosen_and_served(shapes: Path, tmp_path: Path) -> None:
    """Each computes the features of a sample of the images."""
    for family in FAMILIES:
        save_preset(family, tmp_path / "candidates" / family)
    exported = publish_and_serve(
        shapes, tmp_path / "run", backbone="auto", weights=str(tmp_path / "candidates"),
        image_px=PX, strategies=["head"],
    )  # fmt: skip
    (manifest,) = (tmp_path / "run").rglob(FeaturesManifest.file_name)
    choice = FeaturesManifest.read(manifest.parent).backbone_choice
    assert choice is not None
    assert {short_name(trial.backbone) for trial in choice.trials} == {
        f"hub:{family}" for family in FAMILIES
    }
    assert exported.backbone in [f"hub:{family}" for family in FAMILIES]
    assert f"{exported.backbone} at {PX} px is chosen" in choice.sentence


@pytest.mark.long(seconds=45)
def test_a_saved_model_is_served(shapes: Path, tmp_path: Path) -> None:
    inputs = keras.Input((24, 24, 3))
    outputs = layers.Conv2D(8, 3, strides=2, activation="relu")(inputs)
    keras.Model(inputs, outputs).export(tmp_path / "mine", verbose=False)
    exported = publish_and_serve(
        shapes, tmp_path / "run", backbone=str(tmp_path / "mine"), scaling="unit", image_px=24,
        strategies=["head"],
    )  # fmt: skip
    assert (exported.backbone, exported.preprocessing.scaling) == ("mine", "unit")
