"""Each kind of source, through the whole step, and the faults of each."""

from __future__ import annotations

import csv
import gzip
import os
import shutil
import struct
import tarfile
import uuid
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from components.ingest.ingest import ingest
from components.ingest.sources.samples import FASHION_CLASSES
from pipelines.recipes.recipe_file import recipe_of
from regraft_core.formats.manifests.dataset import SPLITS, DatasetManifest
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.formats.records import read_split
from regraft_core.runtime.errors import DataError, InputError
from tests.components.ingest.web import Reply, Web

Make = Callable[..., Path]


def run(source: object, tmp_path: Path, name: str = "out", **values: Any) -> DatasetManifest:
    defaults: dict[str, Any] = {
        "processes": 1,
        "download_attempts": 2,
        "download_backoff_s": 0.0,
        "download_timeout_s": 5.0,
    }
    options = IngestOptions(download_cache=str(tmp_path / "cache"), **(defaults | values))
    return ingest([str(source)], tmp_path / name, options)


def splits_by_path(out: Path) -> dict[str, str]:
    return {record.path: split for split in SPLITS for record in read_split(out, split)}


def reasons(out: Path) -> dict[str, str]:
    with open(out / "quarantine.csv", newline="", encoding="utf-8", errors="surrogateescape") as f:
        return {row["path"]: row["reason"] for row in csv.DictReader(f)}


def split_folder(folder: Path, make: Make, *names: str) -> Path:
    for position, name in enumerate(names):
        make(folder / name, count=6, first=100 * position)
    return folder


def zipped(folder: Path, target: Path) -> Path:
    return Path(shutil.make_archive(str(target.with_suffix("")), "zip", folder))


@pytest.mark.parametrize("names", [("train", "validation", "test"), ("Train", "val", "TEST")])
def test_a_split_folder_keeps_its_splits(
    tmp_path: Path, make_classes: Make, names: tuple[str, ...]
) -> None:
    source = split_folder(tmp_path / "in", make_classes, *names)
    manifest = run(source, tmp_path)
    assert {split: info.count for split, info in manifest.splits.items()} == dict.fromkeys(
        SPLITS, 12
    )
    assert {path.split("/")[0].lower()[:3] for path in splits_by_path(tmp_path / "out")} == {
        "tra", "val", "tes",
    }  # fmt: skip


def test_missing_splits_are_sampled_from_train(tmp_path: Path, make_classes: Make) -> None:
    source = tmp_path / "in"
    make_classes(source / "train", count=30)
    make_classes(source / "test", count=5, first=400)
    manifest = run(source, tmp_path)
    split_of = splits_by_path(tmp_path / "out")
    assert all((split == "test") == path.startswith("test/") for path, split in split_of.items())
    assert manifest.splits["validation"].count >= 2
    assert any("no validation split" in warning for warning in manifest.warnings)


def test_a_class_missing_in_train_is_refused(tmp_path: Path, make_classes: Make) -> None:
    source = split_folder(tmp_path / "in", make_classes, "train", "validation", "test")
    make_classes(source / "test", ("bird",), count=3, first=900)
    with pytest.raises(DataError, match="at least 1 images of each class in the train split"):
        run(source, tmp_path)


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar", "bztar", "xztar"])
def test_archives_are_equal_to_their_folders(tmp_path: Path, images: Path, kind: str) -> None:
    (images / "cat" / ".DS_Store").write_bytes(b"x")
    archive = shutil.make_archive(str(tmp_path / "a"), kind, images.parent, images.name)
    manifest = run(archive, tmp_path)
    assert manifest.digest == run(images, tmp_path, "other").digest
    assert manifest.ignored == 1
    assert sorted(splits_by_path(tmp_path / "out"))[0] == "images/cat/000.png"


def test_system_files_are_ignored_and_counted(tmp_path: Path, images: Path) -> None:
    (images / "__MACOSX").mkdir()
    (images / "__MACOSX" / "._1.png").write_bytes(b"x")
    (images / ".git").mkdir()
    (images / "cat" / "Thumbs.db").write_bytes(b"x")
    (images / "cat" / ".hidden.png").write_bytes(b"x")
    (images / "cat" / "notes.txt").write_text("x")
    (images / "README.md").write_text("x")
    manifest = run(images, tmp_path)
    assert (manifest.ignored, manifest.quarantined) == (6, {})


