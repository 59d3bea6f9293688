"""Files of a request log are read up to their last complete line; foreign ones are refused."""

from __future__ import annotations

import gzip
import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from regraft_core.formats import request_log
from regraft_core.formats.request_log import (
    LoggedAnswer,
    LoggedRequest,
    log_line,
    parse_line,
    read_labels,
    read_request_log,
)
from regraft_core.runtime.errors import InputError

ANSWER = LoggedAnswer(3, "café", 0.75, 4.5, "")
REQUEST = LoggedRequest(
    time="2026-11-27T06:15:00.123Z",
    model="digits",
    signature="serving_default",
    sha256="a" * 64,
    answer=ANSWER,
    features=struct.pack("<3e", 0.5, -2.0, 65504.0),
    image=b"\xff\xd8 bytes",
    shadow=LoggedAnswer(4, "", 0.0, None, "expected an undamaged image"),
)
NAME = "requests-20261127T061500123456Z.jsonl.gz"


def line(**changes: Any) -> str:
    """Return the line of REQUEST with other values; None removes a key."""
    values = json.loads(log_line(REQUEST)) | changes
    return json.dumps({name: value for name, value in values.items() if value is not None})


def test_a_line_is_read_as_it_was_written() -> None:
    assert parse_line(log_line(REQUEST)) == REQUEST
    assert REQUEST.feature_values() == (0.5, -2.0, 65504.0)
    plain = replace(REQUEST, features=None, image=None, shadow=None)
    assert parse_line(log_line(plain)) == plain
    assert plain.feature_values() == ()
    assert not {"image", "shape"} & set(json.loads(log_line(plain)))
    several = replace(plain, answer=replace(ANSWER, selected=("a", "b")))
    assert parse_line(log_line(several)) == several
    pixels = replace(REQUEST, shape=(2, 4, 3))
    assert parse_line(log_line(pixels)) == pixels


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no json", "expected a JSON object, got other text"),
        ("[1]", "expected a JSON object, got another JSON value"),
        (line(schema_version=2), "expected schema_version 1, got 2"),
        (line(schema_version=None), "expected schema_version 1, got None"),
        (line(user="x", zip=1), "got also user, zip"),
        (line(sha256=None), "found no sha256"),
        (line(version="3"), "version: expected int, got str"),
        (line(version=True), "version: expected int, got bool"),
        (line(features="!"), "features: expected base64, got '!'"),
        (line(features="YQ=="), "features: expected float16 values, got 1 bytes"),
        (line(selected=[1]), "selected: expected names of labels, got"),
        (line(shape=[2, 4]), "shape: expected height, width and 3, got [2, 4]"),
        (line(shape=[2, 4, "3"]), "shape: expected height, width and 3, got [2, 4, '3']"),
        (line(shape=3), "shape: expected list or NoneType, got int"),
        (line(shadow={"version": 1}), "found no predicted, confidence, error"),
    ],
)
def test_other_lines_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError) as raised:
        parse_line(text)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_ends_early_is_read_up_to_its_last_complete_line(tmp_path: Path) -> None:
    lines = [log_line(replace(REQUEST, sha256=f"{n:064x}")) for n in range(400)]
    whole = gzip.compress(b"".join(lines))
    found = set()
    for size in (1, 9, len(whole) // 3, len(whole) // 2, len(whole) - 9, len(whole)):
        (tmp_path / NAME).write_bytes(whole[:size])
        read = list(read_request_log(tmp_path))
        assert [log_line(one) for one in read] == lines[: len(read)]
        found.add(len(read))
    assert {0, 400} < found


def test_files_are_read_in_order_and_others_ignored(tmp_path: Path) -> None:
    for name, number in ((NAME.replace("06", "07"), 2), (NAME, 1)):
        (tmp_path / name).write_bytes(gzip.compress(log_line(replace(REQUEST, time=f"{number}"))))
    (tmp_path / "notes.txt").write_text("x")
    assert [one.time for one in read_request_log(tmp_path)] == ["1", "2"]


def test_joined_files_are_one(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(gzip.compress(log_line(REQUEST)) * 3)
    assert list(read_request_log(tmp_path)) == [REQUEST] * 3


def test_a_damaged_file_and_line_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected requests-\*\.jsonl\.gz of a request log"):
        list(read_request_log(tmp_path))
    (tmp_path / NAME).write_bytes(b"no gzip")
    with pytest.raises(InputError, match=f"{NAME}: expected gzip, found damaged data"):
        list(read_request_log(tmp_path))
    (tmp_path / NAME).write_bytes(gzip.compress(log_line(REQUEST) + b"{}\n"))
    with pytest.raises(InputError, match=f"{NAME}, line 2: expected schema_version 1, got None"):
        list(read_request_log(tmp_path))


def test_labels_are_a_table_of_hash_and_label(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text(f'\ufefflabel,sha256\n"a, b",{"AB" * 32}\n\ncafé,{"1" * 64}\n', "utf-8")
    assert read_labels(file) == {"ab" * 32: "a, b", "1" * 64: "café"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected the columns sha256 and label, got none"),
        ("path,label\nx,y\n", "expected the columns sha256 and label, got path, label"),
        ("sha256,label,split\n", "expected the columns sha256 and label, got sha256, label, split"),
        ("sha256,label\nabc,cat\n", "line 2: expected a SHA-256 of 64 hexadecimal digits"),
        (f"sha256,label\n{'a' * 64}\n", "line 2: expected 2 values, got 1"),
        (f"sha256,label\n{'a' * 64},x\n{'a' * 64},y\n", "line 3: expected one label for a"),
        ('sha256,label\n"', "expected CSV in UTF-8"),
    ],
)
def test_other_tables_are_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "labels.csv"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        read_labels(file)
    with pytest.raises(InputError, match="cannot read"):
        read_labels(tmp_path / "missing.csv")


def test_a_line_that_does_not_end_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_log, "_MAX_LINE_BYTES", 1 << 20)
    (tmp_path / NAME).write_bytes(gzip.compress(bytes(4 << 20)))
    with pytest.raises(InputError, match="expected lines of at most 1048576 bytes, got a longer"):
        list(read_request_log(tmp_path))
