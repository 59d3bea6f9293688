"""The choice among backbones and image sizes: its rule, its record, and what is not repeated."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from components.extract_features import backbone_choice as subject
from components.extract_features.backbone_choice import CHOICE_FILE, choose_backbone, rank
from components.extract_features.backbone_trials import (
    Measured,
    Sample,
    read_sample,
    sizes_to_compare,
)
from components.extract_features.extract_features import extract_features
from components.train_head.train_head import train_head
from regraft_core.backbones.at_hand import keras_file
from regraft_core.backbones.backbone_table import BACKBONES, Backbone, find_backbone
from regraft_core.backbones.build import build_backbone
from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.manifests.features import FeaturesManifest
from regraft_core.formats.options.extract_features import FeatureOptions
from regraft_core.formats.options.train_head import HeadOptions
from regraft_core.formats.records import ImageRecord
from regraft_core.runtime.errors import DataError


def colors(*, include_top: bool, weights: str | None, input_shape: tuple[int, int, int]) -> Any:
    """Build a second tiny backbone, which sees hardly more than colors."""
    inputs = keras.layers.Input(input_shape, name="image")
    x = keras.layers.Conv2D(4, 1, 4, name="first")(inputs)
    x = keras.layers.ReLU(name="middle")(x)
    return keras.Model(inputs, keras.layers.Conv2D(4, 1, 2, name="last")(x), name="colors")


@dataclasses.dataclass(frozen=True)
class Compared:
    """Two tiny backbones at two sizes: the options, the features, and what was printed."""

    options: FeatureOptions
    features: Path
    manifest: FeaturesManifest
    printed: str


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the weights of two tiny backbones."""
    row = dataclasses.replace(
        BACKBONES["tiny"], constructor="colors", width=4, cut="middle", imported_from=__name__
    )
    folder = tmp_path_factory.mktemp("weights")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "colors", row)
        for name in ("tiny", "colors"):
            build_backbone(name, 32).save_weights(folder / f"{name}.weights.h5")
        yield folder


