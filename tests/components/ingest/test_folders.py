"""Folders as people have them: splits by many names, wrappers, links, and folders of no class."""

from __future__ import annotations

import os
import subprocess
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from components.ingest.sources.folders import LabeledFile, Tally, labeled_files
from components.ingest.sources.split_names import split_of_name
from regraft_core.formats.options.ingest import FolderUse
from regraft_core.runtime.errors import DataError, InputError

Fill = Callable[..., None]


@pytest.fixture
def fill(tmp_path: Path) -> Fill:
    """A function that writes empty files with the names of images to folders below `in`."""

    def write(*folders: str, count: int = 2, suffix: str = ".png") -> None:
        for folder in folders:
            path = tmp_path / "in" / folder
            path.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                (path / f"{number}{suffix}").touch()

    return write


def files_of(
    folder: Path, use: FolderUse = "auto", tally: Tally | None = None
) -> list[LabeledFile]:
    return list(labeled_files(folder / "in", Tally() if tally is None else tally, use))


def found(folder: Path, use: FolderUse = "auto") -> set[tuple[str, str]]:
    """Return the splits and classes of a folder."""
    return {(file.split, file.label) for file in files_of(folder, use)}


SPLIT = {(split, label) for split in ("train", "test") for label in ("cat", "dog")}


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"), ("Training", "train"), ("training_set", "train"),
        ("train2017", "train"),
        ("TRAIN-images", "train"), ("val", "validation"), ("Valid", "validation"),
        ("dev", "validation"), ("val_2", "validation"), ("test", "test"), ("test1", "test"),
        ("testset", "test"), ("holdout", "test"), ("trainee", None), ("tests", None),
        ("contest", None), ("device", None), ("value", None), ("1", None), ("", None),
    ],
)  # fmt: skip
def test_names_of_splits(name: str, split: str | None) -> None:
    assert split_of_name(name) == split


@pytest.mark.parametrize(
    "names",
    [
        ("train", "test"), ("training_set", "test_set"), ("Train", "TEST"),
        ("train/train", "test/test"), ("data/train2017", "data/test2017"),
    ],
)  # fmt: skip
def test_splits_by_usual_names(tmp_path: Path, fill: Fill, names: Sequence[str]) -> None:
    fill(*(f"{name}/{label}" for name in names for label in ("cat", "dog")))
    assert found(tmp_path) == SPLIT


def test_dev_is_validation(tmp_path: Path, fill: Fill) -> None:
    fill(*(f"{name}/{label}" for name in ("train", "dev", "test") for label in ("cat", "dog")))
    assert {split for split, _ in found(tmp_path)} == {"train", "validation", "test"}


def test_classes_may_have_the_names_of_splits(tmp_path: Path, fill: Fill) -> None:
    fill("test", "control")
    assert found(tmp_path) == {("", "test"), ("", "control")}
    fill("train", "car")
    assert ("", "train") in found(tmp_path)


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("train/cat", "train/dog", "extra/cat"), "train look like splits.*--folders classes"),
        (("val/cat", "val/dog", "test/cat", "test/dog"), "look like splits.*named train"),
        (("images/cat", "images/dog", "masks/cat", "masks/dog"), "all have the folders cat, dog;"),
        (("a/train", "a/test", "b/train", "b/test"), "all have the folders test, train"),
        (("fold1/x", "fold1/y", "fold2/x", "fold2/y"), "all have the folders x, y"),
        (("train", "test"), r"class folders in train, found 2 images.*--folders classes"),
        (("train/cat", "train/dog", "test1/unknown"), "test1: expected folders of the classes cat"),
        (("train/Cat", "train/dog", "val/cat", "val/dog"), "found 'cat' for 'Cat'; rename"),
        (("",), "found 2 files and no folder, for instance 0.png; make one folder per class"),
    ],
)
def test_unclear_folders_are_refused(
    tmp_path: Path, fill: Fill, folders: Sequence[str], message: str
) -> None:
    fill(*folders)
    with pytest.raises(DataError, match=message):
        files_of(tmp_path)


def test_an_option_says_what_the_folders_are(tmp_path: Path, fill: Fill) -> None:
    fill("images/cat", "images/dog", "masks/cat", "masks/dog")
    assert found(tmp_path, "classes") == {("", "images"), ("", "masks")}
    with pytest.raises(DataError, match=r"expected folders named as splits.*found images, masks"):
        files_of(tmp_path, "splits")


def test_parts_of_classes_may_have_the_same_names(tmp_path: Path, fill: Fill) -> None:
    fill(*(f"{label}/batch{n}/raw" for label in ("cat", "dog") for n in range(3)))
    assert found(tmp_path) == {("", "cat"), ("", "dog")}
    fill("cat/images", "dog/images")
    assert len(files_of(tmp_path)) == 16


@pytest.mark.parametrize("beside", ["README.md", "annotations/1.xml", "a/b.txt"])
def test_a_wrapper_with_other_files_is_passed_through(
    tmp_path: Path, fill: Fill, beside: str
) -> None:
    fill("pets/images/cat", "pets/images/dog")
    other = tmp_path / "in" / "pets" / beside
    other.parent.mkdir(exist_ok=True)
    other.write_text("x")
    assert found(tmp_path) == {("", "cat"), ("", "dog")}


def test_an_empty_class_is_no_file_beside(tmp_path: Path, fill: Fill) -> None:
    fill("cat/raw", count=3)
    fill("dog", count=0)
    tally = Tally()
    files_of(tmp_path, tally=tally)
    assert tally.classes == {"cat", "dog"}


