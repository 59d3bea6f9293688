"""Which files a table may name, through the whole step and by the rules alone."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from components.ingest.ingest import ingest
from components.ingest.sources.remote_hosts import is_inside
from components.ingest.sources.table_files import file_of_local_table, file_of_remote_table
from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.runtime.errors import InputError
from tests.components.ingest.web import Reply, Web, serving

REFUSED = [
    "file:///etc/passwd",
    "FILE:///etc/passwd",
    "reference://a",
    "memory://a",
    "github://a",
    "sftp://host/a",
    "simplecache::https://host/a",
    "s3://bucket/a::reference://b",
    "zip://a.png::file:///tmp/a.zip",
    "local:///etc/passwd",
]


@pytest.mark.parametrize("file", REFUSED)
def test_other_addresses_are_refused_in_every_table(file: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"t\.csv: expected a path or a URL \(http"):
        file_of_local_table(file, tmp_path, "t.csv", anywhere=True)
    for table in ("http://host/t.csv", "s3://bucket/t.csv"):
        with pytest.raises(InputError, match=r"t\.csv: expected a path or a URL \(http"):
            file_of_remote_table(file, table, "t.csv")


@pytest.mark.parametrize("file", ["/etc/passwd", "../a.png", "a/../../b.png", "a/./../../b.png"])
def test_a_local_table_names_files_below_its_folder(file: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected files below .*--table-paths anywhere"):
        file_of_local_table(file, tmp_path, "t.csv", anywhere=False)
    path = file_of_local_table(file, tmp_path, "t.csv", anywhere=True)
    assert Path(path).is_absolute() and ".." not in Path(path).parts


@pytest.mark.parametrize("file", ["a.png", "./b/../a.png", "{folder}/a.png", "c/a..png"])
def test_paths_below_the_folder_are_read(file: str, tmp_path: Path) -> None:
    file = file.format(folder=tmp_path)
    path = file_of_local_table(file, tmp_path, "t.csv", anywhere=False)
    assert Path(path) == (tmp_path / file.replace("b/../", "")).absolute()


@pytest.mark.parametrize(
    ("file", "table", "url"),
    [
        ("img/a.png", "http://host/set/t.csv?signature=s", "http://host/set/img/a.png"),
        ("/etc/passwd", "http://host/set/t.csv", "http://host/etc/passwd"),
        ("img/a.png", "s3://bucket/set/t.csv", "s3://bucket/set/img/a.png"),
        ("img/a.png", "gs://bucket/t.csv", "gs://bucket/img/a.png"),
        ("../../../etc/passwd", "s3://bucket/set/t.csv", "s3://bucket/etc/passwd"),
        ("/etc/passwd", "s3://bucket/set/t.csv", "s3://bucket/etc/passwd"),
        ("https://other/a.png", "s3://bucket/set/t.csv", "https://other/a.png"),
    ],
)
def test_a_path_in_a_remote_table_is_relative_to_it(file: str, table: str, url: str) -> None:
    assert file_of_remote_table(file, table, "t.csv") == url


def test_a_table_from_drive_names_urls_only() -> None:
    with pytest.raises(InputError, match="expected URLs"):
        file_of_remote_table("/etc/passwd", "gdrive:1nBE3N2cXQGwD8JaD0JZ2", "t.csv")


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("0.0.0.0", True),
        ("169.254.169.254", True), ("fe80::1%eth0", True), ("::ffff:127.0.0.1", True),
        ("::ffff:169.254.1.1", True), ("10.0.0.7", False), ("8.8.8.8", False),
        ("2001:db8::1", False),
    ],
)  # fmt: skip
def test_which_addresses_are_inside(address: str, inside: bool) -> None:
    assert is_inside(address) is inside


def run(table: str, tmp_path: Path, **values: object) -> DatasetManifest:
    options = IngestOptions(
        download_cache=str(tmp_path / "cache"), processes=1, download_attempts=1,
        download_timeout_s=5.0, max_invalid_fraction=1.0, **values,
    )  # fmt: skip
    return ingest([table], tmp_path / "out", options)


def details(out: Path) -> list[str]:
    with open(out / "quarantine.csv", newline="", encoding="utf-8") as file:
        return [row["detail"] for row in csv.DictReader(file)]


def test_a_remote_table_does_not_reach_another_server_of_this_machine(
    web: Web, images: Path, tmp_path: Path
) -> None:
    rows = ["uri,label"]
    for path in images.rglob("*.png"):
        name = path.relative_to(images).as_posix()
        web.plan(f"/set/{name}", Reply(path.read_bytes()))
        rows.append(f"{name},{path.parent.name}")
    data = path.read_bytes()
    with serving() as inside:
        inside.plan("/secret.png", Reply(data))
        port = inside.address.rpartition(":")[2]
        # By address, by name, by number, and by a redirect of the table's own server.
        web.plan("/moved.png", Reply(b"", 302, {"Location": f"{inside.address}/secret.png"}))
        names = [f"http://{host}:{port}/secret.png" for host in
                 ("127.0.0.1", "localhost", "2130706433", "127.1")]  # fmt: skip
        rows += [f"{name},cat" for name in [*names, "/moved.png"]]
        table = web.plan("/set/t.csv", Reply("\n".join(rows).encode()))
        manifest = run(table, tmp_path)
        assert inside.requests == []
    assert manifest.quarantined == {"unreadable": 5}
    assert all(
        "which a table from elsewhere must not name" in one for one in details(tmp_path / "out")
    )


def test_a_local_table_may_name_servers_of_this_machine(
    web: Web, images: Path, tmp_path: Path
) -> None:
    rows = ["path,label"]
    for number, path in enumerate(images.rglob("*.png")):
        rows.append(f"{web.plan(f'/{number}.png', Reply(path.read_bytes()))},{path.parent.name}")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    assert run(str(tmp_path / "t.csv"), tmp_path).quarantined == {}


def test_a_hostile_row_ends_the_step_before_anything_is_written(
    images: Path, tmp_path: Path
) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "t.csv").write_text("path,label\n../images/cat/000.png,cat\n")
    with pytest.raises(InputError, match="expected files below"):
        run(str(tmp_path / "set" / "t.csv"), tmp_path)
    assert not (tmp_path / "out").exists()
