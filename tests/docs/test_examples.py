"""The examples run in their order and show what they print; their images are always the same."""

from __future__ import annotations

import csv
import gzip
import json
import runpy
import shutil
import struct
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.ingest.sources.samples import FASHION_FOLDERS
from tests.docs.blocks import ROOT, blocks_of, pages_with
from tests.docs.running import reading, run_blocks
from tests.docs.updating import check

EXAMPLES = ROOT / "examples"
PLATES, STAINED, TRAYS = 20, 4, 12


@pytest.fixture
def fashion_mnist(desk: Path) -> Path:
    """The folder `fashion-mnist/`: as installed, otherwise with files of the same form.

    The images in those are a pattern for each class, with noise.
    """
    folder = desk / "fashion-mnist"
    for installed in map(Path, FASHION_FOLDERS):
        if installed.is_dir():
            return shutil.copytree(installed, folder)
    folder.mkdir()
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 200, (10, 7, 7)).repeat(4, axis=1).repeat(4, axis=2)
    for name, count in (("train", 3000), ("t10k", 1000)):
        labels = rng.integers(0, 10, count)
        images = patterns[labels] + rng.integers(0, 56, (count, 28, 28))
        write_idx(folder / f"{name}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{name}-labels-idx1-ubyte.gz", labels)
    return folder


def write_idx(file: Path, values: np.ndarray) -> None:
    header = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    file.write_bytes(gzip.compress(header + values.astype(np.uint8).tobytes(), compresslevel=1))


def table(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))


def json_lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def gray(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image.convert("L"))


def run_script(name: str, *arguments: str | Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")


@pytest.mark.long(seconds=240)
@pytest.mark.timeout(1800)
def test_the_examples_show_what_their_blocks_print(
    desk: Path, fashion_mnist: Path, pytestconfig: pytest.Config
) -> None:
    """All in one folder, because the last one continues another."""
    shutil.copytree(EXAMPLES, desk / "examples")
    found = [page for page in pages_with("run long") if page.parent == EXAMPLES]
    assert len(found) == 5
    for page in found:
        with reading(desk) as reader:
            check(run_blocks(reader, blocks_of(page), long=True), pytestconfig)


def test_more_plates_do_not_change_the_others(tmp_path: Path) -> None:
    few, more = tmp_path / "few", tmp_path / "more"
    run_script("inspection_scene.py", few, "--plates", PLATES)
    run_script("inspection_scene.py", more, "--plates", PLATES, "--stained", STAINED)
    rows = table(more / "plates.csv")
    assert rows[: 2 * PLATES] == table(few / "plates.csv")
    assert [row["label"] for row in rows[2 * PLATES :]] == ["stain"] * 2 * STAINED
    assert all((few / row["path"]).read_bytes() == (more / row["path"]).read_bytes()
               for row in rows[: 2 * PLATES])  # fmt: skip


def test_both_images_of_a_plate_are_in_one_split(tmp_path: Path) -> None:
    run_script("inspection_scene.py", tmp_path / "made", "--plates", PLATES)
    plates = defaultdict(list)
    for row in table(tmp_path / "made/plates.csv"):
        plates[row["group"]].append(row)
    assert all({row["camera"] for row in rows} == {"left", "right"} for rows in plates.values())
    assert all(len({(row["split"], row["label"]) for row in rows}) == 1
               for rows in plates.values())  # fmt: skip
    labels = {(rows[0]["split"], rows[0]["label"]) for rows in plates.values()}
    assert len(labels) == 9  # each split has each label


def test_a_tray_shows_its_labels(tmp_path: Path) -> None:
    run_script("parts_tray.py", tmp_path / "tray", "--images", TRAYS)
    rows = json_lines(tmp_path / "tray/tray.jsonl")
    assert len(rows) == TRAYS
    brightest = {row["path"]: gray(tmp_path / "tray" / row["path"]).max() for row in rows}
    assert all((brightest[row["path"]] >= 140) == bool(row["label"]) for row in rows)


def test_clothes_have_the_labels_of_the_files(fashion_mnist: Path, tmp_path: Path) -> None:
    run_script(
        "fashion_subset.py", fashion_mnist, tmp_path / "made", "--train", "30", "--test", "9"
    )
    rows = json_lines(tmp_path / "made/images.jsonl")
    assert [row["split"] for row in rows] == ["train"] * 30 + ["test"] * 9
    script = runpy.run_path(str(EXAMPLES / "fashion_subset.py"))
    images = script["read_values"](fashion_mnist / "t10k-images-idx3-ubyte.gz", 16)
    labels = script["read_values"](fashion_mnist / "t10k-labels-idx1-ubyte.gz", 8)
    expected = {image.tobytes(): label for image, label in
                zip(images.reshape(-1, 28, 28), labels, strict=True)}  # fmt: skip
    for row in rows[30:]:
        image = gray(tmp_path / "made" / row["path"])
        assert script["CLASSES"][expected[image.tobytes()]] == row["label"]