def test_loose_and_unlabeled_images_are_reported(tmp_path: Path, fill: Fill) -> None:
    fill("train/cat", "train/dog", "train", "test")
    tally = Tally()
    assert {file.split for file in files_of(tmp_path, tally=tally)} == {"train"}
    assert tally.warnings == [
        "2 images in train are in no class folder and were ignored, for instance 0.png",
        "test has no class folders; its 2 files were ignored",
    ]
    assert tally.ignored == 4


def test_system_folders_are_no_classes(tmp_path: Path, fill: Fill) -> None:
    fill("cat", "dog")
    fill(
        "@eaDir/x", "$RECYCLE.BIN", "cat/@eaDir/0.png", "lost+found", "#recycle", "dog/__pycache__"
    )
    assert [file.path for file in files_of(tmp_path)] == [
        "cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png",
    ]  # fmt: skip


def test_links_to_folders_are_followed_once(tmp_path: Path, fill: Fill) -> None:
    fill("cat", "dog", "../store/a", "../store/b")
    store, cat = tmp_path / "store", tmp_path / "in" / "cat"
    (cat / "again").symlink_to(store / "a")
    (cat / "linked").symlink_to(store / "a")
    (cat / "up").symlink_to(tmp_path / "in")
    (store / "a" / "b").symlink_to(store / "b")
    (store / "b" / "a").symlink_to(store / "a")
    tally = Tally()
    paths = [file.path for file in files_of(tmp_path, tally=tally) if file.label == "cat"]
    assert paths == [
        "cat/0.png", "cat/1.png", "cat/again/0.png", "cat/again/1.png",
        "cat/again/b/0.png", "cat/again/b/1.png",
    ]  # fmt: skip
    assert tally.ignored == 3


def test_classes_of_linked_folders(tmp_path: Path, fill: Fill) -> None:
    fill("../store/cat/a", "../store/cat/b", "../store/dog/a", "../store/dog/b", "x", count=1)
    (tmp_path / "in" / "x" / "0.png").unlink()
    (tmp_path / "in" / "x").rmdir()
    for label in ("cat", "dog"):
        (tmp_path / "in" / label).mkdir()
        for part in "ab":
            (tmp_path / "in" / label / part).symlink_to(tmp_path / "store" / label / part)
    assert len(files_of(tmp_path)) == 4
    assert found(tmp_path) == {("", "cat"), ("", "dog")}


def test_labels_are_in_one_unicode_form(tmp_path: Path, fill: Fill) -> None:
    for form, split in (("NFD", "train"), ("NFC", "test")):
        fill(*(f"{split}/{unicodedata.normalize(form, name)}" for name in ("café", "thé")))
    assert {label for _, label in found(tmp_path)} == {"café", "thé"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (b"a\nb", "without line breaks"),
        (b"a\x1b[31mb", "without line breaks and control characters"),
        ("a\u2028b".encode(), "without line breaks"),
        (b"caf\xe9", r"class 'caf\\xe9': expected a name in UTF-8"),
    ],
)
def test_labels_that_are_no_line_of_text_are_refused(
    tmp_path: Path, fill: Fill, name: bytes, message: str
) -> None:
    fill("cat", os.fsdecode(name))
    with pytest.raises(DataError, match=message):
        files_of(tmp_path)


def test_outputs_of_regraft_are_no_classes(tmp_path: Path, fill: Fill) -> None:
    fill("cat", "dog")
    runs = tmp_path / "in" / "runs"
    (runs / "first" / "steps" / "ingest").mkdir(parents=True)
    (runs / "first" / "run.log").touch()
    (tmp_path / "in" / "published" / "pets" / "1").mkdir(parents=True)
    (tmp_path / "in" / "published" / "pets" / "1" / "regraft.json").touch()
    (tmp_path / "in" / "set").mkdir()
    (tmp_path / "in" / "set" / "dataset.json").touch()
    tally = Tally()
    assert {file.label for file in files_of(tmp_path, tally=tally)} == {"cat", "dog"}
    assert tally.warnings == [f"outputs of Regraft in {tmp_path / 'in'} were ignored: "
                              "published, runs, set"]  # fmt: skip


def test_folders_that_are_deep_or_too_long(tmp_path: Path, fill: Fill) -> None:
    fill("cat", "dog")
    before = Path.cwd()
    os.chdir(tmp_path / "in" / "cat")
    try:
        for _ in range(1100):
            Path("d").mkdir()
            os.chdir("d")
        Path("deep.png").touch()
        assert len(files_of(tmp_path)) == 5
        for _ in range(16):
            Path("d" * 200).mkdir()
            os.chdir("d" * 200)
        with pytest.raises(
            InputError, match=r"^cannot read the folder .{50,230}: File name too long"
        ):
            files_of(tmp_path)
    finally:
        os.chdir(before)
        # Python 3.11 cannot remove it.
        subprocess.run(["rm", "-rf", tmp_path / "in"], check=True)


def test_links_to_themselves_and_missing_folders(tmp_path: Path, fill: Fill) -> None:
    fill("cat", "dog/inner")
    (tmp_path / "in" / "dog" / "link").symlink_to("link")
    assert len(files_of(tmp_path)) == 4
    with pytest.raises(InputError, match=r"cannot read the folder .*none"):
        list(labeled_files(tmp_path / "none", Tally()))
