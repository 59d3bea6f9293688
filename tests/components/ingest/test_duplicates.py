"""Exact and near duplicates, conflicting labels and splits, and images that are not duplicates."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable
from pathlib import Path

import imagehash
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageEnhance

from components.ingest.checks.image_validation import validate_image
from components.ingest.ingest import ingest
from components.ingest.splits.near_duplicates import HASH_DISTANCE, candidates
from regraft_core.formats.manifests.dataset import SPLITS, DatasetManifest
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.formats.records import read_split
from regraft_core.images.gray_difference import difference
from regraft_core.runtime.errors import DataError

Photo = Callable[..., Image.Image]
OPTIONS = IngestOptions(processes=1)


def run(source: Path, out: Path, **values: object) -> DatasetManifest:
    return ingest([str(source)], out, OPTIONS.model_copy(update=values))


def splits_by_path(out: Path) -> dict[str, str]:
    return {record.path: split for split in SPLITS for record in read_split(out, split)}


def reasons(out: Path) -> dict[str, str]:
    with open(out / "quarantine.csv", newline="", encoding="utf-8") as file:
        return {row["path"]: row["reason"] for row in csv.DictReader(file)}


def pairs_of(hashes: np.ndarray) -> list[tuple[int, int]]:
    return [(first, second) for first, second in candidates(hashes).tolist()]


def scene(seed: int) -> Image.Image:
    """Return an image with edges, as photographs have."""
    random = np.random.default_rng(seed)
    image = Image.new("RGB", (240, 180), tuple(random.integers(60, 200, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for _ in range(14):
        x, y = random.integers(0, 220), random.integers(0, 160)
        w, h = random.integers(10, 90, 2)
        draw.ellipse((x, y, x + w, y + h), fill=tuple(random.integers(0, 256, 3).tolist()))
    return image


def test_exact_duplicates_are_kept_once(images: Path, tmp_path: Path) -> None:
    copy = images / "cat" / "zzz.png"
    copy.write_bytes((images / "cat" / "000.png").read_bytes())
    manifest = run(images, tmp_path / "out")
    assert reasons(tmp_path / "out") == {"cat/zzz.png": "exact-duplicate"}
    assert manifest.duplicates["exact_dropped"] == 1
    assert len(splits_by_path(tmp_path / "out")) == 40


def test_one_image_under_two_classes_is_quarantined(images: Path, tmp_path: Path) -> None:
    same = (images / "cat" / "000.png").read_bytes()
    (images / "dog" / "same.png").write_bytes(same)
    run(images, tmp_path / "out")
    assert reasons(tmp_path / "out") == {
        "cat/000.png": "label-conflict", "dog/same.png": "label-conflict",
    }  # fmt: skip
    for number in range(1, 8):
        same = (images / "cat" / f"{number:03d}.png").read_bytes()
        (images / "dog" / f"same{number}.png").write_bytes(same)
    with pytest.raises(DataError, match=r"at most 5\.0% invalid files.*label-conflict 16"):
        run(images, tmp_path / "other")


def test_near_duplicates_share_a_split(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name, first in (("cat", 0), ("dog", 100)):
        (source / name).mkdir(parents=True)
        for number in range(25):
            image = scene(first + number)
            image.save(source / name / f"{number}.png")
            image.save(source / name / f"{number}-saved.jpg", quality=70)
            image.resize((160, 120)).save(source / name / f"{number}-small.png")
            brighter = ImageEnhance.Brightness(image).enhance(1.06)
            brighter.save(source / name / f"{number}-bright.png")
    manifest = run(source, tmp_path / "out")
    split_of = splits_by_path(tmp_path / "out")
    whole = 0
    for name in ("cat", "dog"):
        for number in range(25):
            own = {split_of[f"{name}/{number}{kind}"] for kind in
                   (".png", "-saved.jpg", "-small.png", "-bright.png")}  # fmt: skip
            whole += len(own) == 1
    assert whole == 50
    assert manifest.duplicates["near_groups"] == 50
    assert manifest.duplicates["near_grouped"] == 200
    assert manifest.duplicates["near_ungrouped"] == 0


def test_a_near_duplicate_never_takes_an_image_out_of_test(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name, first in (("cat", 0), ("dog", 100)):
        (source / name).mkdir(parents=True)
        for number in range(30):
            scene(first + number).save(source / name / f"{number}.png")
    run(source, tmp_path / "before")
    before = splits_by_path(tmp_path / "before")
    for name, first in (("cat", 0), ("dog", 100)):
        for number in range(0, 30, 2):
            scene(first + number).save(source / name / f"{number}-saved.jpg", quality=75)
    run(source, tmp_path / "after")
    after = splits_by_path(tmp_path / "after")
    assert all(after[path] == "test" for path, split in before.items() if split == "test")
    odd = [path for path in before if int(Path(path).stem) % 2]
    assert all(after[path] == before[path] for path in odd)


def test_similar_images_of_simple_objects_are_not_duplicates(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("left", "right"):
        (source / name).mkdir(parents=True)
    for number in range(40):
        # Thick strokes at slightly different positions: the same hash for many, different pixels.
        image = Image.new("L", (64, 64))
        draw = ImageDraw.Draw(image)
        draw.line((12 + number % 8, 8, 18 + number // 8 * 3, 56), fill=255, width=8)
        image.save(source / ("left", "right")[number % 2] / f"{number}.png")
    manifest = run(source, tmp_path / "out")
    assert manifest.duplicates["near_pairs"] <= 4
    assert len(splits_by_path(tmp_path / "out")) == 40


def test_tiny_images_are_compared_by_pixels(tmp_path: Path, make_photo: Photo) -> None:
    source = tmp_path / "source"
    for name in ("cat", "dog"):
        (source / name).mkdir(parents=True)
        for number in range(20):
            gray = make_photo(number + 50 * (name == "dog"), px=28).convert("L")
            gray.save(source / name / f"{number}.png")
    make_photo(3, px=28).convert("L").save(source / "cat" / "again.png", compress_level=1)
    manifest = run(source, tmp_path / "out")
    assert manifest.duplicates["near_pairs"] == 1
    split_of = splits_by_path(tmp_path / "out")
    assert split_of["cat/3.png"] == split_of["cat/again.png"]


def test_a_chain_of_similar_images_does_not_take_a_whole_class(tmp_path: Path) -> None:
    source = tmp_path / "source"
    base = np.asarray(scene(1).convert("L").resize((64, 64)), dtype=np.float32)
    other = np.asarray(scene(2).convert("L").resize((64, 64)), dtype=np.float32)
    for name in ("film", "rest"):
        (source / name).mkdir(parents=True)
    for number in range(80):
        mixed = base + (other - base) * number / 79
        Image.fromarray(mixed.astype(np.uint8)).save(source / "film" / f"{number:02d}.png")
        scene(100 + number).save(source / "rest" / f"{number:02d}.png")
    manifest = run(source, tmp_path / "out")
    assert manifest.duplicates["near_ungrouped"] > 0
    assert any("were not grouped" in warning for warning in manifest.warnings)
    assert all(info.by_class["film"] >= 3 for info in manifest.splits.values())


def split_source(folder: Path) -> Path:
    for part, first, count in (("train", 0, 12), ("validation", 50, 4), ("test", 80, 4)):
        for position, name in enumerate(("cat", "dog")):
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                image = scene(first + 1000 * position + number)
                image.save(folder / part / name / f"{number}.png")
    test = folder / "test" / "cat" / "0.png"
    (folder / "train" / "cat" / "leak.png").write_bytes(test.read_bytes())
    scene(1080).save(folder / "train" / "dog" / "leak.jpg", quality=75)
    scene(81).save(folder / "validation" / "cat" / "leak.jpg", quality=75)
    return folder


def test_leakage_is_repaired_in_favor_of_test(tmp_path: Path) -> None:
    source = split_source(tmp_path / "source")
    manifest = run(source, tmp_path / "out")
    assert reasons(tmp_path / "out") == {
        "train/cat/leak.png": "leakage", "train/dog/leak.jpg": "leakage",
        "validation/cat/leak.jpg": "leakage",
    }  # fmt: skip
    assert {split: info.count for split, info in manifest.splits.items()} == {
        "train": 24, "validation": 8, "test": 8,
    }  # fmt: skip
    assert all(path.startswith(split) for path, split in splits_by_path(tmp_path / "out").items())
    assert manifest.duplicates["leaking"] == 3
    assert any("in several splits of the source" in text for text in manifest.warnings)


def test_a_fixed_camera_keeps_its_splits(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    y, x = np.mgrid[:80, :80]
    plate = 180 - 90 * ((y - 40) ** 2 + (x - 40) ** 2 < 27**2) + x / 4 + y / 8
    source = tmp_path / "source"
    for part in ("train", "val", "test"):
        for name in ("ok", "scratch"):
            (source / part / name).mkdir(parents=True)
            for number in range(20):
                levels = (plate + random.normal(0, 0.7, plate.shape)).clip(0, 255)
                image = Image.fromarray(levels.astype(np.uint8)).convert("RGB")
                if name == "scratch":
                    left = int(random.integers(25, 50))
                    ImageDraw.Draw(image).line((left, 30, left + 4, 47), fill=(70, 70, 70))
                image.save(source / part / name / f"{number}.jpg", quality=92)
    copied = Image.open(source / "test" / "ok" / "3.jpg")
    copied.save(source / "train" / "ok" / "copy.png")
    manifest = run(source, tmp_path / "out")
    assert reasons(tmp_path / "out") == {"train/ok/copy.png": "leakage"}
    assert manifest.duplicates["leaking_kept"] >= 60
    assert any("were kept" in warning and "--leakage" in warning for warning in manifest.warnings)


def test_leakage_is_reported_or_refused(tmp_path: Path) -> None:
    source = split_source(tmp_path / "source")
    manifest = run(source, tmp_path / "kept", leakage="report")
    assert sum(info.count for info in manifest.splits.values()) == 42
    with pytest.raises(DataError, match="3 sets of duplicates were in several"):
        run(source, tmp_path / "refused", leakage="fail")


def test_near_duplicates_are_ignored_or_reported(tmp_path: Path) -> None:
    source = split_source(tmp_path / "source")
    manifest = run(source, tmp_path / "out", near_duplicates="off")
    assert "near_pairs" not in manifest.duplicates
    assert set(reasons(tmp_path / "out")) == {"train/cat/leak.png"}
    manifest = run(source, tmp_path / "other", near_duplicates="report")
    assert manifest.duplicates["near_pairs"] == 2
    assert set(reasons(tmp_path / "other")) == {"train/cat/leak.png"}


def test_the_hash_is_that_of_the_library() -> None:
    image = scene(3)
    stats = validate_image(_png(image), max_pixels=10**8)
    small = image.reduce(180 // 64).convert("L").resize((32, 32), Image.Resampling.BOX)
    assert f"{stats.hash64:016x}" == str(imagehash.phash(small))


def _png(image: Image.Image) -> bytes:
    import io

    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=30), st.data())
def test_candidates_are_all_near_hashes(hashes: list[int], data: st.DataObject) -> None:
    for _ in range(6):
        near = data.draw(st.sampled_from(hashes))
        for bit in data.draw(st.sets(st.integers(0, 63), max_size=HASH_DISTANCE + 2)):
            near ^= 1 << bit
        hashes.append(near)
    table = np.array(hashes, dtype=np.uint64)
    expected = [
        (a, b)
        for a in range(len(hashes))
        for b in range(a + 1, len(hashes))
        if (hashes[a] ^ hashes[b]).bit_count() <= HASH_DISTANCE
    ]
    assert pairs_of(table) == expected


def test_candidates_are_found_among_many_images() -> None:
    random = np.random.default_rng(0)
    hashes = random.integers(0, 2**64, 4000, dtype=np.uint64)
    for number in range(500):
        bits = random.choice(64, HASH_DISTANCE, replace=False).astype(np.uint64)
        hashes[2000 + number] = hashes[number] ^ np.bitwise_or.reduce(np.uint64(1) << bits)
    assert pairs_of(hashes) == [(number, 2000 + number) for number in range(500)]


@pytest.mark.parametrize("images", [0, 1])
def test_fewer_than_two_images_have_no_candidates(images: int) -> None:
    assert pairs_of(np.zeros(images, np.uint64)) == []


def test_an_image_is_compared_with_its_next_256_neighbors() -> None:
    pairs = itertools.combinations(range(260), 2)
    expected = [(a, b) for a, b in pairs if b - a <= 256]
    assert pairs_of(np.zeros(260, np.uint64)) == expected


def test_difference_is_limited_in_brightness_mean_and_maximum() -> None:
    base = np.full(1024, 100, np.float32)
    signs = np.tile(np.array([1, -1], np.float32), 512)
    for sign in (1, -1):
        assert difference(base, base + sign * 24) == 0.0
        assert difference(base, base + sign * np.float32(24.5)) is None
    assert difference(base, base + 4 * signs) == 4.0
    assert difference(base, base + np.float32(4.01) * signs) is None
    for levels, expected in ((48.0, 0.0938), (48.5, None)):
        spots = base.copy()
        spots[:2] += np.array([levels, -levels], np.float32)
        assert difference(base, spots) == expected


def test_difference_ignores_brightness_only() -> None:
    base = np.linspace(20, 200, 1024, dtype=np.float32)
    assert difference(base, base + 10) == 0.0
    assert difference(base, base + 40) is None
    spot = base.copy()
    spot[5] += 100
    assert difference(base, spot) is None
    assert difference(base, base[::-1].copy()) is None
