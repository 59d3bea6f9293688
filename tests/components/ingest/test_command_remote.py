"""`regraft ingest` with sources from the network: Drive, buckets and tables."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import fsspec
import pyarrow
import pytest
from pyarrow import parquet

from regraft.cli.main import main
from regraft_core.formats.manifests.dataset import DatasetManifest
from tests.components.ingest.web import Reply, Web

ID = "1nBE3N2cXQGwD8JaD0JZ2LmFD-n3D5hVU"
LINK = f"https://drive.google.com/file/d/{ID}/view?usp=sharing"
HTML = {"Content-Type": "text/html; charset=utf-8"}
ATTACHED = {
    "Content-Disposition": 'attachment; filename="pets.zip"',
    "Content-Type": "application/zip",
}
Ingest = Callable[..., tuple[int, str]]


@pytest.fixture
def ingest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Ingest:
    """Run `regraft ingest SOURCE` to `out`; return the exit code and the errors on stderr."""

    def run(source: str | Path, *more: str) -> tuple[int, str]:
        quick = (
            "--processes", "1", "--download-attempts", "2", "--download-backoff-s", "0",
            "--download-timeout-s", "5",
        )  # fmt: skip
        folders = ("--out", str(tmp_path / "out"), "--download-cache", str(tmp_path / "cache"))
        with pytest.raises(SystemExit) as ended:
            main(["ingest", str(source), *folders, *quick, *more])
        lines = capsys.readouterr().err.splitlines(keepends=True)
        errors = "".join(line for line in lines if not line.startswith("ingest: "))
        return int(ended.value.code or 0), errors

    return run


def packed(folder: Path) -> bytes:
    return Path(shutil.make_archive(f"{folder}-packed", "zip", folder)).read_bytes()


def rows_of(images: Path, prefix: str) -> list[dict[str, str]]:
    return [
        {"uri": f"{prefix}{path.relative_to(images)}", "label": path.parent.name}
        for path in sorted(images.rglob("*.png"))
    ]


def write_table(path: Path, rows: list[dict[str, str]]) -> Path:
    if path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return path
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def require_pets(out: Path) -> DatasetManifest:
    manifest = DatasetManifest.read(out)
    assert manifest.classes == ["cat", "dog"]
    assert sum(split.count for split in manifest.splits.values()) == 40
    return manifest


def require_refused(result: tuple[int, str], message: str, tmp_path: Path) -> None:
    code, error = result
    (line,) = error.splitlines()
    assert code == 2
    assert line.startswith("regraft: error: ")
    assert message in line
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize("source", [LINK, f"gdrive:{ID}"])
def test_google_drive(
    ingest: Ingest, drive: Web, images: Path, tmp_path: Path, source: str
) -> None:
    drive.plan(f"/uc?id={ID}", Reply(packed(images), headers=ATTACHED))
    assert ingest(source) == (0, "")
    assert require_pets(tmp_path / "out").sources == [f"gdrive:{ID}"]


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("Sorry: too many users have viewed or downloaded this file recently.", "quota"),
        ("You need access. Request access.", "not shared with everyone who has the link"),
        ("The file you have requested does not exist.", "the file does not exist"),
    ],
)
def test_google_drive_refuses(
    ingest: Ingest, drive: Web, tmp_path: Path, page: str, message: str
) -> None:
    body = f"<!DOCTYPE html><html><title>Google Drive</title><p>{page}</p></html>".encode()
    drive.plan(f"/uc?id={ID}", Reply(body, headers=HTML))
    require_refused(ingest(f"gdrive:{ID}"), message, tmp_path)


def test_buckets(ingest: Ingest, bucket: str, images: Path, tmp_path: Path) -> None:
    files = fsspec.filesystem(bucket.split(":")[0])
    files.pipe_file(f"{bucket}/pets.zip", packed(images))
    for path in images.rglob("*.png"):
        files.pipe_file(f"{bucket}/pets/{path.relative_to(images)}", path.read_bytes())
    rows = rows_of(images, f"{bucket}/pets/")
    write_table(tmp_path / "pets.parquet", rows)
    files.put_file(str(tmp_path / "pets.parquet"), f"{bucket}/pets.parquet")
    digests = set()
    for name in ("pets.zip", "pets", "pets.parquet"):
        assert ingest(f"{bucket}/{name}") == (0, "")
        digests.add(require_pets(tmp_path / "out").digest)
        shutil.rmtree(tmp_path / "out")
    assert len(digests) == 1


def test_invalid_files_in_buckets_are_refused(
    ingest: Ingest, bucket: str, images: Path, tmp_path: Path
) -> None:
    files = fsspec.filesystem(bucket.split(":")[0])
    body = packed(images)
    files.pipe_file(f"{bucket}/cut.zip", body[: len(body) // 2])
    files.pipe_file(f"{bucket}/page.zip", b"<html><title>Maintenance</title></html>")
    files.pipe_file(f"{bucket}/pets.zip", body)
    for name, message in (
        ("none.zip", "nothing found at this URL"),
        ("cut.zip", "cut.zip: "),
        ("page.zip", "received an HTML page"),
    ):
        require_refused(ingest(f"{bucket}/{name}"), message, tmp_path)
    pinned = ingest(f"{bucket}/pets.zip", "--sha256", "0" * 64)
    require_refused(pinned, "expected SHA-256 0000", tmp_path)
    require_refused(ingest(f"{bucket}-of-nobody/a.zip"), "nothing found at this URL", tmp_path)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_tables(ingest: Ingest, web: Web, images: Path, tmp_path: Path, suffix: str) -> None:
    for path in images.rglob("*.png"):
        web.plan(f"/{path.relative_to(images)}", Reply(path.read_bytes()))
    rows = rows_of(images, f"{web.address}/")
    assert ingest(write_table(tmp_path / f"pets.{suffix}", rows)) == (0, "")
    require_pets(tmp_path / "out")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_invalid_tables_are_refused(
    ingest: Ingest, images: Path, tmp_path: Path, suffix: str
) -> None:
    rows = rows_of(images, "images/")
    table = tmp_path / f"pets.{suffix}"
    nameless = [{"uri": row["uri"], "class": row["label"]} for row in rows]
    write_table(table, nameless)
    require_refused(
        ingest(table), "expected the columns path, uri or file_name and label", tmp_path
    )
    write_table(table, [{**row, "split": "exam"} for row in rows])
    require_refused(ingest(table), "expected split train, validation or test", tmp_path)
    write_table(table, [{**row, "uri": f"lost/{row['uri']}"} for row in rows])
    require_refused(ingest(table), "all 40 files are invalid: missing-file 40", tmp_path)