def test_pipes_and_broken_links_are_quarantined(tmp_path: Path, images: Path) -> None:
    os.mkfifo(images / "cat" / "pipe.png")
    (images / "cat" / "lost.png").symlink_to("nowhere.png")
    (images / "cat" / "loop").symlink_to(images)
    (images / "cat" / "no-suffix").write_bytes((images / "cat" / "001.png").read_bytes() + b" ")
    manifest = run(images, tmp_path)
    assert reasons(tmp_path / "out") == {
        "cat/pipe.png": "unreadable",
        "cat/lost.png": "missing-file",
    }
    assert (manifest.ignored, len(splits_by_path(tmp_path / "out"))) == (1, 41)


def test_a_source_that_is_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "t.csv")
    with pytest.raises(InputError, match=r"source: expected a folder or a file, got a pipe or dev"):
        run(tmp_path / "t.csv", tmp_path)


def test_names_need_not_be_text(tmp_path: Path, images: Path) -> None:
    name = os.fsdecode(b'caf\xe9\n,"=1+1.png')
    (images / "cat" / "000.png").rename(images / "cat" / name)
    (images / "cat" / os.fsdecode(b"\xff.png")).write_bytes(b"")
    run(images, tmp_path)
    assert f"cat/{name}" in splits_by_path(tmp_path / "out")
    assert list(reasons(tmp_path / "out")) == [os.fsdecode(b"cat/\xff.png")]


