"""Features: equal for any number of workers, seeded views, and clear errors."""

from __future__ import annotations

import errno
import math
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image

from components.extract_features.extract_features import extract_features
from components.extract_features.shard_store import ShardStore
from components.ingest.ingest import ingest
from regraft_core.backbones.build import build_backbone
from regraft_core.formats.manifests.features import FeatureShard, FeaturesManifest
from regraft_core.formats.option_parsing import parse_options
from regraft_core.formats.options.extract_features import FeatureOptions
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.formats.records import read_split
from regraft_core.images.preprocess import load_images, scale
from regraft_core.runtime.errors import InputError
from regraft_core.training.feature_store import FeatureRows, array_file, moments, read_manifests
from regraft_core.training.winograd import convolve

if TYPE_CHECKING:
    from tests.conftest import Resumed

TINY = FeatureOptions(backbone="tiny")


def extracted(dataset: Path, out: Path, workers: int = 1, **changes: object) -> list[Path]:
    options = TINY.model_copy(update=changes)
    folders = [out / f"{workers}-{index}" for index in range(workers)]
    for index, folder in enumerate(folders):
        extract_features(dataset, folder, options, index, workers)
    return folders


def rows(
    folders: Sequence[Path], split: str = "train", array: str = "gap", view: int = 0, views: int = 1
) -> NDArray[np.floating]:
    """Return all rows of a view; with several views, `(epoch + index) % views` selects it."""
    held = FeatureRows(folders, split, array, views)  # type: ignore[arg-type]
    index = np.arange(len(held))
    return np.stack([held.rows(index[i : i + 1], view - i)[0] for i in index])


