"""Predictions into Parquet: files, folders and buckets of parts, resumed and never half-written."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import fsspec
import pyarrow
import pytest
from pyarrow import parquet

from regraft.bulk import parquet_output
from regraft.bulk.parquet_output import STATE_FILE, predict_into
from regraft.bulk.prediction import PredictionSetup, predict_here
from regraft.bulk.prediction_rows import PredictionRow, as_row, as_table
from regraft_client.predict_files import FilePrediction
from regraft_core.runtime.errors import InputError
from tests.command_line import Regraft
from tests.conftest import Trained


def rows_of(tables: Sequence[pyarrow.Table], below: str) -> list[PredictionRow]:
    rows = [PredictionRow(**row) for table in tables for row in table.to_pylist()]
    return comparable(rows, below)


def comparable(rows: Sequence[PredictionRow], below: str) -> list[PredictionRow]:
    """Return rows with paths below a folder, and confidences without the digits of a batch."""
    return [
        row._replace(
            path=row.path.removeprefix(f"{below}/"),
            confidence=None if row.confidence is None else round(row.confidence, 4),
        )
        for row in rows
    ]


@pytest.fixture(scope="module")
def setup(trained: Trained) -> PredictionSetup:
    return PredictionSetup(str(trained.candidates["head"]), "tf")


@pytest.fixture(scope="module")
def thirty(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty images, one of which is damaged."""
    folder = tmp_path_factory.mktemp("bulk") / "images"
    for kind in ("circle", "cross", "square"):
        (folder / kind).mkdir(parents=True)
        for number in range(10):
            shutil.copy(shapes / kind / f"{number:03}.png", folder / kind)
    (folder / "cross" / "004.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def expected(thirty: Path, setup: PredictionSetup) -> list[PredictionRow]:
    """The rows of the thirty images, with paths below their folder."""
    classes, found = predict_here([str(thirty)], setup.model_dir, "tf", None)
    return comparable([as_row(one, classes) for one in found], str(thirty))


@pytest.fixture
def images(thirty: Path, tmp_path: Path) -> Path:
    """A copy of the thirty images."""
    return shutil.copytree(thirty, tmp_path / "images")


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_output, "IMAGES_PER_TASK", 4)
    monkeypatch.setattr(parquet_output, "IMAGES_PER_PART", 8)


def test_one_file_has_a_row_for_each_image(
    regraft: Regraft, images: Path, setup: PredictionSetup, tmp_path: Path,
    expected: list[PredictionRow],
) -> None:  # fmt: skip
    out = tmp_path / "new" / "predictions.parquet"
    ended = regraft("predict", images, "--model-dir", setup.model_dir, "--output", out)
    assert (ended.code, ended.out) == (2, f"30 images predicted to {out}\n")
    assert f"1 of 30 images were refused; the column error of {out} has the reasons" in ended.err
    assert rows_of([parquet.read_table(out)], str(images)) == expected
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    (refused,) = [row for row in expected if row.error]
    assert refused == PredictionRow("cross/004.png", error=refused.error)


def test_a_folder_is_resumed(
    images: Path, setup: PredictionSetup, tmp_path: Path, expected: list[PredictionRow]
) -> None:
    out, counts = tmp_path / "out", []

    def interrupt(done: int, total: int | None) -> None:
        counts.append(done)
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_into([str(images)], setup, str(out), interrupt)
    assert json.loads((out / STATE_FILE).read_text())["finished"] is False
    assert sorted(path.name for path in out.glob("part-*")) == [
        "part-00000.parquet", "part-00001.parquet"
    ]  # fmt: skip
    first = (out / "part-00000.parquet").stat().st_mtime_ns
    (out / "part-00001.parquet").write_bytes(b"damaged")
    written = predict_into([str(images)], setup, str(out), None)
    assert (written.images, written.errors, written.kept_parts) == (30, 1, 1)
    assert (out / "part-00000.parquet").stat().st_mtime_ns == first
    state = json.loads((out / STATE_FILE).read_text())
    assert {**state, "finished": True, "parts": 4, "rows": 30, "errors": 1} == state
    assert rows_of([parquet.read_table(out)], str(images)) == expected
    # Images that were removed, changed or added since.
    shutil.rmtree(images / "square")
    for name in ("part-00008.parquet", "sub"):
        (out / name).mkdir()
    for name in ("notes.txt", "part-1.parquet", "sub/part-00009.parquet"):
        shutil.copy(out / "part-00000.parquet", out / name)
    written = predict_into([str(images)], setup, str(out), None)
    assert (written.images, written.kept_parts) == (20, 2)
    assert {path.name for path in out.iterdir()} == {
        STATE_FILE, "notes.txt", "sub", "part-1.parquet", "part-00008.parquet",
        *(f"part-{number:05d}.parquet" for number in range(3)),
    }  # fmt: skip
    assert len(list((out / "sub").iterdir())) == 1
    parts = [parquet.read_table(out / f"part-{number:05d}.parquet") for number in range(3)]
    assert sum(part.num_rows for part in parts) == 20