def test_invalid_files_are_quarantined_and_too_many_refused(tmp_path: Path, images: Path) -> None:
    good = (images / "cat" / "000.png").read_bytes()
    (images / "cat" / "zero.png").write_bytes(b"")
    (images / "cat" / "words.jpg").write_text("words")
    manifest = run(images, tmp_path)
    assert manifest.quarantined == {"empty-file": 1, "not-an-image": 1}
    (images / "dog" / "cut.png").write_bytes(good[: len(good) // 2])
    expected = r"at most 5\.0% invalid files, found 3 of 43: damaged 1, empty-file 1, not-an-image"
    with pytest.raises(DataError, match=expected):
        run(images, tmp_path, "other")
    assert not (tmp_path / "other").exists()
    run(images, tmp_path, "third", max_invalid_fraction=0.1)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "it is empty"),
        (b"neither this nor that", "its first bytes are 6e 65"),
        (b"7z\xbc\xaf\x27\x1c1234", "found a 7z archive; unpack it and use the folder"),
        (b"Rar!\x1a\7\1\0", "found a rar archive; unpack it"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, data: bytes, found: str) -> None:
    (tmp_path / "data.bin").write_bytes(data)
    with pytest.raises(InputError, match=f"expected a zip or tar archive, a table .*{found}"):
        run(tmp_path / "data.bin", tmp_path)


def test_a_list_of_formats_is_shown_where_it_helps(tmp_path: Path, images: Path) -> None:
    shutil.rmtree(images / "dog")
    shutil.copytree(images / "cat", images / "dog")
    with pytest.raises(DataError, match="all 40 files are invalid: label-conflict 40") as caught:
        run(images, tmp_path)
    assert "ingest reads" not in str(caught.value)


def test_an_error_page_saved_as_an_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_text("<html><head><title>Not Found</title></head></html>")
    with pytest.raises(InputError, match="received an HTML page"):
        run(tmp_path / "a.zip", tmp_path)


def test_a_checksum_pins_a_local_archive(tmp_path: Path, images: Path) -> None:
    archive = zipped(images, tmp_path / "a.zip")
    with pytest.raises(InputError, match=r"expected SHA-256 0{64}, found"):
        run(archive, tmp_path, sha256="0" * 64)
    with pytest.raises(InputError, match="apply to an archive"):
        run(images, tmp_path, sha256="0" * 64)


def test_an_archive_is_downloaded_over_http(tmp_path: Path, images: Path, web: Web) -> None:
    archive = zipped(images, tmp_path / "a.zip").read_bytes()
    url = web.plan("/data?key=secret", Reply(archive))
    manifest = run(url, tmp_path)
    assert manifest.digest == run(images, tmp_path, "other").digest
    assert manifest.sources == [f"{web.address}/data"]
    assert "secret" not in (tmp_path / "out" / "dataset.json").read_text()


def test_the_recipe_cats_vs_dogs_downloads_its_archive(
    tmp_path: Path, make_classes: Make, drive: Web
) -> None:
    """An archive with the layout and the URL of `cats_and_dogs_small.zip`."""
    identity = "1nBE3N2cXQGwD8JaD0JZ2LmFD-n3D5hVU"
    recipe = recipe_of("cats_vs_dogs", {})
    assert recipe.sources == (f"gdrive:{identity}",)
    folder = tmp_path / "zip" / "cats_and_dogs_small"
    for position, (name, count) in enumerate((("train", 20), ("validation", 10), ("test", 10))):
        make_classes(folder / name, ("cats", "dogs"), count, first=100 * position)
    headers = {"Content-Disposition": 'attachment; filename="cats_and_dogs_small.zip"',
               "Content-Type": "application/zip"}  # fmt: skip
    body = zipped(folder.parent, tmp_path / "a.zip").read_bytes()
    drive.plan(f"/uc?id={identity}", Reply(body, headers=headers))
    manifest = run(recipe.sources[0], tmp_path)
    assert manifest.classes == ["cats", "dogs"]
    assert {split: info.count for split, info in manifest.splits.items()} == {
        "train": 40, "validation": 20, "test": 20,
    }  # fmt: skip
    assert manifest.sources == [f"gdrive:{identity}"]


@pytest.fixture
def store() -> Iterator[str]:
    """A folder in the object store that fsspec keeps in memory."""
    name = uuid.uuid4().hex
    yield f"memory://{name}"
    fsspec.filesystem("memory").rm(f"/{name}", recursive=True)


def test_archives_and_folders_are_read_from_object_stores(
    tmp_path: Path, images: Path, store: str
) -> None:
    files = fsspec.filesystem("memory")
    for path in images.rglob("*.png"):
        files.pipe(f"{store}/set/{path.relative_to(images)}", path.read_bytes())
    files.pipe(f"{store}/a.zip", zipped(images, tmp_path / "a.zip").read_bytes())
    digest = run(images, tmp_path).digest
    assert run(f"{store}/set", tmp_path, "folder").digest == digest
    assert run(f"{store}/a.zip", tmp_path, "archive").digest == digest
    with pytest.raises(InputError, match="nothing found at this URL"):
        run(f"{store}/none", tmp_path, "none")


def test_a_missing_package_of_an_object_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the extra \[cloud\]"):
        run("abfs://container/a.zip", tmp_path)
    with pytest.raises(InputError, match="cannot open nosuch://: Protocol not known"):
        run("nosuch://a/b", tmp_path)


def write_table(path: Path, rows: list[dict[str, str]]) -> Path:
    if path.suffix == ".csv":
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def table_of(images: Path) -> list[dict[str, str]]:
    return [
        {"path": f"images/{path.relative_to(images)}", "label": path.parent.name}
        for path in sorted(images.rglob("*.png"))
    ]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("processes", [1, 2])
def test_images_are_read_from_tables(
    tmp_path: Path, images: Path, suffix: str, processes: int
) -> None:
    table = write_table(tmp_path / f"t{suffix}", table_of(images))
    manifest = run(table, tmp_path, processes=processes)
    assert manifest.digest == run(images, tmp_path, "other").digest
    assert "images/cat/000.png" in splits_by_path(tmp_path / "out")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_splits_and_groups_are_read_from_tables(tmp_path: Path, images: Path, suffix: str) -> None:
    rows = table_of(images)
    for number, row in enumerate(rows):
        row["split"] = ("train", "val", "test")[number % 3] if number % 2 else ""
        row["group"] = "" if number % 2 else f"visit {number // 10}"
    run(write_table(tmp_path / f"t{suffix}", rows), tmp_path)
    split_of = splits_by_path(tmp_path / "out")
    groups: dict[str, set[str]] = {}
    for row in rows:
        split = split_of[row["path"]]
        if row["split"]:
            assert split.startswith(row["split"])
        else:
            groups.setdefault(row["group"], set()).add(split)
    assert all(len(splits) == 1 for splits in groups.values())
    assert len(groups) == 4


def test_urls_are_read_from_tables(tmp_path: Path, images: Path, web: Web) -> None:
    rows = []
    for number, path in enumerate(sorted(images.rglob("*.png"))):
        url = web.plan(f"/{number}.png?signature=s", Reply(path.read_bytes()))
        rows.append({"uri": url, "label": path.parent.name})
    rows.append({"uri": web.address + "/none.png", "label": "cat"})
    manifest = run(write_table(tmp_path / "t.csv", rows), tmp_path)
    assert manifest.digest == run(images, tmp_path, "other").digest
    assert manifest.quarantined == {"unreadable": 1}
    assert not any("signature" in path for path in splits_by_path(tmp_path / "out"))


def test_paths_in_a_table_over_http_are_relative_to_it(
    tmp_path: Path, images: Path, web: Web
) -> None:
    for path in images.rglob("*.png"):
        web.plan(f"/set/images/{path.relative_to(images)}", Reply(path.read_bytes()))
    table = write_table(tmp_path / "t.csv", table_of(images))
    url = web.plan("/set/t.csv", Reply(table.read_bytes()))
    assert run(url, tmp_path).digest == run(images, tmp_path, "other").digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,class\na,b\n", r"columns path, uri or file_name and label.*found file, class"),
        ("", "found none"),
        ("path,label\na.png,\n", "row 2: expected a path and a label"),
        ("path,label,split\na.png,cat,trian\n", "expected split train, validation or test"),
        ("path,label\na.png\n", "line 2: expected 2 values"),
        ("path,label\na.png,cat,more\n", "line 2: expected 2 values"),
        ('path,label\n"a.png,cat\n', "expected a CSV table"),
        ("path,label\n", "expected images, found none"),
        ("p" * 2_000_000, "a row has more than 1048576 characters"),
        ("path,label\na.png,cat" + "," * 2_000_000, "a row has more than 1048576 characters"),
        ("path,label\na.png,cat" + ',"\n"' * 500_000, "a row has more than 1048576 characters"),
    ],
    ids=range(11),
)
def test_invalid_tables_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        run(tmp_path / "t.csv", tmp_path)


