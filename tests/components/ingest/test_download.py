"""Downloads from a local server that stalls, truncates, sends slowly or incorrectly, or refuses."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from components.ingest.sources.download import download_cached
from components.ingest.sources.folders import Tally
from components.ingest.sources.source_files import source_files
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.runtime.addresses import redact
from regraft_core.runtime.errors import InputError
from tests.components.ingest.web import Reply, Web

BODY = b"PK\x03\x04" + os.urandom(300_000)
DIGEST = hashlib.sha256(BODY).hexdigest()
ETAG = {"ETag": '"one"'}
QUOTA = b"""<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head><body>
<p class="uc-error-caption">Sorry, you can't view or download this file at this time.</p>
<p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently.</p>
</body></html>"""
ID = "1nBE3N2cXQGwD8JaD0JZ2LmFD-n3D5hVU"
DRIVE_PATH = f"/uc?id={ID}"
ATTACHED = {
    "Content-Disposition": 'attachment; filename="a.zip"',
    "Content-Type": "application/zip",
}
HTML = {"Content-Type": "text/html; charset=utf-8"}


def options(tmp_path: Path, **values: Any) -> IngestOptions:
    defaults: dict[str, Any] = {
        "download_attempts": 3,
        "download_backoff_s": 0.0,
        "download_timeout_s": 5.0,
    }
    return IngestOptions(download_cache=str(tmp_path / "cache"), **(defaults | values))


def partial_files(tmp_path: Path) -> list[str]:
    partial = tmp_path / "cache" / "partial"
    return [path.name for path in partial.rglob("*") if path.suffix != ".lock" and path.is_file()]


def test_a_file_is_downloaded_and_cached_by_digest(web: Web, tmp_path: Path) -> None:
    url = web.plan("/a.zip", Reply(BODY, headers=ETAG))
    file = download_cached(url, options(tmp_path))
    assert (file.name, file.read_bytes()) == (DIGEST, BODY)
    assert download_cached(url, options(tmp_path)) == file
    assert web.requests[-1][1]["If-None-Match"] == '"one"'
    assert download_cached(url, options(tmp_path, sha256=DIGEST.upper())) == file
    assert len(web.requests) == 2
    web.plan("/a.zip", Reply(b"PK\x03\x04new", headers={"ETag": '"two"'}))
    assert download_cached(url, options(tmp_path)).read_bytes() == b"PK\x03\x04new"
    assert partial_files(tmp_path) == []


def test_a_damaged_cache_is_not_used(web: Web, tmp_path: Path) -> None:
    url = web.plan("/a.zip", Reply(BODY, headers=ETAG))
    file = download_cached(url, options(tmp_path))
    file.write_bytes(b"PK damaged")
    assert download_cached(url, options(tmp_path, sha256=DIGEST)).read_bytes() == BODY


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_is_resumed(web: Web, tmp_path: Path, ranges: bool) -> None:
    broken = Reply(BODY, headers=ETAG, send=100_000)
    url = web.plan("/a.zip", broken, Reply(BODY, headers=ETAG, ranges=ranges))
    assert download_cached(url, options(tmp_path)).read_bytes() == BODY
    assert web.requests[1][1]["Range"] == "bytes=100000-"
    assert web.requests[1][1]["If-Range"] == '"one"'


def test_a_later_run_resumes_too(web: Web, tmp_path: Path) -> None:
    url = web.plan("/a.zip", Reply(BODY, headers=ETAG, send=100_000))
    with pytest.raises(InputError, match=r"truncated: the connection broke \(3 attempts\)"):
        download_cached(url, options(tmp_path))
    web.plan("/a.zip", Reply(BODY, headers=ETAG))
    assert download_cached(url, options(tmp_path)).read_bytes() == BODY
    # Three attempts received 100,000 bytes each.
    assert web.requests[-1][1]["Range"] == "bytes=300000-"


def test_another_version_is_not_appended(web: Web, tmp_path: Path) -> None:
    other = b"PK\x03\x04" + os.urandom(300_000)
    url = web.plan(
        "/a.zip", Reply(BODY, headers=ETAG, send=100_000), Reply(other, headers={"ETag": '"two"'})
    )
    assert download_cached(url, options(tmp_path)).read_bytes() == other


def test_without_a_version_nothing_is_resumed(web: Web, tmp_path: Path) -> None:
    url = web.plan("/a.zip", Reply(BODY, send=100_000), Reply(BODY))
    assert download_cached(url, options(tmp_path)).read_bytes() == BODY
    assert "Range" not in web.requests[1][1]


def test_a_stalled_connection_is_closed(web: Web, tmp_path: Path) -> None:
    url = web.plan("/a.zip", Reply(BODY, headers=ETAG, send=5000, after="stall"))
    start = time.monotonic()
    with pytest.raises(InputError, match=r"no response within 0\.3 s \(2 attempts\)"):
        download_cached(url, options(tmp_path, download_timeout_s=0.3, download_attempts=2))
    assert time.monotonic() - start < 15


def test_a_slow_server_is_stopped_by_the_deadline(web: Web, tmp_path: Path) -> None:
    url = web.plan("/a.zip", Reply(BODY, after="drip"))
    with pytest.raises(InputError, match=r"exceeded its deadline of 0\.5 s"):
        download_cached(url, options(tmp_path, download_deadline_s=0.5))


def test_an_unreachable_server_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot connect.*\(3 attempts\)"):
        download_cached("http://127.0.0.1:1/a.zip", options(tmp_path))


@pytest.mark.parametrize("status", [429, 500, 503])
def test_transient_statuses_are_retried(web: Web, tmp_path: Path, status: int) -> None:
    url = web.plan("/a.zip", Reply(b"busy", status), Reply(b"busy", status), Reply(BODY))
    assert download_cached(url, options(tmp_path)).read_bytes() == BODY
    assert len(web.requests) == 3


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "permission denied"), (403, "permission denied"), (404, "does not exist"),
     (410, "does not exist"), (418, "HTTP 418")],
)  # fmt: skip
def test_permanent_statuses_are_not_retried(
    web: Web, tmp_path: Path, status: int, message: str
) -> None:
    url = web.plan("/a.zip", Reply(b"no", status))
    with pytest.raises(InputError, match=message):
        download_cached(url, options(tmp_path))
    assert len(web.requests) == 1


def test_a_page_instead_of_an_archive_is_refused(web: Web, tmp_path: Path) -> None:
    page = b"\n <!doctype html><html><title>Our\n moved page</title><body>gone</body></html>"
    url = web.plan("/a.zip", Reply(page, headers=ETAG | {"Content-Type": "application/zip"}))
    with pytest.raises(InputError, match=r"received an HTML page \('Our moved page'\)"):
        download_cached(url, options(tmp_path))
    assert len(web.requests) == 1
    assert partial_files(tmp_path) == []


def test_a_quota_page_is_retried_and_then_the_mirror(web: Web, tmp_path: Path) -> None:
    quota = web.plan("/quota.zip", Reply(QUOTA, headers=ETAG))
    mirror = web.plan("/mirror.zip", Reply(BODY))
    assert download_cached(quota, options(tmp_path, mirrors=(mirror,))).read_bytes() == BODY
    assert [path for path, _ in web.requests] == ["/quota.zip"] * 3 + ["/mirror.zip"]
    with pytest.raises(
        InputError, match=r"quota of this file is used up; try later \(3 attempts\)"
    ):
        download_cached(quota, options(tmp_path))


def test_an_incorrect_checksum_is_refused_and_the_mirror_used(web: Web, tmp_path: Path) -> None:
    incorrect = web.plan("/incorrect.zip", Reply(b"PK\x03\x04 other", headers=ETAG))
    with pytest.raises(InputError, match=f"expected SHA-256 {DIGEST}, received [0-9a-f]{{64}}"):
        download_cached(incorrect, options(tmp_path, sha256=DIGEST))
    assert partial_files(tmp_path) == []
    mirror = web.plan("/mirror.zip", Reply(BODY))
    pinned = options(tmp_path, sha256=DIGEST, mirrors=(mirror,))
    assert download_cached(incorrect, pinned).read_bytes() == BODY
    local = tmp_path / "local.zip"
    local.write_bytes(BODY)
    pinned = options(tmp_path / "other", sha256=DIGEST, mirrors=(str(local),))
    assert download_cached(incorrect, pinned) == local


def test_incorrect_ranges_restart_the_download(web: Web, tmp_path: Path) -> None:
    incorrect = Reply(BODY, 206, ETAG | {"Content-Range": "bytes 7-300003/300004"})
    url = web.plan("/a.zip", Reply(BODY, headers=ETAG, send=100_000), incorrect, Reply(BODY))
    assert download_cached(url, options(tmp_path)).read_bytes() == BODY
    refusing = Reply(b"", 416)
    url = web.plan("/b.zip", Reply(BODY, headers=ETAG, send=100_000), refusing, Reply(BODY))
    assert download_cached(url, options(tmp_path)).read_bytes() == BODY


def test_secrets_in_urls_are_not_shown(web: Web, tmp_path: Path) -> None:
    host = web.address.removeprefix("http://")
    secret = f"http://user:pass@{host}/none.zip?token=abc#part"
    assert redact(secret) == f"http://{host}/none.zip"
    with pytest.raises(InputError) as caught:
        download_cached(secret, options(tmp_path))
    assert not any(word in str(caught.value) for word in ("pass", "token", "abc"))


def test_an_interrupted_download_is_resumed(web: Web, tmp_path: Path) -> None:
    url = web.plan(
        "/a.zip", Reply(BODY, headers=ETAG, send=200_000, after="stall"), Reply(BODY, headers=ETAG)
    )
    code = (
        "import sys; from regraft_core.formats.options.ingest import IngestOptions;"
        "from components.ingest.sources.download import download_cached;"
        "download_cached(sys.argv[1], IngestOptions(download_cache=sys.argv[2]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, url, str(tmp_path / "cache")],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
    )
    part = None
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        part = next((tmp_path / "cache").glob("partial/*/file"), None)
        if part and part.stat().st_size == 200_000:
            break
    process.kill()
    process.wait(10)
    assert part is not None
    assert not list((tmp_path / "cache").glob("files/*"))
    assert download_cached(url, options(tmp_path)).read_bytes() == BODY
    assert web.requests[-1][1]["Range"] == "bytes=200000-"


DRIVE_SOURCES = [
    f"gdrive:{ID}", ID, f"https://drive.google.com/file/d/{ID}/view?usp=sharing",
    f"https://drive.google.com/open?id={ID}",
]  # fmt: skip


@pytest.mark.parametrize("source", DRIVE_SOURCES)
def test_a_drive_file_is_downloaded(drive: Web, tmp_path: Path, source: str) -> None:
    drive.plan(DRIVE_PATH, Reply(BODY, headers=ATTACHED))
    assert download_cached(source, options(tmp_path)).read_bytes() == BODY
    assert partial_files(tmp_path) == []


def test_the_drive_page_for_large_files_is_confirmed(drive: Web, tmp_path: Path) -> None:
    page = (
        b'<!DOCTYPE html><html><body><form id="download-form" method="get" '
        b'action="https://drive.usercontent.google.com/download">'
        b'<input type="hidden" name="id" value="abc"><input type="hidden" name="confirm" '
        b'value="t"></form></body></html>'
    )
    drive.plan(DRIVE_PATH, Reply(page, headers=HTML))
    drive.plan("/download?id=abc&confirm=t", Reply(BODY, headers=ATTACHED))
    assert download_cached(f"gdrive:{ID}", options(tmp_path)).read_bytes() == BODY


def test_the_drive_quota_page_is_retried_and_then_the_mirror(drive: Web, tmp_path: Path) -> None:
    drive.plan(DRIVE_PATH, Reply(QUOTA, headers=HTML))
    with pytest.raises(InputError, match=r"download quota of this file is used up.*\(3 attempts\)"):
        download_cached(f"gdrive:{ID}", options(tmp_path))
    assert [path for path, _ in drive.requests] == [DRIVE_PATH] * 3
    mirror = drive.plan("/mirror.zip", Reply(BODY))
    chosen = options(tmp_path, mirrors=(mirror,))
    assert download_cached(f"gdrive:{ID}", chosen).read_bytes() == BODY


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(b"<html><title>Sign in</title>You need access</html>", headers=HTML), "not shared"),
        (Reply(b"<html><title>Error 401</title></html>", 401, HTML), "not shared"),
        (Reply(b"<html>Sorry, the file you have requested does not exist.</html>", 404, HTML),
         "the file does not exist"),
    ],
)  # fmt: skip
def test_a_drive_file_that_is_not_shared_is_not_retried(
    drive: Web, tmp_path: Path, reply: Reply, message: str
) -> None:
    drive.plan(DRIVE_PATH, reply)
    with pytest.raises(InputError, match=message) as caught:
        download_cached(f"gdrive:{ID}", options(tmp_path))
    assert "attempts" not in str(caught.value)


def test_a_broken_drive_download_is_resumed(drive: Web, tmp_path: Path) -> None:
    headers, body = ATTACHED | ETAG, BODY * 5
    broken = Reply(body, headers=headers, send=1_200_000)
    drive.plan(DRIVE_PATH, broken, Reply(body, headers=headers))
    assert download_cached(f"gdrive:{ID}", options(tmp_path)).read_bytes() == body
    # gdown writes blocks of 512 KiB.
    assert drive.requests[-1][1]["Range"] == "bytes=1048576-"


def test_drive_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="link to a file"):
        download_cached("https://drive.google.com/drive/folders/1abcDEF", options(tmp_path))


def test_a_file_that_has_not_changed_is_still_compared_with_the_checksum(
    web: Web, tmp_path: Path
) -> None:
    url = web.plan("/a.zip", Reply(BODY, headers=ETAG))
    download_cached(url, options(tmp_path))
    other = hashlib.sha256(b"other").hexdigest()
    with pytest.raises(InputError, match=f"expected SHA-256 {other}, received {DIGEST}"):
        download_cached(url, options(tmp_path, sha256=other))
    assert web.requests[-1][1]["If-None-Match"] == '"one"'


@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "not announced"])
def test_a_download_has_a_limit_and_leaves_nothing(web: Web, tmp_path: Path, chunked) -> None:
    headers = {"Transfer-Encoding": "identity"} if chunked else {}
    url = web.plan("/a.zip", Reply(BODY, headers=ETAG | headers))
    with pytest.raises(InputError, match=r"at most 100000 bytes.*--max-download-bytes"):
        download_cached(url, options(tmp_path, max_download_bytes=100_000))
    assert partial_files(tmp_path) == []
    assert len(web.requests) == 1
    assert download_cached(url, options(tmp_path, max_download_bytes=len(BODY))).is_file()


def test_the_values_of_variables_are_sent_and_written_nowhere(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A signature in the environment is in no parameter; a table cannot name a variable."""
    monkeypatch.setenv("SIGNED", "sig=secret")
    table = b"path,label\n" + b"".join(b"a%d.png?${SIGNED},c%d\n" % (n, n % 2) for n in range(4))
    url = web.plan("/t.csv?sig=secret", Reply(table)).replace("sig=secret", "${SIGNED}")
    found = list(source_files([url], tmp_path / "work", options(tmp_path), Tally()))
    assert [path for path, _ in web.requests] == ["/t.csv?sig=secret"]
    assert [file.file for file in found] == [
        url.replace("t.csv", f"a{number}.png") for number in range(4)
    ]
    assert "secret" not in "".join(capsys.readouterr())


def test_the_cache_is_private_and_keeps_no_url(web: Web, tmp_path: Path) -> None:
    url = web.plan("/a.zip?X-Amz-Signature=secret", Reply(BODY, headers=ETAG))
    download_cached(url, options(tmp_path))
    cache = tmp_path / "cache"
    for folder in (path for path in cache.iterdir() if path.is_dir()):
        assert folder.stat().st_mode & 0o077 == 0
    for path in cache.rglob("*"):
        assert "secret" not in path.name
        assert path.is_dir() or b"secret" not in path.read_bytes()