@pytest.fixture(scope="module")
def compared(
    dataset: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> Compared:  # fmt: skip
    out = tmp_path_factory.mktemp("compared")
    options = FeatureOptions(
        backbone="auto", weights=str(weights), image_px="auto", work_dir=str(out / "work")
    )
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        manifest = extract_features(dataset, out / "features", options)
    return Compared(options, out / "features", manifest, printed.getvalue())


def measured(name: str, correct: int, image_ms: float, total: int = 400) -> Measured:
    """Return a measurement whose first images are predicted correctly."""
    hits = np.arange(total) < correct
    return Measured(find_backbone(name), "imagenet", 224, hits, image_ms, 1.0)


@pytest.mark.parametrize(
    ("values", "order", "chosen"),
    [
        # The fastest of those that do not differ significantly, not the most accurate.
        ([("vgg16", 380, 9.0), ("resnet50", 378, 4.0), ("tiny", 300, 1.0)],
         ["vgg16", "resnet50", "tiny"], "resnet50"),
        ([("vgg16", 380, 9.0), ("tiny", 300, 1.0)], ["vgg16", "tiny"], "vgg16"),
        ([("vgg16", 380, 2.0), ("resnet50", 378, 4.0)], ["vgg16", "resnet50"], "vgg16"),
        # Of equal accuracies, the faster one is first.
        ([("vgg16", 380, 9.0), ("resnet50", 380, 4.0)], ["resnet50", "vgg16"], "resnet50"),
        ([("tiny", 0, 1.0), ("vgg16", 0, 2.0)], ["tiny", "vgg16"], "tiny"),
        # Not significant, but more than little.
        ([("vgg16", 380, 9.0), ("tiny", 375, 1.0)], ["vgg16", "tiny"], "vgg16"),
    ],
)  # fmt: skip
def test_the_fastest_of_the_best_is_chosen(
    values: list[tuple[str, int, float]], order: list[str], chosen: str
) -> None:
    trials = rank([measured(*one) for one in values])
    assert [trial.backbone for trial in trials] == order
    assert [trial.backbone for trial in trials if trial.chosen] == [chosen]
    assert all(one.accuracy_low <= one.accuracy <= one.accuracy_high for one in trials)


def test_a_difference_on_the_same_images_counts() -> None:
    """Of 4,000 images, 30 more are significant only if the two agree on most others."""
    best = measured("vgg16", 3800, 9.0, total=4000)
    other = dataclasses.replace(best, row=find_backbone("tiny"), image_ms=1.0)
    nested = dataclasses.replace(other, correct=np.arange(4000) < 3770)
    crossed = dataclasses.replace(other, correct=np.arange(4000) >= 230)
    assert nested.correct.sum() == crossed.correct.sum()
    assert [trial.chosen for trial in rank([best, nested])] == [True, False]
    assert [trial.chosen for trial in rank([best, crossed])] == [False, True]


@pytest.mark.parametrize(
    ("backbone", "sides", "expected"),
    [("vgg16", [28], (224, 96)), ("vgg16", [150, 10, 150], (224, 160)),
     ("vgg16", [500, 224], (224, 352)), ("inceptionv3", [20], (299, 96)), ("tiny", [40], (32, 64)),
     ("vgg16", [200], (224, 352))],
)  # fmt: skip
def test_the_second_size_is_near_that_of_the_images(
    backbone: str, sides: list[int], expected: tuple[int, int]
) -> None:
    records = []
    for side in sides:
        stream = io.BytesIO()
        Image.new("L", (2 * side, side)).save(stream, "PNG")
        records.append(ImageRecord(stream.getvalue(), 0, "", ""))
    nothing = np.empty(0, np.int64)
    sample = Sample(records, nothing.astype(np.int32), nothing, 1, nothing)
    assert sizes_to_compare(find_backbone(backbone), sample) == expected
    patches = dataclasses.replace(find_backbone(backbone), image_px=224, step_px=14)
    assert all(px % 14 == 0 for px in sizes_to_compare(patches, sample))
    fixed = dataclasses.replace(find_backbone(backbone), one_size=True)
    assert sizes_to_compare(fixed, sample) == expected[:1]


def test_a_sample_has_the_fractions_of_the_classes(dataset: Path) -> None:
    data = DatasetManifest.read(dataset)
    counts = data.splits["train"].by_class
    whole, part = read_sample(dataset, data), read_sample(dataset, data, limit=12)
    assert list(np.bincount(whole.labels)) == list(counts.values())
    assert list(np.bincount(part.labels)) == [
        math.ceil(12 * count / sum(counts.values())) for count in counts.values()
    ]
    assert part.folds == 5 and len(part.scored) == len(part.records)
    again = read_sample(dataset, data, limit=12)
    assert [one.id for one in again.records] == [one.id for one in part.records]


def test_images_without_others_of_their_class_are_an_error(dataset: Path) -> None:
    data = DatasetManifest.read(dataset)
    train = data.splits["train"].model_copy(update={"shards": []})
    data = data.model_copy(update={"splits": {**data.splits, "train": train}})
    with pytest.raises(DataError, match=r"^backbone: expected a class with two training images"):
        read_sample(dataset, data)


def test_both_choices_are_one_table_and_the_features_name_what_was_chosen(
    compared: Compared, weights: Path, dataset: Path
) -> None:
    manifest, choice = compared.manifest, compared.manifest.backbone_choice
    assert choice is not None
    pairs = {(one.backbone, one.image_px) for one in choice.trials}
    assert pairs == {(name, px) for name in ("tiny", "colors") for px in (32, 64)}
    (chosen,) = [trial for trial in choice.trials if trial.chosen]
    assert chosen.backbone == "tiny"
    assert choice.images == DatasetManifest.read(dataset).splits["train"].count
    assert (manifest.backbone, manifest.image_px) == ("tiny", chosen.image_px)
    assert manifest.weights == chosen.weights == str(weights / "tiny.weights.h5")
    assert manifest.cut == BACKBONES["tiny"].cut
    assert FeaturesManifest.read(compared.features) == manifest
    lines = [line for line in compared.printed.splitlines() if "ms per image" in line]
    assert [line.endswith("chosen") for line in lines] == [one.chosen for one in choice.trials]
    assert compared.printed.index(lines[-1]) < compared.printed.index(choice.sentence)


def test_unchanged_images_and_candidates_are_not_compared_again(
    compared: Compared, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another worker, and another run with other views, get the choice of the first."""
    more = compared.options.model_copy(update={"views": 3, "augment": "light"})
    data = DatasetManifest.read(dataset)
    for options in (compared.options, more):
        _, choice = choose_backbone(dataset, data, options)
        assert choice is not None and choice == compared.manifest.backbone_choice
        printed = capsys.readouterr().out.splitlines()
        assert printed == [
            f"[regraft] extract_features: compared before on these images: {choice.sentence}"
        ]


def test_the_times_do_not_identify_the_features(
    compared: Compared, dataset: Path, tmp_path: Path
) -> None:
    (file,) = Path(compared.options.work_dir).rglob(CHOICE_FILE)
    before = file.read_text()
    values = json.loads(before)
    for trial in values["trials"]:
        trial["image_ms"] *= 2
    try:
        file.write_text(json.dumps(values))
        again = extract_features(dataset, tmp_path / "features", compared.options)
    finally:
        file.write_text(before)
    assert again.backbone_choice != compared.manifest.backbone_choice
    assert again.digest == compared.manifest.digest


def test_the_head_has_the_choice(compared: Compared, tmp_path: Path) -> None:
    head = train_head([compared.features], tmp_path / "head", HeadOptions(levels="last"))
    choice = compared.manifest.backbone_choice
    assert choice is not None
    assert (head.backbone, head.preprocessing.image_px) == ("tiny", compared.manifest.image_px)
    assert head.measurements["backbones"] == choice.model_dump()
    assert head.reasoning[0] == choice.sentence


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"backbone": "tiny", "image_px": "auto"}, {("tiny", 32), ("tiny", 64)}),
        ({"backbone": "auto", "image_px": 48}, {("tiny", 48), ("colors", 48)}),
        ({"backbone": "auto"}, {("tiny", 32), ("colors", 32)}),
    ],
)
def test_only_what_is_auto_is_compared(
    changes: dict[str, Any], expected: set[tuple[str, int]], weights: Path, dataset: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def measured_at(row: Backbone, weights: str, image_px: int, *_: object) -> Measured:
        return dataclasses.replace(measured(row.name, 9, 1.0, total=9), image_px=image_px)

    monkeypatch.setattr(subject, "measure", measured_at)
    options = FeatureOptions(weights=str(weights), **changes)
    chosen, choice = choose_backbone(dataset, DatasetManifest.read(dataset), options)
    assert choice is not None
    assert {(one.backbone, one.image_px) for one in choice.trials} == expected
    assert (chosen.backbone, chosen.image_px) in expected


def test_no_weights_of_another_size_are_downloaded(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MobileNetV2 has weights of its own at 96 px, which are not at hand."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / keras_file(find_backbone("mobilenetv2"))).touch()
    seen = []

    def measured_at(row: Backbone, weights: str, image_px: int, *_: object) -> Measured:
        seen.append((row.name, image_px))
        return measured(row.name, 9, 1.0, total=9)

    monkeypatch.setattr(subject, "measure", measured_at)
    options = FeatureOptions(backbone="auto", image_px="auto")
    choose_backbone(dataset, DatasetManifest.read(dataset), options)
    assert seen == [("mobilenetv2", 224), ("efficientnet_lite0", 224), ("efficientnet_lite0", 96)]


def test_a_single_backbone_is_not_measured(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.weights.h5").touch()
    options = FeatureOptions(backbone="auto", weights=str(tmp_path))
    chosen, choice = choose_backbone(dataset, DatasetManifest.read(dataset), options)
    assert choice is not None and not choice.trials
    assert choice.sentence == "tiny is chosen: only its weights are on this machine."
    assert (chosen.backbone, chosen.image_px) == ("tiny", 0)


def test_given_values_are_no_choice(dataset: Path) -> None:
    options = FeatureOptions(backbone="tiny", image_px=48)
    assert choose_backbone(dataset, DatasetManifest.read(dataset), options) == (options, None)


def test_a_network_in_the_folder_of_weights_is_compared(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build_backbone("tiny", 32).save_weights(tmp_path / "tiny.weights.h5")
    inputs = keras.Input((32, 32, 3))
    scaled = keras.layers.Rescaling(1 / 255)(inputs)
    keras.Model(inputs, keras.layers.Conv2D(4, 3, 2)(scaled)).save(tmp_path / "mine.keras")
    options = FeatureOptions(backbone="auto", weights=str(tmp_path), image_px=32)
    manifest = extract_features(dataset, tmp_path / "features", options)
    assert manifest.backbone_choice is not None
    trials = {trial.backbone: trial.weights for trial in manifest.backbone_choice.trials}
    assert trials == {
        "tiny": str(tmp_path / "tiny.weights.h5"), str(tmp_path / "mine.keras"): "imagenet"
    }  # fmt: skip
    assert "extract_features: mine.keras at 32 px: accuracy" in capsys.readouterr().out
