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
    refuse_signature,
    scheme_of,
    variables_of,
    with_variables,
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
        ("http://host:80/a@b", "http://host:80/a@b"),
        ("http://[::1]:80/a@b", "http://[::1]:80/a@b"),
        ("s3://key:se/c+r/et@bucket/a", "s3://bucket/a"),
        ("https://user:p#s?w@host/a?b", "https://host/a"),
        ("https://user:p@s/s@host/a", "https://host/a"),
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
    mistyped = r"s3:/key:se/cret@bucket/m, https:\\user:secret@host and user@host:/a"
    assert redact_text(mistyped) == r"s3:/bucket/m, https:\\host and user@host:/a"
    assert redact_text("write https://host/a?${NAME} (set") == "write https://host/a?${NAME} (set"


@pytest.mark.parametrize(
    "url", ["https://u:p@host/a", "s3://user@bucket", "https://:p@host", "s3://key:se/cret@bucket"]
)
def test_credentials_in_a_url_are_refused_without_showing_them(url: str) -> None:
    with pytest.raises(InputError, match="source: expected a URL without user") as caught:
        refuse_credentials("source", url)
    assert "@" not in str(caught.value)


SIGNED = [
    "https://b.s3.amazonaws.com/a.zip?X-Amz-Credential=K&X-Amz-Signature=secret",
    "https://storage.googleapis.com/b/a.zip?GoogleAccessId=x&Signature=secret",
    "https://a.blob.core.windows.net/c/a.zip?sv=2024&sig=secret",
    "https://host/a.zip?AWSAccessKeyId=secret",
    "https://host/a.zip?dl=1&access_token=secret",
    "https://host/a.zip#token=secret",
    "s3://bucket/a?Secret=secret",
    "https://host/a.zip?${PART}&sig=secret",
]


@pytest.mark.parametrize("url", SIGNED)
def test_a_signed_url_is_refused_without_showing_the_signature(url: str) -> None:
    with pytest.raises(InputError, match=r"source: .*\?\$\{NAME\}.*--secret-env") as caught:
        refuse_signature("source", url)
    assert "secret" not in str(caught.value).partition("; use")[0].lower().replace("secret=...", "")


@pytest.mark.parametrize(
    "url",
    ["https://host/a.zip?dl=1", "https://drive.google.com/uc?id=1&export=download", "a?sig=b",
     "https://host/a.zip?${SIGNATURE}", "https://host/a.zip?v=2&sig=${SIGNATURE}",
     "https://host/a.zip?author=me", "https://host/#/runs/details/1"],
)  # fmt: skip
def test_other_queries_are_accepted(url: str) -> None:
    refuse_signature("source", url)


def test_variables_are_only_in_queries_of_urls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNED", "?sig=s&v=1")
    monkeypatch.delenv("UNSET", raising=False)
    url = "https://host/${SIGNED}/a.zip?${SIGNED}&v=${SIGNED}"
    assert variables_of(url) == ["SIGNED", "SIGNED"]
    assert with_variables("source", "https://host/a.zip?${SIGNED}") == (
        "https://host/a.zip?sig=s&v=1"
    )
    for path in ("images/${SIGNED}", "https://host/${SIGNED}"):
        assert with_variables("source", path) == path
    with pytest.raises(InputError, match="source: expected the environment variable UNSET"):
        with_variables("source", "https://host/a?${UNSET}")
    assert redact_text("see https://host/a?x=${SIGNED}&b, c") == "see https://host/a?..., c"


@pytest.mark.parametrize("url", ["https://host/a@b", "a@b", "s3://bucket/a@b", "/u:p@x"])
def test_an_at_sign_elsewhere_is_accepted(url: str) -> None:
    refuse_credentials("source", url)


@pytest.mark.parametrize(
    "uri", ["s3://a::reference://b", "reference://a", "REFERENCE://a", "zip://a.zip"]
)
def test_one_address_inside_another_is_never_opened(uri: str) -> None:
    with pytest.raises(InputError, match="expected one address such as"):
        open_store_uri(uri)