def test_something_else_in_the_folder_stays(
    images: Path, thirty: Path, setup: PredictionSetup, trained: Trained, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="output: expected an empty folder, or predictions of"):
        predict_into([str(images)], setup, str(other), None)
    assert [path.name for path in other.iterdir()] == ["notes.txt"]
    out = str(tmp_path / "out")
    (images / os.fsdecode(b"\xff.png")).write_bytes(b"no image")
    monkeypatch.chdir(tmp_path)
    assert predict_into(["images"], setup, out, None).errors == 2
    for changed in (
        PredictionSetup(str(trained.candidates["top"]), "tf"),
        PredictionSetup(setup.model_dir, "auto"),
    ):
        with pytest.raises(InputError, match="choose another one"):
            predict_into([str(images)], changed, out, None)
    monkeypatch.chdir(thirty.parent)  # has other images of this name
    with pytest.raises(InputError, match="choose another one"):
        predict_into(["images"], setup, out, None)


def test_from_a_bucket_into_a_bucket(
    s3: None, thirty: Path, setup: PredictionSetup, expected: list[PredictionRow]
) -> None:
    files = fsspec.filesystem("s3")
    files.mkdir("bulk")
    files.put(f"{thirty}/", "s3://bulk/images/", recursive=True)
    files.pipe_file("s3://bulk/images/square/z::z.png", b"")  # has no URI
    reason = "cannot open s3://bulk/images/square/z::z.png: expected one address such as s3://"
    rows = [*expected, PredictionRow("square/z::z.png", error=f"{reason}bucket/path")]
    for output in ("s3://bulk/out", "s3://bulk/one/predictions.parquet"):
        written = predict_into(["s3://bulk/images"], setup, output, None)
        assert (written.images, written.errors) == (31, 2)
        names = [name for name in sorted(files.find(output)) if name.endswith(".parquet")]
        tables = [parquet.read_table(files.open(name)) for name in names]
        assert rows_of(tables, "s3://bulk/images") == rows
    assert predict_into(["s3://bulk/images"], setup, "s3://bulk/out", None).kept_parts == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--output", "o.parquet", "--server", "grpc://h:1"), "--output: expected --model-dir"),
        (("--output", "o.parquet", "--model-dir", "m", "--csv"), "--output: expected no --json"),
        (("--output", "s4://b/o", "--model-dir", "m"), "output: expected a URI such as s3://"),
        (("--output", "s3://a:b@c/o", "--model-dir", "m"), "output: expected a URL without user"),
        (("--output", "o.parquet", "--model-dir", "m"), "found nothing at m"),
    ],
)
def test_bad_input_is_one_line(
    regraft: Regraft, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    ended = regraft("predict", shapes, *options)
    assert ended.code == 2
    assert message in ended.err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_no_image_leaves_no_file(setup: PredictionSetup, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for output in ("o.parquet", "out"):
        with pytest.raises(InputError, match=r"found no image in .*empty"):
            predict_into([str(tmp_path / "empty")], setup, str(tmp_path / output), None)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_a_name_that_is_no_text_is_escaped() -> None:
    row = as_row(FilePrediction("a\udcff.png", None, "damaged"), ())
    assert rows_of([as_table([row])], "")[0].path == "a\\udcff.png"