@pytest.mark.parametrize(
    ("header", "mark", "encoding"),
    [
        (" Path,Label ", ",", "utf-8"), ("path;label", ";", "utf-8-sig"),
        ("label\tpath", "\t", "utf-8"),
    ],
)  # fmt: skip
def test_tables_as_spreadsheets_write_them(
    tmp_path: Path, images: Path, header: str, mark: str, encoding: str
) -> None:
    order = [name.strip().lower() for name in header.split(mark)]
    lines = [mark.join(row[name] for name in order) for row in table_of(images)]
    (tmp_path / "t.csv").write_text("\n".join([header, *lines]), encoding=encoding)
    assert run(tmp_path / "t.csv", tmp_path).digest == run(images, tmp_path, "other").digest


def test_paths_of_windows_are_read(tmp_path: Path, images: Path) -> None:
    rows = table_of(images)
    for row in rows:
        row["path"] = row["path"].replace("/", "\\")
    table = write_table(tmp_path / "t.csv", rows)
    assert run(table, tmp_path).digest == run(images, tmp_path, "other").digest


@pytest.mark.parametrize("path", ["a\0b.png", "http://[::1", "", "x\n.png", "x" * 5000])
def test_an_invalid_row_is_quarantined(tmp_path: Path, images: Path, path: str) -> None:
    rows = [*table_of(images), {"path": path, "label": "cat"}]
    manifest = run(write_table(tmp_path / "t.csv", rows), tmp_path)
    reason = "missing-file" if path == "x\n.png" else "invalid-row"
    reason = "unreadable" if path.startswith("xx") else reason
    assert manifest.quarantined == {reason: 1}
    assert sum(info.count for info in manifest.splits.values()) == 40


