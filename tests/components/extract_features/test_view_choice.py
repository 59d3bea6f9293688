"""The choice of views: which policies are compared, what wins, and what is extracted then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import components.extract_features.view_choice as module
from components.extract_features.extract_features import extract_features
from components.extract_features.view_choice import (
    ORIGINAL,
    Policy,
    choose_views,
    compare_policies,
)
from components.ingest.ingest import ingest
from regraft_core.backbones.backbone_table import find_backbone
from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.manifests.features import FeaturesManifest
from regraft_core.formats.options.extract_features import FeatureOptions
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.formats.records import read_split
from regraft_core.training.feature_store import array_file
from regraft_core.training.linear_head.head_rows import HeadRows

AUTO = FeatureOptions(backbone="tiny", views=3, augment="auto")
FLIPPED = [Policy(strength, True) for strength in module.STRENGTHS]
PLAIN = [Policy(strength) for strength in module.STRENGTHS]


def losses_of(gains: dict[Policy, float]) -> object:
    """Return losses of 100 images, lower by the gain of a policy, with a little noise."""

    def losses(policy: Policy) -> NDArray[np.float64]:
        noise = np.random.default_rng(len(str(policy))).normal(0, 0.1, 100)
        return 1.0 - gains.get(policy, 0.0) + noise - noise.mean()

    return losses


@pytest.mark.parametrize(
    ("gains", "flips", "chosen", "tried"),
    [
        ({}, "off", ORIGINAL, PLAIN),
        ({PLAIN[0]: 0.2, PLAIN[1]: 0.3}, "off", PLAIN[1], PLAIN),
        ({PLAIN[0]: -0.2, PLAIN[1]: 0.01}, "off", ORIGINAL, PLAIN),
        ({FLIPPED[2]: 0.2}, "on", FLIPPED[2], [Policy("flip"), *FLIPPED]),
        ({Policy("flip"): -0.1, PLAIN[0]: 0.2}, "auto", PLAIN[0], [Policy("flip"), *PLAIN]),
        ({Policy("flip"): 0.3}, "auto", Policy("flip"), [Policy("flip"), *PLAIN, FLIPPED[0]]),
        ({Policy("flip"): 0.1, PLAIN[1]: 0.1, FLIPPED[1]: 0.2}, "auto", FLIPPED[1],
         [Policy("flip"), *PLAIN, FLIPPED[1]]),
    ],
)  # fmt: skip
def test_the_best_policy_beyond_noise_wins(
    gains: dict[Policy, float], flips: str, chosen: Policy, tried: list[Policy]
) -> None:
    found, trials = compare_policies(losses_of(gains), flips)  # type: ignore[arg-type]
    assert found == chosen
    if gains:
        assert [one.policy for one in trials] == tried
    for one in trials:
        expected = -gains.get(one.policy, 0.0)
        assert one.against_original.difference == pytest.approx(expected, abs=1e-9)


@pytest.fixture
def one_strength(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare fewer policies, which takes less time."""
    monkeypatch.setattr(module, "STRENGTHS", ("light",))


@pytest.mark.long
@pytest.mark.usefixtures("one_strength")
def test_a_chosen_policy_is_extracted_as_if_it_was_given(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The losses are real, but lower the more views there are."""
    real = module.held_out_losses

    def lower_with_views(rows: HeadRows, *others: Any) -> NDArray[np.float64]:
        losses = real(rows, *others)
        assert np.isfinite(losses).all() and len(losses) == len(np.unique(rows.images))
        return losses - 10.0 * len(rows.parts)

    monkeypatch.setattr(module, "held_out_losses", lower_with_views)
    options = AUTO.model_copy(update={"flips": "off"})
    chosen = extract_features(dataset, tmp_path / "chosen", options, 0, 2)
    assert (chosen.augment, chosen.flips, chosen.views) == ("light", False, 3)
    assert "light was chosen" in chosen.reasoning[0]
    given = options.model_copy(update={"augment": "light"})
    expected = extract_features(dataset, tmp_path / "given", given, 0, 2)
    assert expected.digest == chosen.digest and not expected.reasoning
    for shard in expected.shards:
        ours, theirs = (np.load(array_file(tmp_path / name, shard.stem, "gap"))
                        for name in ("chosen", "given"))  # fmt: skip
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.usefixtures("one_strength")
def test_without_a_gain_nothing_is_augmented(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "held_out_losses", lambda rows, *_: np.ones(9) * len(rows.parts))
    none = extract_features(dataset, tmp_path / "none", AUTO)
    assert (none.views, none.augment, none.flips) == (1, "off", False)
    assert {shard.view for shard in none.shards} == {0}
    assert "no views are used" in none.reasoning[0]


@pytest.mark.parametrize("case", ["many images", "one image a class"])
def test_some_datasets_leave_nothing_to_choose(
    dataset: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """They are not even read, or no feature is computed."""
    if case == "many images":
        monkeypatch.setattr(module, "MAX_IMAGES", 10)
    by_class = {record.label: record for record in read_split(dataset, "train")}
    monkeypatch.setattr(module, "_sample", lambda *_: list(by_class.values()))
    backbone = find_backbone("tiny")
    unused: Any = None
    manifest = DatasetManifest.read(dataset)
    options, (reason,) = choose_views(dataset, manifest, unused, backbone, AUTO)
    assert (options.views, options.augment) == (1, "off")
    assert ("more than 10" if case == "many images" else "no class has two images") in reason


@pytest.mark.usefixtures("one_strength")
def test_views_that_change_the_class_are_not_chosen(tmp_path: Path) -> None:
    """Two classes that are mirror images of each other, in noise."""
    rng = np.random.default_rng(0)
    for side in ("left", "right"):
        (tmp_path / "images" / side).mkdir(parents=True)
        for number in range(60):
            pixels = rng.integers(0, 80, (32, 32, 3), dtype=np.uint8)
            ramp = np.linspace(120, 0, 32, dtype=np.uint8)[None, :, None]
            pixels += ramp if side == "left" else ramp[:, ::-1]
            Image.fromarray(pixels).save(tmp_path / "images" / side / f"{number}.png")
    options = IngestOptions(near_duplicates="off")
    ingest([str(tmp_path / "images")], tmp_path / "dataset", options)
    found = extract_features(tmp_path / "dataset", tmp_path / "features", AUTO)
    assert not found.flips and found.augment != "flip"
    assert FeaturesManifest.read(tmp_path / "features").reasoning == found.reasoning
