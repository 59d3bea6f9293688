"""Fixes of a dataset: the decisions of a review, in a CSV file with one line per image.

An image is named by the SHA-256 of its source bytes, so a fix holds wherever the image is stored,
and never for another image. `old_label` is the label in the source.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Literal, get_args

from regraft_core.runtime.addresses import is_remote, local_path, redact, with_variables
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.object_stores import access_error, open_store_uri
from regraft_core.runtime.printable import neutral_cell
from regraft_core.runtime.safe_files import replaced_file

Action = Literal["keep", "relabel", "drop", "unsure"]
ACTIONS: tuple[Action, ...] = get_args(Action)
FIXES_FILE = "fixes.csv"
MAX_BYTES = 64 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")
# The last column has one length, so a file that was cut off within a line is recognized.
_TIME = re.compile(r"\d{4}-[01]\d-[0-3]\dT[0-2]\d:[0-5]\d:[0-5]\dZ")
_DIGEST_MARK = "#sha256="
MAX_CHARACTERS = 1000
_CONTROLS = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True)
class Fix:
    """One decision about one image.

    Attributes:
        sha256: SHA-256 (hex) of the image's source bytes.
        action: `relabel` and `drop` change the dataset; `keep` and `unsure` record a review.
        old_label: The label in the source.
        new_label: The label to use; empty unless the action is `relabel`.
        who: The reviewer.
        when: UTC, as in 2026-11-27T21:50:00Z.
    """

    sha256: str
    action: Action
    old_label: str
    new_label: str
    who: str
    when: str


COLUMNS = tuple(field.name for field in fields(Fix))


@dataclass(frozen=True)
class FixesFile:
    """A file of fixes.

    Attributes:
        fixes: By the SHA-256 of their image.
        digest: SHA-256 (hex) of the file.
        location: Where it is, without secrets.
    """

    fixes: Mapping[str, Fix]
    digest: str
    location: str


def split_location(location: str) -> tuple[str, str]:
    """Split the location of a fixes file from the optional digest that follows it."""
    path, _, digest = location.partition(_DIGEST_MARK)
    return path, digest


def identified_location(location: str) -> str:
    """Return the location of a fixes file with the digest of its content.

    Caches compare options, and a file can change without its path.

    Raises:
        InputError: as `read_fixes`.
    """
    return f"{split_location(location)[0]}{_DIGEST_MARK}{read_fixes(location).digest}"


def read_fixes(location: str | os.PathLike[str]) -> FixesFile:
    """Read a file of fixes.

    Args:
        location: a path or the URI of an object; `#sha256=<hex>` may follow and is then checked.

    Raises:
        InputError: it cannot be read, was cut off, has no fix, has other columns, an unknown
            action, an invalid value, or two fixes of one image.
    """
    path, expected = split_location(os.fspath(location))
    data = _read(path)
    digest = hashlib.sha256(data).hexdigest()
    if expected and digest != expected:
        raise InputError(
            f"fixes: expected SHA-256 {expected[:12]} of {redact(path)}, found {digest[:12]}"
        )
    try:
        fixes = parse_fixes(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise InputError(f"fixes: {redact(path)}: expected UTF-8 text") from None
    except InputError as error:
        raise InputError(f"fixes: {redact(path)}: {error}") from None
    if not fixes:
        raise InputError(f"fixes: {redact(path)}: expected at least one fix, found none")
    return FixesFile(fixes, digest, redact(path))


def parse_fixes(text: str) -> dict[str, Fix]:
    """Return the fixes of a CSV text by the SHA-256 of their image.

    Raises:
        InputError: as `read_fixes`; the message has the number of the line.
    """
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    found: dict[str, Fix] = {}
    try:
        header = next(rows, [])
        if tuple(header) != COLUMNS:
            got = ", ".join(header)[:200] or "none"
            raise InputError(f"expected the columns {', '.join(COLUMNS)}, got {got}")
        for row in filter(None, rows):
            fix = _parse(row, rows.line_num)
            if fix.sha256 in found:
                raise InputError(f"line {rows.line_num}: expected one fix per image, got another "
                                 f"of {fix.sha256[:12]}")  # fmt: skip
            found[fix.sha256] = fix
    except csv.Error as error:
        raise InputError(f"line {rows.line_num}: expected CSV: {error}") from None
    return found


def format_fixes(fixes: Iterable[Fix]) -> str:
    """Return fixes as CSV text, which `parse_fixes` reads; no spreadsheet finds a formula in it."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(map(_cell, astuple(fix)) for fix in fixes)
    return text.getvalue()