def test_features_equal_the_outputs_of_the_backbone(dataset: Path, tmp_path: Path) -> None:
    folders = extracted(dataset, tmp_path, feature_dtype="float32")
    backbone = build_backbone("tiny", 32)
    middle = keras.Model(backbone.input, backbone.get_layer("block1_out").output)
    records = list(read_split(dataset, "train"))
    pixels = scale(load_images(tf.constant([one.encoded for one in records]), 32), "tiny")
    maps, cuts = (model(pixels, training=False).numpy() for model in (backbone, middle))
    np.testing.assert_allclose(rows(folders), maps.mean(axis=(1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(rows(folders, array="cut"), cuts, rtol=1e-4, atol=1e-5)
    labels = [one.label for one in records]
    np.testing.assert_array_equal(FeatureRows(folders, "train", "gap").labels, labels)


def test_features_keep_the_groups_of_duplicates(shapes: Path, tmp_path: Path) -> None:
    images = shutil.copytree(shapes, tmp_path / "images")
    for path in sorted(images.rglob("*.png"))[::2]:
        Image.open(path).save(path.with_suffix(".bmp"))
    ingest([str(images)], tmp_path / "dataset", IngestOptions(processes=1))
    folders = extracted(tmp_path / "dataset", tmp_path)
    train = FeatureRows(folders, "train", "gap")
    names = [Path(one.path).with_suffix("") for one in read_split(tmp_path / "dataset", "train")]
    groups = train.groups()
    assert len(set(groups)) == len(set(names)) < len(names)
    assert len(set(zip(groups, names, strict=True))) == len(set(names))
    manifest = FeaturesManifest.read(folders[0])
    assert manifest.image_kb == {
        name: pytest.approx(math.prod(shape) * 2 / 1000) for name, shape in manifest.arrays.items()
    }


def test_features_by_winograd_equal_the_outputs_of_the_backbone(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the second block on, the maps of VGG16 are small enough here, at most 24 pixels."""
    shapes = []

    def record_shapes(inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        shapes.append((*inputs.shape[1:3], *kernel.shape[2:]))
        return convolve(inputs, kernel)

    monkeypatch.setattr("regraft_core.training.winograd.convolve", record_shapes)
    changes = {"backbone": "vgg16", "weights": "random", "image_px": 48, "feature_dtype": "float32"}
    folders = extracted(dataset, tmp_path, **changes)
    assert {side for side, *_ in shapes} == {24, 12, 6, 3}
    backbone = build_backbone("vgg16", 48, "random")
    middle = backbone.get_layer(FeaturesManifest.read(folders[0]).cut).output
    direct = keras.Model(backbone.input, [middle, backbone.output])
    records = list(read_split(dataset, "validation"))
    pixels = scale(load_images(tf.constant([one.encoded for one in records]), 48), "vgg16")
    cuts, maps = (values.numpy() for values in direct(pixels, training=False))
    for array, expected in (("cut", cuts), ("gap", maps.mean(axis=(1, 2)))):
        limit = 5e-5 * np.abs(expected).max()
        assert expected.std() > 10 * limit
        np.testing.assert_allclose(rows(folders, "validation", array), expected, atol=limit)


@pytest.mark.parametrize("workers", [2, 3])
def test_several_workers_equal_one(dataset: Path, tmp_path: Path, workers: int) -> None:
    one, several = (extracted(dataset, tmp_path, n) for n in (1, workers))
    for split in ("train", "validation"):
        for array in ("gap", "cut"):
            mine, theirs = rows(one, split, array), rows(several[::-1], split, array)
            np.testing.assert_array_equal(mine, theirs)
        mine_labels, labels = (FeatureRows(f, split, "gap").labels for f in (one, several))  # type: ignore[arg-type]
        np.testing.assert_array_equal(mine_labels, labels)


def test_views_depend_on_the_seed_and_the_first_is_the_original(
    dataset: Path, tmp_path: Path
) -> None:
    plain = rows(extracted(dataset, tmp_path / "plain"))
    made = {
        name: extracted(dataset, tmp_path / name, views=2, augment="strong", seed=seed)
        for name, seed in (("mine", 1), ("again", 1), ("other", 2))
    }
    first = {name: rows(folders, view=0, views=2) for name, folders in made.items()}
    second = {name: rows(folders, view=1, views=2) for name, folders in made.items()}
    for values in first.values():
        np.testing.assert_array_equal(values, plain)
    np.testing.assert_array_equal(second["mine"], second["again"])
    assert np.abs(second["mine"] - plain).max() > 0.01
    assert np.abs(second["mine"] - second["other"]).max() > 0.01
    held = FeaturesManifest.read(made["mine"][0]).shards
    assert {shard.view for shard in held if shard.split == "validation"} == {0}


def test_a_value_beyond_float16_is_an_error(tmp_path: Path) -> None:
    info = FeatureShard(stem="train-0.view0", split="train", view=0, count=2)
    store = ShardStore(tmp_path, {"gap": ("float16", [3])}, marked=True)
    with pytest.raises(
        InputError, match=r"'gap' reach 70000, beyond float16; use --feature-dtype float32"
    ):
        store.write(info, [{"gap": np.full((2, 3), 7e4, np.float32)}])
    assert not store.contains(info)
    wide = ShardStore(tmp_path, {"gap": ("float32", [3])}, marked=True)
    wide.write(info, [{"gap": np.full((2, 3), 7e4, np.float32)}])
    assert wide.contains(info)


def test_arrays_with_other_content_are_refused_and_written_again(
    dataset: Path, tmp_path: Path
) -> None:
    """A file of the same shape and type passes for the right one without its digest."""
    (folder,) = extracted(dataset, tmp_path, work_dir=str(tmp_path / "work"))
    path = array_file(folder, FeaturesManifest.read(folder).shards[0].stem, "gap")
    values = np.load(path)
    path.unlink()  # it is linked into the work folder
    np.save(path, values + 1)
    with pytest.raises(InputError, match=rf"{path.name}: expected SHA-256 .*; extract the feat"):
        FeatureRows([folder], "train", "gap")

    info = FeatureShard(stem="train-0.view0", split="train", view=0, count=2)
    store = ShardStore(tmp_path / "s", {"gap": ("float32", [3])}, marked=True)
    store.write(info, [{"gap": np.zeros((2, 3), np.float32)}])
    assert store.contains(info)
    assert set(store.with_digests(info).sha256) == {"gap"}
    np.save(array_file(tmp_path / "s", info.stem, "gap"), np.ones((2, 3), np.float32))
    assert not ShardStore(tmp_path / "s", {"gap": ("float32", [3])}, marked=True).contains(info)


def test_a_full_disk_is_reported_before_pages_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.posix_fallocate", full)
    info = FeatureShard(stem="train-0.view0", split="train", view=0, count=2)
    store = ShardStore(tmp_path, {"gap": ("float32", [3])}, marked=True)
    with pytest.raises(InputError, match=r"cannot write features to .*No space left on device"):
        store.write(info, [{"gap": np.ones((2, 3), np.float32)}])
    assert not store.contains(info)


def test_augmentation_with_a_single_view_is_reported(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extracted(dataset, tmp_path, augment="light")
    assert "the only view is the original image" in capsys.readouterr().out


def test_several_views_without_augmentation_are_an_error() -> None:
    with pytest.raises(InputError, match="augment: expected auto, flip, light, strong or random"):
        parse_options(FeatureOptions, views=2)
    with pytest.raises(InputError, match="augment: expected --views 2 or more"):
        parse_options(FeatureOptions, augment="auto")


def test_moments_do_not_depend_on_the_block_size(dataset: Path, tmp_path: Path) -> None:
    folders = extracted(dataset, tmp_path)
    held, every = FeatureRows(folders, "train", "gap"), rows(folders).astype(np.float64)
    for values in (1, 100, 10**6):
        mean, variance = moments(held, values)
        np.testing.assert_allclose(mean, every.mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(variance, every.var(axis=0), rtol=1e-4, atol=1e-7)


def test_features_of_different_extractions_are_an_error(dataset: Path, tmp_path: Path) -> None:
    first, _ = extracted(dataset, tmp_path / "a", 2)
    _, other = extracted(dataset, tmp_path / "b", 2, cut="block2_out")
    with pytest.raises(InputError, match="features differ in cut: 'block1_out' and 'block2_out'"):
        read_manifests([first, other])
    of_three = extracted(dataset, tmp_path / "three", workers=3)
    with pytest.raises(InputError, match="features differ in shard_count: 2 and 3"):
        read_manifests([first, of_three[1]])
    with pytest.raises(InputError, match=r"expected features of 2 workers, got \[0\]"):
        read_manifests([first])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "tinny"}, "did you mean tiny"),
        ({"cut": "block2_outt"}, "did you mean block2_out"),
        ({"weights": "/no/such/file.h5"}, "/no/such/file.h5"),
    ],
)
def test_invalid_options_are_an_error(
    dataset: Path, tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        extracted(dataset, tmp_path, **changes)
    assert not any(tmp_path.glob("*/features.json"))


def test_an_invalid_shard_is_an_error(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a shard index below 2, got 2"):
        extract_features(dataset, tmp_path / "f", TINY, 2, 2)


def test_finished_shards_are_not_computed_again(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only shards with a truncated array or without a marker are computed again."""
    whole = rows(extracted(dataset, tmp_path / "whole"))
    work = {"work_dir": str(tmp_path / "work")}
    first = extracted(dataset, tmp_path / "first", **work)
    (store,) = (tmp_path / "work").iterdir()
    marks = sorted(store.glob("train-*.done"))
    marks[0].unlink()
    array = store / marks[1].name.replace(".done", ".cut.npy")
    content = array.read_bytes()
    array.unlink()
    array.write_bytes(content[:-100])
    capsys.readouterr()
    again = extracted(dataset, tmp_path / "again", **work)
    held = len(FeaturesManifest.read(again[0]).shards)
    assert f"{held - 2} of {held} shards were there already" in capsys.readouterr().out
    for folders in (first, again):
        np.testing.assert_allclose(rows(folders), whole, rtol=5e-3, atol=5e-3)
    assert not list(again[0].glob("*.done"))


@pytest.mark.parametrize(
    "change",
    [
        {"feature_dtype": "float32"},
        {"poolings": ("gmp",)},
        {"keep_cut": False},
        {"views": 2, "augment": "light"},
        {"image_px": 16},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_features_have_another_digest(
    dataset: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    (first,) = extracted(dataset, tmp_path / "first")
    (other,) = extracted(dataset, tmp_path / "other", **change)
    assert FeaturesManifest.read(first).digest != FeaturesManifest.read(other).digest


@pytest.mark.long
def test_an_interrupted_extraction_resumes_from_its_last_shard(
    dataset: Path, tmp_path: Path, kill_and_run_again: Callable[[str, str], Resumed]
) -> None:
    changes = {"views": 3, "augment": "light"}
    options = TINY.model_copy(update={**changes, "work_dir": str(tmp_path / "work")})
    program = (
        "from regraft_core.formats.options.extract_features import FeatureOptions\n"
        "from components.extract_features.extract_features import extract_features\n"
        f"options = FeatureOptions(**{options.model_dump()!r})\n"
        f"extract_features({str(dataset)!r}, {str(tmp_path / 'killed')!r}, options)\n"
    )
    output = kill_and_run_again(program, "view 1/3")
    assert "view 3/3" not in output.killed
    assert "view 1/3: 0 images" in output.again
    (whole,) = extracted(dataset, tmp_path / "whole", **changes)
    for view in range(3):
        mine, theirs = (rows([f], view=view, views=3) for f in (tmp_path / "killed", whole))
        np.testing.assert_allclose(mine, theirs, rtol=5e-3, atol=5e-3)


def test_the_feature_dtype_changes_the_digest(dataset: Path, tmp_path: Path) -> None:
    folders = [
        *extracted(dataset, tmp_path / "half", feature_dtype="float16"),
        *extracted(dataset, tmp_path / "single", feature_dtype="float32"),
    ]
    half, single = (FeaturesManifest.read(folder) for folder in folders)
    assert (half.dtype, single.dtype) == ("float16", "float32")
    assert half.digest != single.digest


def test_half_precision_changes_features_and_digest(dataset: Path, tmp_path: Path) -> None:
    (plain,) = extracted(dataset, tmp_path / "plain", feature_dtype="float32")
    (half,) = extracted(dataset, tmp_path / "half", feature_dtype="float32", precision="mixed")
    difference = np.abs(rows([plain]) - rows([half])).max()
    assert 0 < difference < 0.05
    digests = {FeaturesManifest.read(folder).digest for folder in (plain, half)}
    assert len(digests) == 2


def test_a_cache_above_its_limit_is_not_written(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder,) = extracted(dataset, tmp_path, cache_gb=1e-6)
    manifest = FeaturesManifest.read(folder)
    assert (manifest.cut, list(manifest.arrays)) == ("block1_out", ["gap", "levels"])
    assert "top will train from images" in capsys.readouterr().out
