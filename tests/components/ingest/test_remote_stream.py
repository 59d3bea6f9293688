"""Remote shards are read once from start to end, also over connections that break."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import fsspec
import pytest
import requests

from components.ingest.ingest import ingest
from components.ingest.sources.remote_stream import open_remote
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.runtime.errors import InputError, UnavailableError
from tests.components.ingest.conftest import write_classes
from tests.components.ingest.forms import items_of, parquet_table, tar_of
from tests.components.ingest.web import Reply, Web

DATA = bytes(range(256)) * 4096
VERSION = {"ETag": '"1"'}
SECOND = {"ETag": '"2"'}


def options(**values: Any) -> IngestOptions:
    fast = {"download_backoff_s": 0.0, "download_attempts": 2, "download_timeout_s": 5.0}
    return IngestOptions(**{"processes": 1, "near_duplicates": "off"} | fast | values)


def read_all(url: str, **values: Any) -> bytes:
    with open_remote(url, options(**values)) as stream:
        start = stream.peek(512)
        data = stream.read(len(DATA) + 1)
    assert data.startswith(start)
    return data


def test_a_broken_connection_goes_on_where_it_stopped(web: Web) -> None:
    half = len(DATA) // 2
    url = web.plan("/a", Reply(DATA, 503), Reply(DATA, headers=VERSION, send=half),
                   Reply(DATA, headers=VERSION))  # fmt: skip
    assert read_all(url) == DATA
    assert [headers.get("Range") for _, headers in web.requests] == [None, None, f"bytes={half}-"]


def test_bytes_that_a_server_without_ranges_repeats_are_skipped(web: Web) -> None:
    broken = Reply(DATA, headers=VERSION, send=700_000)
    url = web.plan("/a", broken, Reply(DATA, headers=VERSION, ranges=False))
    assert read_all(url) == DATA


@pytest.mark.parametrize(
    ("replies", "message"),
    [
        ([Reply(DATA, headers=VERSION, send=9), Reply(DATA, headers=SECOND)],
         "/a: the file changed while it was read"),
        ([Reply(DATA, headers=VERSION, send=9), Reply(b"", 416)],
         "/a: the file changed while it was read"),
        ([Reply(DATA, send=9)], "/a: the connection broke, and the server names no version"),
        ([Reply(b"", 404)], "/a: the file does not exist"),
    ],
)  # fmt: skip
def test_a_stream_that_cannot_go_on_is_one_line(
    replies: list[Reply], message: str, web: Web
) -> None:
    url = web.plan("/a", *replies)
    with pytest.raises(InputError, match=message) as error:
        read_all(url)
    assert "\n" not in str(error.value)


def test_the_limit_of_downloads_holds_for_streams(web: Web) -> None:
    with pytest.raises(InputError, match="/a: max_download_bytes: expected at most 1048575 bytes"):
        read_all(web.plan("/a", Reply(DATA)), max_download_bytes=len(DATA) - 1)


def test_a_server_that_always_breaks_is_given_up(web: Web) -> None:
    url = web.plan("/a", Reply(DATA, headers=VERSION, send=0))
    with pytest.raises(UnavailableError, match=r"/a: truncated: the connection broke \(2 att"):
        read_all(url)


def test_the_start_is_read_before_the_rest_arrives(web: Web) -> None:
    url = web.plan("/a", Reply(DATA, headers=VERSION, send=70_000, after="stall"))
    with open_remote(url, options()) as stream:
        assert stream.read(65_536) == DATA[:65_536]
        assert stream.size == len(DATA)


def test_a_stream_that_is_not_read_to_its_end_closes_its_response(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []
    close = requests.Response.close
    monkeypatch.setattr(requests.Response, "close", lambda response: closed.append(close(response)))
    with open_remote(web.plan("/a", Reply(DATA, send=len(DATA))), options()) as stream:
        stream.read(9)
        blocks = stream._blocks  # A reference to them, as a traceback has, keeps them open.
    assert blocks is not None
    assert len(closed) == 1


def test_an_object_of_a_store_is_read_in_parts() -> None:
    store = fsspec.filesystem("memory")
    store.pipe_file("/streams/a", DATA)
    with open_remote("memory://streams/a", options()) as stream:
        assert stream.peek(3) == DATA[:3]
        assert b"".join(iter(lambda: stream.read(300_001), b"")) == DATA
    with pytest.raises(InputError, match="memory://streams/b: nothing found at this URL"):
        read_all("memory://streams/b")


def test_compressed_tars_are_streamed_and_tables_are_downloaded(web: Web, tmp_path: Path) -> None:
    items = items_of(write_classes(tmp_path / "images", count=6))
    members = [(f"{number}.{kind}", data) for number, (_, label, image) in enumerate(items)
               for kind, data in (("png", image), ("cls", label.encode()))]  # fmt: skip
    packed = gzip.compress(tar_of(tmp_path / "t.tar", members).read_bytes())
    table = parquet_table(tmp_path, items).read_bytes()
    digests = set()
    for name, data in (("t-0.tar.gz", packed), ("t-0.parquet", table)):
        web.plan(f"/{name}", Reply(data, headers={"ETag": f'"{name}"'}))
        cache = tmp_path / f"cache of {name}"
        source = f"{web.address}/{name.replace('0', '{0..0}')}"
        found = ingest([source], tmp_path / f"of {name}", options(download_cache=str(cache)))
        digests.add(found.digest)
        assert cache.exists() == name.endswith("parquet")
    assert len(digests) == 1
    assert [path for path, _ in web.requests].count("/t-0.tar.gz") == 1