@pytest.mark.parametrize("label", ["", "a\nb", "a\x1bb"])
def test_a_row_with_an_invalid_label_is_quarantined(
    tmp_path: Path, images: Path, label: str
) -> None:
    rows = table_of(images)
    rows[3]["label"] = label
    manifest = run(write_table(tmp_path / "t.csv", rows), tmp_path)
    assert (manifest.classes, manifest.quarantined) == (["cat", "dog"], {"invalid-row": 1})


@pytest.mark.parametrize("kind", ["float", "text"])
def test_missing_labels_of_parquet_are_no_class(tmp_path: Path, images: Path, kind: str) -> None:
    import pyarrow
    from pyarrow import parquet

    rows = table_of(images)
    labels = [None if n == 3 else float(row["label"] == "dog") for n, row in enumerate(rows)]
    if kind == "float":
        missing = [float("nan") if label is None else label for label in labels]
        column = pyarrow.array(missing, pyarrow.float64(), from_pandas=False)
    else:
        column = pyarrow.array([None if label is None else str(int(label)) for label in labels])
    table = pyarrow.table({"path": [row["path"] for row in rows], "label": column})
    parquet.write_table(table, tmp_path / "t.parquet")
    manifest = run(tmp_path / "t.parquet", tmp_path)
    assert (manifest.classes, manifest.quarantined) == (["0", "1"], {"invalid-row": 1})


def repeated_text(folder: Path) -> Path:
    """Write a table of a few kilobytes that has gigabytes of text."""
    import pyarrow
    from pyarrow import parquet

    column = pyarrow.DictionaryArray.from_arrays(
        pyarrow.array([0] * 4000, pyarrow.int32()), pyarrow.array(["x" * 1_000_000])
    )
    table = pyarrow.table({"path": column, "label": ["a", "b"] * 2000})
    parquet.write_table(table, folder / "t.parquet", compression="zstd")
    assert (folder / "t.parquet").stat().st_size < 20_000
    return folder / "t.parquet"


def long_text(folder: Path) -> Path:
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table({"path": ["x" * 1_000_000] * 70, "label": ["a", "b"] * 35})
    parquet.write_table(table, folder / "t.parquet", compression="zstd", use_dictionary=False)
    return folder / "t.parquet"


def nested(folder: Path) -> Path:
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table({"path": [["a.png"], ["b.png"]], "label": ["a", "b"]})
    parquet.write_table(table, folder / "t.parquet")
    return folder / "t.parquet"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (repeated_text, "expected values of at most 65536 bytes in path, found 1000000"),
        (long_text, "expected at most 67108864 bytes in path, found 7"),
        (nested, "expected text or numbers in path, found list"),
    ],
)
def test_hostile_parquet_is_refused_before_each_row_is_a_text(
    tmp_path: Path, make: Callable[[Path], Path], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        run(make(tmp_path), tmp_path)


def test_a_path_that_is_too_long_is_quarantined(tmp_path: Path, images: Path) -> None:
    rows = [*table_of(images), {"path": "x" * 100_000, "label": "cat"}]
    run(write_table(tmp_path / "t.csv", rows), tmp_path)
    (row,) = csv.DictReader((tmp_path / "out" / "quarantine.csv").read_text().splitlines())
    assert (row["path"], row["reason"]) == ("x" * 200, "invalid-row")
    assert row["detail"].endswith("expected a path of at most 8192 characters, got 100000")


def test_a_path_that_was_tried_is_shown(tmp_path: Path, images: Path) -> None:
    rows = [*table_of(images), {"path": "nowhere/1.png", "label": "cat"}]
    manifest = run(write_table(tmp_path / "t.csv", rows), tmp_path)
    tried = str(tmp_path / "nowhere" / "1.png")
    assert any(f"does not exist: 'nowhere/1.png', tried '{tried}'" in w for w in manifest.warnings)


def test_the_list_of_too_many_invalid_files_is_kept(tmp_path: Path, images: Path) -> None:
    for number in range(4):
        (images / "cat" / f"phone{number}.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(90))
    with pytest.raises(DataError, match=r"raise --max-invalid-fraction") as caught:
        run(images, tmp_path)
    assert "heic (HEIC); convert it" in str(caught.value)
    kept = tmp_path / "out.quarantine.csv"
    assert str(kept) in str(caught.value)
    assert len(kept.read_text().splitlines()) == 5
    shutil.rmtree(images / "dog")
    for file in images.rglob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(DataError, match=r"all 24 files are invalid.*reads JPEG, PNG, GIF, BMP, W"):
        run(images, tmp_path)


def test_files_of_other_formats_are_named(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / "in" / label).mkdir(parents=True)
        (tmp_path / "in" / label / "1.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(DataError, match=r"found none, and 2 other files, for instance a/1\.npy;"):
        run(tmp_path / "in", tmp_path)


def test_temporary_folders_are_not_shown(tmp_path: Path) -> None:
    for name, members, found in (("a", [], "nothing"), ("b", ["1.png"], "1 files and no folder")):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            for member in members:
                archive.writestr(member, b"x")
        with pytest.raises(DataError, match=rf"images in \S+/{name}\.zip, found {found}") as caught:
            run(tmp_path / f"{name}.zip", tmp_path)
        assert ".work" not in str(caught.value)


def test_files_that_are_not_tables_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"path,label\n\xff\xfe,cat\n")
    with pytest.raises(InputError, match="CSV table in UTF-8"):
        run(tmp_path / "t.csv", tmp_path)
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match="expected a Parquet or Arrow table"):
        run(tmp_path / "t.parquet", tmp_path)


def write_idx(folder: Path, count: int = 60, packed: bool = True) -> Path:
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for stem in ("train", "t10k"):
        images = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for name, values in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape)
            data = header + values.tobytes()
            path = folder / f"{stem}-{name}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(data) if packed else data)
    return folder


