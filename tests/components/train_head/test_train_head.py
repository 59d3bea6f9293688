"""The head: poolings and sizes, class weights, objectives, and errors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from components.extract_features.extract_features import extract_features
from components.train_head.train_head import exceeds_memory, train_head
from regraft_core.formats.manifest_storage import digest_file
from regraft_core.formats.manifests.dataset import Split
from regraft_core.formats.manifests.features import FeatureShard, FeaturesManifest
from regraft_core.formats.option_parsing import parse_options
from regraft_core.formats.options.extract_features import FeatureOptions
from regraft_core.formats.options.train_head import HeadOptions
from regraft_core.parallel.local_processes import LocalProcesses
from regraft_core.runtime.errors import InputError
from regraft_core.training.feature_store import GROUPS, LABELS, LEVELS, FeatureRows, array_file
from regraft_core.training.linear_head import head_rows, training_sizes
from regraft_core.training.linear_head.held_out_scores import log_loss
from regraft_core.training.linear_head.refitted_head import REFIT_FILE, RefittedHead
from regraft_core.training.loop import class_weights
from regraft_core.training.model_files import load_model

if TYPE_CHECKING:
    from tests.conftest import Trained

CLASSES, WIDTH, SIDE = 3, 32, 4
SPLITS: tuple[Split, ...] = ("train", "validation")


@pytest.fixture(scope="module")
def features(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of every pooling."""
    out = tmp_path_factory.mktemp("features") / "features"
    options = FeatureOptions(backbone="tiny", poolings=("gap", "gmp", "flatten"), keep_cut=False)
    extract_features(dataset, out, options)
    return out


