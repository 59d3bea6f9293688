"""Labels of an image in a table: one, a JSON list, text with a separator, columns of 0 and 1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from components.ingest.sources import parquet_files
from components.ingest.sources.label_lists import LabelForm, list_text
from components.ingest.sources.table_columns import Row, TableColumns
from components.ingest.sources.tables import table_rows
from regraft_core.formats.option_parsing import select_options
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.runtime.errors import DataError, InputError


@pytest.mark.parametrize(
    ("value", "form", "expected"),
    [
        ("cat", LabelForm(), None),
        ("cat;dog", LabelForm(), None),  # nothing is guessed
        ('["dog", "cat", "dog"]', LabelForm(), ("cat", "dog")),
        ("[]", LabelForm(), ()),
        (["owl", 7, 2.0], LabelForm(), ("2", "7", "owl")),
        ("cat; dog", LabelForm(separator=";"), ("cat", "dog")),
        ("cat", LabelForm(separator=";"), ("cat",)),
        ("[]", LabelForm(separator=";"), ()),
        ("", LabelForm(separator=";"), None),  # a missing label, not none of the classes
        (None, LabelForm(separator=";"), None),
    ],
)
def test_labels_of_a_value(value: Any, form: LabelForm, expected: tuple[str, ...] | None) -> None:
    assert form.labels(value, ()) == expected


@pytest.mark.parametrize(
    ("value", "separator", "message"),
    [
        ("['cat', 'dog']", "", "JSON list"),
        ('["cat", null]', "", "names of classes in the list of labels, got None"),
        ('["cat", [1]]', "", "names of classes"),
        ("cat;;dog", ";", "names of classes in the list of labels, got ''"),
        ('["cat\\ndog"]', "", "without line breaks"),
        ('["\\ud800"]', "", r"class '\\ud800': expected a name in UTF-8"),
    ],
)
def test_lists_of_something_else_are_refused(value: str, separator: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        LabelForm(separator=separator).labels(value, ())


def test_columns_are_classes() -> None:
    form = LabelForm(columns=("dog", "cat", "owl"))
    assert form.labels(None, ("1", "True", "0")) == ("cat", "dog")
    assert form.labels(None, ("0", "false", "0")) == ()
    assert form.labels(None, ("1.0", "0.0", "1.0")) == ("dog", "owl")
    with pytest.raises(DataError, match=r"expected 0 or 1 in the column 'cat', got '0\.5'"):
        form.labels(None, ("1.0", "0.5", "1.0"))
    with pytest.raises(DataError, match="expected 0 or 1 in the column 'owl', got ''"):
        form.labels(None, ("1", "0", ""))


def write(folder: Path, text: str) -> Path:
    file = folder / "table.csv"
    file.write_text(text, encoding="utf-8")
    return file


def rows(file: Path, form: LabelForm | None = None) -> list[Row]:
    return list(table_rows(file, file.name, TableColumns(form=form or LabelForm())))


def test_lists_of_a_csv_file(tmp_path: Path) -> None:
    file = write(tmp_path, 'path;label\na.png;["dog","cat"]\nb.png;[]\nc.png;\n')
    both, none, missing = rows(file)
    assert (both.labels, both.label) == (("cat", "dog"), '["cat", "dog"]')
    assert (none.labels, none.label, none.problem) == ((), "[]", "")
    assert "expected a path and a label" in missing.problem


def test_columns_of_a_csv_file(tmp_path: Path) -> None:
    file = write(tmp_path, "path,Cat,dog\na.png,1,1\nb.png,0,0\nc.png,1,\n")
    both, none, missing = rows(file, LabelForm(columns=("cat", "dog")))
    assert (both.labels, none.labels) == (("cat", "dog"), ())
    assert "expected 0 or 1 in the column 'dog'" in missing.problem
    with pytest.raises(InputError, match="the column 'owl' of --label-columns"):
        rows(file, LabelForm(columns=("cat", "owl")))


def test_lists_of_a_parquet_file(tmp_path: Path) -> None:
    file = tmp_path / "table.parquet"
    table = pa.table({"path": ["a.png", "b.png", "c.png"], "label": [["dog", "cat"], [], None]})
    parquet.write_table(table, file)
    both, none, missing = rows(file)
    assert (both.labels, none.labels) == (("cat", "dog"), ())
    assert "expected a path and a label" in missing.problem
    parquet.write_table(pa.table({"path": ["a.png"], "label": [[["cat"]]]}), file)
    with pytest.raises(InputError, match="expected text or numbers in label"):
        rows(file)
    # A few hundred bytes on disk.
    parquet.write_table(pa.table({"path": ["a.png"], "label": [[7] * 70_000]}), file)
    with pytest.raises(InputError, match="at most 65536 labels of an image in label, found 70000"):
        rows(file)


def test_a_row_group_with_very_many_values_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_files, "_MOST_VALUES", 100)
    file = tmp_path / "table.parquet"
    parquet.write_table(pa.table({"path": ["a.png"], "label": [[7] * 101]}), file)
    with pytest.raises(InputError, match="at most 100 values in label of a row group, found 101"):
        rows(file)


def test_text_of_a_list_keeps_characters() -> None:
    assert list_text(("über", "水")) == '["über", "水"]'


def test_columns_and_a_separator_exclude_each_other() -> None:
    with pytest.raises(InputError, match="label_separator or label_columns, got both"):
        select_options(IngestOptions, {"label_columns": ["cat", "dog"], "label_separator": ";"})
    with pytest.raises(InputError, match="names of different columns"):
        select_options(IngestOptions, {"label_columns": ["cat", "Cat"]})