@pytest.mark.parametrize("packed", [True, False])
def test_the_files_of_fashion_mnist_are_read(tmp_path: Path, packed: bool) -> None:
    manifest = run(write_idx(tmp_path / "idx", 120, packed), tmp_path)
    assert manifest.classes == sorted(FASHION_CLASSES)
    assert manifest.splits["test"].count == 120
    assert manifest.splits["train"].count + manifest.splits["validation"].count == 120
    assert manifest.duplicates["near_pairs"] == 0


def test_damaged_idx_files_are_refused(tmp_path: Path) -> None:
    folder = write_idx(tmp_path / "idx", packed=False)
    path = folder / "t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"expected \(60,\) values, found 59"):
        run(folder, tmp_path)


@pytest.mark.parametrize(
    ("shape", "extra", "message"),
    [
        ((60, 28, 28), 200_000, r"expected \(60, 28, 28\) values, found more"),
        ((60, 0, 28), 0, "expected 1 to 1073741824 values"),
        ((1 << 31, 28, 28), 0, "expected 1 to 1073741824 values"),
        (None, 0, "cannot read .*train-images-idx3-ubyte.gz"),
    ],
)
def test_hostile_idx_files_are_refused(
    tmp_path: Path, shape: tuple[int, ...] | None, extra: int, message: str
) -> None:
    folder = write_idx(tmp_path / "idx")
    path = folder / "train-images-idx3-ubyte.gz"
    values = gzip.decompress(path.read_bytes())[16:] + bytes(extra)
    header = bytes((0, 0, 8, 3)) + struct.pack(">3I", *(shape or (60, 28, 28)))
    packed = gzip.compress(header + values)
    path.write_bytes(packed if shape else packed[:40] + b"\xff" * 40 + packed[80:])
    with pytest.raises(InputError, match=message):
        run(folder, tmp_path)


def test_tar_with_a_hostile_member_leaves_nothing(tmp_path: Path, images: Path) -> None:
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as opened:
        opened.add(images, "in")
        info = tarfile.TarInfo("in/cat/../../../up.png")
        opened.addfile(info)
    with pytest.raises(InputError, match="leads outside"):
        run(archive, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar", "images"]


def test_a_zip_of_one_class_is_refused(tmp_path: Path, images: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for path in (images / "cat").iterdir():
            opened.write(path, f"data/cat/{path.name}")
    with pytest.raises(DataError, match="at least two classes, found 1: cat 20"):
        run(archive, tmp_path)
