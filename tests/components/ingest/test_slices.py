"""Slices: columns of tables and subfolders of class folders, kept with each image."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from components.ingest.ingest import ingest
from regraft_core.formats.manifests.dataset import SPLITS, DatasetManifest
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.formats.records import read_split
from regraft_core.runtime.errors import DataError, InputError

Rows = list[dict[str, str]]


def options(*slices: str) -> IngestOptions:
    return IngestOptions(processes=1, near_duplicates="off", slices=slices)


def kept(dataset: Path) -> dict[str, tuple[str, ...]]:
    """Return the slices of all images by path."""
    return {one.path: one.slices for split in SPLITS for one in read_split(dataset, split)}


@pytest.fixture
def rows(images: Path) -> Rows:
    """A camera for each ten images, a site that half of the images lack, and an ID."""
    files = sorted(images.rglob("*.png"))
    return [
        {
            "path": str(file.relative_to(images)), "label": file.parent.name,
            "Camera": f"cam {number // 10}", "site": "north" if number % 2 else "",
            "id": str(number),
        }
        for number, file in enumerate(files)
    ]  # fmt: skip


@pytest.fixture
def table(images: Path, rows: Rows) -> Path:
    file = images / "table.csv"
    with open(file, "w", newline="") as opened:
        writer = csv.DictWriter(opened, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file


def test_columns_of_a_table_are_kept_with_each_image(
    table: Path, rows: Rows, tmp_path: Path
) -> None:
    manifest = ingest([str(table)], tmp_path / "dataset", options("camera", "Site"))
    assert manifest.slices == {
        "camera": {f"cam {k}": 10 for k in range(4)}, "site": {"": 20, "north": 20},
    }  # fmt: skip
    assert DatasetManifest.read(tmp_path / "dataset") == manifest
    assert kept(tmp_path / "dataset") == {row["path"]: (row["Camera"], row["site"]) for row in rows}


def test_parquet_has_the_same_slices_and_digest(
    table: Path, rows: Rows, images: Path, tmp_path: Path
) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {name: [row[name] or None for row in rows] for name in rows[0]}
    parquet.write_table(pyarrow.table(columns), images / "table.parquet")
    digests = {
        ingest([str(images / name)], tmp_path / name, options("camera", "site")).digest
        for name in ("table.csv", "table.parquet")
    }
    assert len(digests) == 1


def test_only_slices_change_the_digest(table: Path, tmp_path: Path) -> None:
    digests = [
        ingest([str(table)], tmp_path / str(number), options(*names)).digest
        for number, names in enumerate([(), ("camera",), ("site",)])
    ]
    assert len(set(digests)) == 3
    assert set(kept(tmp_path / "0").values()) == {()}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lens", r"table\.csv: expected the column 'lens' of --slices; found path, label, Camera"),
        ("id", r"slices: 'id' has 40 values for 40 images; expected a column with few"),
    ],
)
def test_a_column_that_is_no_slice_is_one_clear_line(
    table: Path, tmp_path: Path, name: str, message: str
) -> None:
    with pytest.raises((InputError, DataError), match=message) as error:
        ingest([str(table)], tmp_path / "dataset", options(name))
    assert "\n" not in str(error.value) and not (tmp_path / "dataset").exists()


def test_a_value_that_would_break_a_line_of_a_report_is_refused(
    table: Path, tmp_path: Path
) -> None:
    table.write_text(table.read_text().replace("north", '"north\n# Accepted"'))
    with pytest.raises(DataError, match=r"of 'site' without line breaks .*, found 'north\\n#"):
        ingest([str(table)], tmp_path / "dataset", options("site"))


def test_the_first_folder_below_a_class_is_a_slice(
    images: Path, make_photo: Callable[..., Image.Image], tmp_path: Path
) -> None:
    for name, number in (("day/one", 0), ("day/two", 1), ("night", 2)):
        for position, label in enumerate(("cat", "dog")):
            for copy in range(3):
                file = images / label / name / f"{number}-{copy}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                make_photo(5000 + 100 * number + 10 * copy + position).save(file)
    manifest = ingest([str(images)], tmp_path / "dataset", options("folder"))
    assert manifest.slices == {"folder": {"": 40, "day": 12, "night": 6}}
    found = kept(tmp_path / "dataset")
    assert found["cat/day/two/1-0.png"] == ("day",) and found["dog/000.png"] == ("",)


def test_folders_without_such_slices_are_one_clear_line(images: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected values of 'folder', found none for all images"):
        ingest([str(images)], tmp_path / "dataset", options("folder"))
    with pytest.raises(InputError, match="expected `folder`, because only a table has columns"):
        ingest([str(images)], tmp_path / "dataset", options("camera"))


@pytest.mark.parametrize("names", [("a", "A "), ("",)])
def test_names_of_columns_are_different(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="expected names of different columns"):
        options(*names)
