"""The file of fixes: what is written is read again, and every other file is refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from regraft_core.formats.fixes import (
    COLUMNS,
    Fix,
    format_fixes,
    identified_location,
    parse_fixes,
    read_fixes,
    write_fixes,
)
from regraft_core.runtime.errors import InputError

HEADER = ",".join(COLUMNS)
WHEN = "2026-11-27T21:50:00Z"
ID = "ab" * 32
LINE = f"{ID},relabel,cat,dog,ann,{WHEN}"


def test_all_texts_survive_and_none_is_a_formula() -> None:
    texts = ["=1+1", "-a", "'b", "''=c", "@d", 'with "quotes", and a comma', "Ünï", "+"]
    fixes = [Fix(f"{k:064x}", "relabel", text, text, text, WHEN) for k, text in enumerate(texts)]
    written = format_fixes(fixes)
    assert list(parse_fixes(written).values()) == fixes
    cells = [cell.strip('"') for line in written.splitlines()[1:] for cell in line.split(",")]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]


def test_a_file_is_read_with_its_digest(tmp_path: Path) -> None:
    path = tmp_path / "fixes.csv"
    write_fixes(path, parse_fixes(f"{HEADER}\n{LINE}\n").values())
    found = read_fixes(path)
    assert found.fixes[ID].new_label == "dog"
    location = identified_location(str(path))
    assert location == f"{path}#sha256={found.digest}"
    assert read_fixes(location) == found
    path.write_text(path.read_text().replace("dog", "cow"))
    with pytest.raises(InputError, match=r"fixes: expected SHA-256 .* found"):
        read_fixes(location)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected the columns sha256, action, .* got none"),
        ("path,label\na,b\n", "expected the columns .* got path, label"),
        (HEADER + "\n", "expected at least one fix, found none"),
        (f"{HEADER}\n{LINE[:-1]}", "line 2: expected a time .* may have been cut off"),
        (f"{HEADER}\n{LINE[:80]}", "line 2: expected 6 values, got 4; .* cut off"),
        (f'{HEADER}\n{ID},relabel,"cat', "line 2: expected CSV: unexpected end of data"),
        (f"{HEADER}\n{LINE.replace('relabel', 'delete')}", "one of the actions keep, .*'delete'"),
        (f"{HEADER}\nxy{LINE[2:]}", "expected a SHA-256 in hex, got 'xyab"),
        (HEADER + "\n" + LINE.replace("ann", '"a\r\nb"'), r"line 3: .* control characters, got 'a"),
        (f"{HEADER}\n{LINE.replace('ann', 'a' * 2000)}", "expected at most 1000 characters"),
        (f"{HEADER}\n{LINE.replace('dog', '')}", "an old and a new label to relabel"),
        (f"{HEADER}\n{LINE.replace('relabel', 'drop')}", "an old label only to drop"),
        (f"{HEADER}\n{LINE}\n{LINE}\n", "line 3: expected one fix per image, got another of abab"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "fixes.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as raised:
        read_fixes(path)
    assert str(raised.value).startswith(f"fixes: {path}: ") and "\n" not in str(raised.value)


def test_a_file_that_is_not_text_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="expected UTF-8 text"):
        read_fixes(tmp_path / "binary")
    with pytest.raises(InputError, match=r"fixes: cannot read \S+: Is a directory"):
        read_fixes(tmp_path)
