"""One module decides what a URL is, and shows it without secrets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from regraft_core.runtime.addresses import (
    is_http,
    is_remote,
    is_url,
    local_path,
    redact,
    redact_text,
    refuse_credentials,
    scheme_of,
)
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.object_stores import open_store_uri

ROOT = Path(__file__).parents[3]
FOLDERS = ("benchmarks", "components", "pipelines", "regraft", "regraft_core", "serving/publishing",
           "serving/running", "serving/server")  # fmt: skip


@pytest.mark.parametrize(
    ("location", "scheme", "url", "remote", "http"),
    [
        ("images", "", False, False, False),
        ("/data/a://b", "", False, False, False),
        ("C:\\images", "", False, False, False),
        ("", "", False, False, False),
        ("simplecache::s3://b", "", False, False, False),
        ("file:///data", "file", True, False, False),
        ("FILE:///data", "file", True, False, False),
        ("s3://b/a", "s3", True, True, False),
        ("git+ssh://b", "git+ssh", True, True, False),
        ("HTTPS://b", "https", True, True, True),
    ],
)
def test_what_a_location_is(location, scheme, url, remote, http) -> None:
    assert scheme_of(location) == scheme
    assert (is_url(location), is_remote(location), is_http(location)) == (url, remote, http)


@pytest.mark.parametrize(
    ("location", "path"),
    [("file:///a%20b/c", "/a b/c"), ("a b", "a b"), ("/a%20b", "/a%20b"), ("File:///x", "/x")],
)
def test_the_path_of_a_local_file(location: str, path: str) -> None:
    assert local_path(location) == Path(path)


def test_no_other_module_decides_what_a_url_is() -> None:
    decides = re.compile(
        r"""["']://["'] (not )?in |removeprefix\(["']file:|startswith\(["']file:"""
    )
    found = [
        str(path.relative_to(ROOT))
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "addresses.py" and decides.search(path.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:pass@host/a?X-Amz-Signature=s#f", "https://host/a"),
        ("s3://key@bucket/a", "s3://bucket/a"),
        ("https://host/a@b", "https://host/a@b"),
        ("a?b", "a?b"),
    ],
)
def test_a_url_is_shown_without_secrets(url: str, shown: str) -> None:
    assert redact(url) == shown


def test_urls_in_a_text_are_shown_without_secrets() -> None:
    text = "['https://u:p@host/a.zip?sig=s', 's3://b/c'] and http://host?token=t, done; a@b ok?"
    shown = "['https://host/a.zip?...', 's3://b/c'] and http://host?..., done; a@b ok?"
    assert redact_text(text) == shown
    assert redact_text(shown) == shown


@pytest.mark.parametrize("url", ["https://u:p@host/a", "s3://user@bucket", "https://:p@host"])
def test_credentials_in_a_url_are_refused_without_showing_them(url: str) -> None:
    with pytest.raises(InputError, match="source: expected a URL without user") as caught:
        refuse_credentials("source", url)
    assert "@" not in str(caught.value)


@pytest.mark.parametrize("url", ["https://host/a@b", "a@b", "s3://bucket/a@b", "/u:p@x"])
def test_an_at_sign_elsewhere_is_accepted(url: str) -> None:
    refuse_credentials("source", url)


@pytest.mark.parametrize(
    "uri", ["s3://a::reference://b", "reference://a", "REFERENCE://a", "zip://a.zip"]
)
def test_one_address_inside_another_is_never_opened(uri: str) -> None:
    with pytest.raises(InputError, match="expected one address such as"):
        open_store_uri(uri)
