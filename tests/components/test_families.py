"""Each family of KerasHub through the steps, from a preset on disk to a server's predictions."""

from __future__ import annotations

from pathlib import Path

import pytest

from regraft_core.formats.options.extract_features import FeatureOptions
from tests.components.export.building import CLASSES, write_dataset
from tests.hub_presets import NETWORKS, PX, save_preset
from tests.served_backbone import serve_backbone


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 27 small images in all formats."""
    return write_dataset(tmp_path_factory.mktemp("images") / "dataset")


@pytest.mark.long(seconds=25)
@pytest.mark.parametrize("family", NETWORKS)
def test_a_family_is_trained_exported_and_served(
    family: str, images: Path, tmp_path: Path
) -> None:
    save_preset(family, tmp_path / "preset")
    options = FeatureOptions(
        backbone=f"hub:{tmp_path / 'preset'}", feature_engine="tf", precision="float32"
    )
    made = serve_backbone(images, tmp_path, options)
    assert made.features.image_px == PX and len(made.features.levels) >= 2
    # The preset's own default cut is between its blocks, and the layers above it were trained.
    assert made.candidate.strategy == "top" and made.candidate.cut == made.features.cut
    assert 0 < made.candidate.parameters.trainable < made.candidate.parameters.total
    assert (made.exported.backbone, made.exported.classes) == ("hub:preset", CLASSES)
    assert made.parity.passed and made.parity.images == 4
    assert set(made.parity.max_abs_diff) == {"grpc", "rest"}
    assert max(made.parity.max_abs_diff.values()) < 1e-5