def write_fixes(path: Path, fixes: Iterable[Fix]) -> None:
    """Write a file of fixes atomically."""
    with replaced_file(path) as file:
        file.write(format_fixes(fixes).encode())


def check_text(text: str) -> None:
    """Check a label or a name, which must be one line that any program reads as it was written.

    Raises:
        InputError: it is too long, or has control characters or is not Unicode.
    """
    if len(text) > MAX_CHARACTERS or _CONTROLS.search(text):
        raise InputError(
            f"expected at most {MAX_CHARACTERS} characters without control characters, got "
            f"{text[:80]!r}"
        )


def make_fix(sha256: str, action: str, old_label: str, new_label: str, who: str, when: str) -> Fix:
    """Return a checked fix.

    Raises:
        InputError: a value is invalid.
    """
    if not _SHA256.fullmatch(sha256):
        raise InputError(f"expected a SHA-256 in hex, got {sha256[:80]!r}")
    if action not in ACTIONS:
        known = ", ".join(ACTIONS)
        raise InputError(f"expected one of the actions {known}, got {action[:80]!r}")
    if not old_label or bool(new_label) != (action == "relabel"):
        expected = "an old and a new label" if action == "relabel" else "an old label only"
        raise InputError(
            f"expected {expected} to {action}, got {old_label[:80]!r} and {new_label[:80]!r}"
        )
    for text in (old_label, new_label, who):
        check_text(text)
    if not _TIME.fullmatch(when):
        raise InputError(
            f"expected a time such as 2026-11-27T21:50:00Z, got {when[:80]!r}; the file may have "
            "been cut off"
        )
    return Fix(sha256, action, old_label, new_label, who, when)


def _parse(row: list[str], line: int) -> Fix:
    if len(row) != len(COLUMNS):
        raise InputError(f"line {line}: expected {len(COLUMNS)} values, got {len(row)}; "
                         "the file may have been cut off")  # fmt: skip
    try:
        return make_fix(*map(_text, row))
    except InputError as error:
        raise InputError(f"line {line}: {error}") from None


def _cell(text: str) -> str:
    """Return a value as a cell; `_text` returns the value again, also one with a quote."""
    return f"'{text}" if text.startswith("'") else neutral_cell(text)


def _text(cell: str) -> str:
    return cell.removeprefix("'")


def _read(path: str) -> bytes:
    try:
        if is_remote(path):
            store, name = open_store_uri(with_variables("fixes", path))
            with store.open(name, "rb") as file:
                data: bytes = file.read(MAX_BYTES + 1)
        else:
            with open(local_path(path).expanduser(), "rb") as file:
                data = file.read(MAX_BYTES + 1)
    except InputError:
        raise
    except OSError as error:
        if is_remote(path):
            raise access_error(f"fixes: cannot read {redact(path)}", error) from error
        raise InputError(f"fixes: cannot read {path}: {error.strerror}") from error
    except Exception as error:  # each store's library raises errors of its own
        raise access_error(f"fixes: cannot read {redact(path)}", error) from error
    if len(data) > MAX_BYTES:
        raise InputError(f"fixes: {redact(path)}: expected at most {MAX_BYTES} bytes")
    return data