def test_rows_that_exceed_the_memory_are_read_from_disk(
    features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an executor with the same bits; and the head is that of rows in memory."""
    options = HeadOptions(levels="all", folds=3)
    assert not exceeds_memory([features], options)
    whole = train_head([features], tmp_path / "whole", options)
    monkeypatch.setattr(head_rows, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(training_sizes, "MAX_VALUES", 0)
    assert exceeds_memory([features], options)
    executors = {"threads": None, "tasks": LocalProcesses(1)}
    stored = [train_head([features], tmp_path / name, options, one)
              for name, one in executors.items()]  # fmt: skip
    threads, tasks = (
        [*load_model(tmp_path / name)[0].get_weights(), RefittedHead.read(
            tmp_path / name, manifest.head["refit"]).kernel]
        for name, manifest in zip(executors, stored, strict=True)
    )  # fmt: skip
    for one, other in zip(threads, tasks, strict=True):
        np.testing.assert_array_equal(one, other)
    assert stored[0].validation_loss == pytest.approx(whole.validation_loss, rel=0.01)


@pytest.mark.parametrize("kind", ["gap", "gmp", "flatten"])
def test_heads_by_pooling_and_their_parameters(features: Path, tmp_path: Path, kind: str) -> None:
    options = HeadOptions(pooling=kind, levels="last", folds=3)
    manifest = train_head([features], tmp_path / "head", options)
    width = WIDTH * SIDE * SIDE if kind == "flatten" else WIDTH
    model, read = load_model(tmp_path / "head")
    assert read == manifest
    assert (model.input_shape, model.output_shape) == ((None, width), (None, CLASSES))
    expected = (width + 1) * CLASSES
    assert manifest.head_parameters[kind] == manifest.parameters.trainable == expected
    assert manifest.head_parameters["flatten"] > manifest.head_parameters["gap"]
    rows = FeatureRows([features], "validation", kind)
    logits = model(np.concatenate(rows.parts()).astype(np.float32)).numpy()
    assert (logits.argmax(1) == rows.labels).mean() == manifest.validation_accuracy
    assert log_loss(logits, rows.labels) == pytest.approx(manifest.validation_loss, rel=1e-3)
    trials = manifest.measurements["cross_validation"]
    assert [trial["loss"] for trial in trials] == sorted(trial["loss"] for trial in trials)
    assert all(member in trials for member in manifest.head["members"])


def test_the_head_is_fitted_again_with_the_validation_images(
    features: Path, tmp_path: Path
) -> None:
    """Its validation logits are from before, and what was fitted again has seen the images."""
    options = HeadOptions(optimize="macro-f1")
    manifest = train_head([features], tmp_path / "head", options)
    refitted = RefittedHead.read(tmp_path / "head", manifest.head["refit"])
    labels = refitted.validation_labels
    before = refitted.validation_logits - np.array(manifest.head["offset"])
    assert log_loss(before, labels) == pytest.approx(manifest.validation_loss, rel=1e-3)
    model, _ = load_model(tmp_path / "head")
    rows = np.concatenate(FeatureRows([features], "validation", LEVELS).parts())
    model.get_layer("logits").set_weights([refitted.kernel, refitted.bias])
    after = model(rows.astype(np.float32)).numpy()
    assert log_loss(after, labels) < log_loss(refitted.validation_logits, labels)
    held_out = refitted.held_out_logits - np.array(manifest.head["offset"])
    chosen = manifest.measurements["held_out"]
    train = FeatureRows([features], "train", LEVELS)
    assert len(held_out) == len(train), "no fit saw the images that it predicts"
    np.testing.assert_array_equal(refitted.held_out_labels, train.labels)
    predicted = refitted.held_out_logits.argmax(axis=1)
    assert np.mean(predicted == refitted.held_out_labels) == pytest.approx(chosen["accuracy"])
    fitted_loss = log_loss(held_out, refitted.held_out_labels)
    assert fitted_loss < np.log(CLASSES)


def test_in_a_budget_that_is_used_the_head_skips_what_takes_longer(
    features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = train_head([features], tmp_path / "head", HeadOptions(budget="0.001s"))
    assert manifest.head["refit"] is None
    assert not (tmp_path / "head" / REFIT_FILE).exists()
    assert "training_sizes" not in manifest.measurements
    found = manifest.measurements["head_time"]
    assert found["limit_s"] == 0.0
    assert found["skipped"][-1] == "the fit with validation images"
    assert manifest.reasoning[-1].endswith(f"Skipped: {', '.join(found['skipped'])}.")
    assert manifest.reasoning[-1] in capsys.readouterr().out
    loaded, read = load_model(tmp_path / "head")
    assert read == manifest and loaded.output_shape == (None, CLASSES)


def test_a_file_from_before_has_no_held_out_logits(tmp_path: Path) -> None:
    values = {
        "kernel": np.ones((2, 3), np.float32), "bias": np.zeros(3, np.float32),
        "validation_logits": np.ones((4, 3), np.float32),
        "validation_labels": np.zeros(4, np.int32),
    }  # fmt: skip
    np.savez(tmp_path / REFIT_FILE, **values)
    read = RefittedHead.read(tmp_path, digest_file(tmp_path / REFIT_FILE))
    assert read.validation_logits.shape == (4, 3) and len(read.held_out_labels) == 0


def test_another_file_of_refitted_weights_is_refused(features: Path, tmp_path: Path) -> None:
    manifest = train_head([features], tmp_path / "head", HeadOptions(levels="last"))
    (tmp_path / "head" / REFIT_FILE).write_bytes(b"x")
    with pytest.raises(InputError, match="expected digest"):
        RefittedHead.read(tmp_path / "head", manifest.head["refit"])
    (tmp_path / "head" / REFIT_FILE).unlink()
    with pytest.raises(InputError, match=r"expected refit\.npz"):
        RefittedHead.read(tmp_path / "head", manifest.head["refit"])


def test_the_manifest_has_the_curve_by_training_images(features: Path, tmp_path: Path) -> None:
    manifest = train_head([features], tmp_path / "head", HeadOptions(levels="last"))
    curve = manifest.measurements["training_sizes"]
    train, validation = (FeatureRows([features], split, "gap") for split in SPLITS)
    images = [size["images"] for size in curve["sizes"]]
    assert images == sorted(images) and len(images) == 4 and images[-1] == len(train)
    assert images[1] == pytest.approx(len(train) / 2, abs=CLASSES)
    assert curve["sizes"][-1]["accuracy"] == manifest.validation_accuracy
    assert curve["validation_images"] == len(validation)
    assert manifest.reasoning[-1] == curve["sentence"]
    assert all(trial["rows"] == len(train) and trial["accuracy_low"] < trial["accuracy_high"]
               for trial in manifest.measurements["cross_validation"])  # fmt: skip


def test_balanced_weights_are_inverse_to_frequency() -> None:
    labels = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 2], np.int32)
    weights = np.array(class_weights("balanced", labels, 3))
    np.testing.assert_allclose(weights * np.bincount(labels), 10 / 3)
    assert weights[labels].mean() == pytest.approx(1.0)


@pytest.fixture
def imbalanced(features: Path, tmp_path: Path) -> Path:
    """Features of two numbers; classes overlap, and the last one is rare in training only."""
    folder = tmp_path / "imbalanced"
    folder.mkdir()
    rng = np.random.default_rng(0)
    centers = np.array([[0, 0], [2, 0], [1, 1]])
    counts: dict[Split, list[int]] = {"train": [90, 90, 6], "validation": [40, 40, 40]}
    shards = []
    for split, each in counts.items():
        labels = np.repeat(np.arange(CLASSES, dtype=np.int32), each)
        shard = FeatureShard(stem=f"{split}-0.view0", split=split, view=0, count=len(labels))
        values = centers[labels] + rng.normal(0, 0.7, (len(labels), 2))
        np.save(array_file(folder, shard.stem, "gap"), values.astype(np.float32))
        np.save(array_file(folder, shard.stem, LABELS), labels)
        np.save(array_file(folder, shard.stem, GROUPS), np.arange(len(labels)))
        shards.append(shard)
    changed = {"arrays": {"gap": [2]}, "levels": [], "shards": shards, "dtype": "float32"}
    FeaturesManifest.read(features).model_copy(update=changed).write(folder)
    return folder


def test_features_without_a_file_name_it_and_the_way_out(imbalanced: Path, tmp_path: Path) -> None:
    """Those of an earlier version have no groups."""
    missing = array_file(imbalanced, "train-0.view0", GROUPS)
    missing.unlink()
    line = f"{missing}: expected a file, found none; extract the features again"
    with pytest.raises(InputError, match=re.escape(line)):
        train_head([imbalanced], tmp_path / "head", HeadOptions())


def recall_of_the_rare(head: Path, features: Path) -> float:
    rows = FeatureRows([features], "validation", "gap")
    predicted = load_model(head)[0](rows.rows(np.flatnonzero(rows.labels == 2))).numpy().argmax(1)
    return float((predicted == 2).mean())


@pytest.mark.parametrize("changed", [{"class_weights": "balanced"},
                                     {"optimize": "balanced-accuracy"}])  # fmt: skip
def test_the_recall_of_a_rare_class_rises(
    imbalanced: Path, tmp_path: Path, changed: dict[str, str]
) -> None:
    plain = train_head([imbalanced], tmp_path / "plain", HeadOptions())
    manifest = train_head([imbalanced], tmp_path / "head", HeadOptions(**changed))
    recalls = [recall_of_the_rare(tmp_path / name, imbalanced) for name in ("plain", "head")]
    assert recalls[1] > recalls[0] + 0.2
    assert not np.any(plain.head["offset"])
    assert bool(np.any(manifest.head["offset"])) == ("optimize" in changed)


def test_loss_and_accuracy_are_those_before_the_offset(imbalanced: Path, tmp_path: Path) -> None:
    plain = train_head([imbalanced], tmp_path / "plain", HeadOptions())
    offset = train_head([imbalanced], tmp_path / "head", HeadOptions(optimize="macro-f1"))
    assert offset.validation_loss == plain.validation_loss
    assert "An offset of the logits serves macro-f1" in offset.reasoning[1]


def test_a_pooling_that_was_not_extracted_is_an_error(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="of pooling 'gmp', got gap, levels, cut"):
        train_head([trained.features], tmp_path / "head", HeadOptions(pooling="gmp"))
    assert not (tmp_path / "head").exists()


def test_levels_are_chosen_by_cross_validation(features: Path, tmp_path: Path) -> None:
    heads = {
        name: train_head([features], tmp_path / name, HeadOptions(levels=name))
        for name in ("auto", "last", "all")
    }
    names = {name: {trial["levels"] for trial in head.measurements["cross_validation"]}
             for name, head in heads.items()}  # fmt: skip
    both = {"all levels", "all levels, average and maximum"}
    assert names == {"auto": {"gap", "last 3 levels", *both}, "last": {"gap"}, "all": both}
    trials = heads["auto"].measurements["cross_validation"]
    assert trials[0]["loss"] < heads["last"].measurements["cross_validation"][0]["loss"]
    manifest = FeaturesManifest.read(features)
    levels = heads["auto"].head["levels"]
    assert levels == [level.model_dump() for level in manifest.levels]
    model, _ = load_model(tmp_path / "auto")
    rows = FeatureRows([features], "validation", LEVELS)
    logits = model(np.concatenate(rows.parts()).astype(np.float32)).numpy()
    assert log_loss(logits, rows.labels) == pytest.approx(heads["auto"].validation_loss, rel=1e-3)


def test_levels_that_were_not_extracted_are_an_error(imbalanced: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="levels: expected features of all levels"):
        train_head([imbalanced], tmp_path / "head", HeadOptions(levels="all"))
    assert train_head([imbalanced], tmp_path / "auto", HeadOptions()).head["levels"] == []


def test_features_that_are_not_finite_are_an_error(imbalanced: Path, tmp_path: Path) -> None:
    path = array_file(imbalanced, "train-0.view0", "gap")
    values = np.load(path)
    values[5, 1] = np.nan
    np.save(path, values)
    with pytest.raises(InputError, match="expected finite values, got 1 features with others"):
        train_head([imbalanced], tmp_path / "head", HeadOptions())
    assert not (tmp_path / "head").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [("folds", 1), ("l2", -1.0), ("l2", float("nan")), ("pooling", "gapp"), ("optimize", "f1")],
)
def test_options_out_of_range_are_an_error(name: str, value: object) -> None:
    with pytest.raises(InputError, match=name):
        parse_options(HeadOptions, **{name: value})


def test_equal_features_give_equal_heads(features: Path, tmp_path: Path) -> None:
    heads = [train_head([features], tmp_path / name, HeadOptions()) for name in ("one", "again")]
    assert heads[0].validation_loss == heads[1].validation_loss
    weights = [load_model(tmp_path / name)[0].get_weights() for name in ("one", "again")]
    for one, again in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, again)
