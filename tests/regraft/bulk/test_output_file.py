"""One Parquet file: complete or not there, and only its own errors are errors of the output."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyarrow import parquet

from regraft.bulk.output_file import output_file
from regraft.bulk.prediction_rows import PredictionRow, as_table
from regraft_core.runtime.errors import UnavailableError

TABLE = as_table([PredictionRow("a.png", error="damaged")]).replace_schema_metadata()


def test_it_appears_when_the_block_succeeds(tmp_path: Path) -> None:
    path = tmp_path / "new" / "o.parquet"
    with output_file(str(path), TABLE.schema) as write:
        write(TABLE)
        write(TABLE)
        assert not path.exists()
    assert parquet.read_table(path).num_rows == 2


def test_an_error_of_the_block_is_none_of_the_output(tmp_path: Path) -> None:
    with (
        pytest.raises(FileNotFoundError, match="an image"),
        output_file(str(tmp_path / "o.parquet"), TABLE.schema) as write,
    ):
        write(TABLE)
        raise FileNotFoundError("an image")
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    path = tmp_path / "file" / "o.parquet"
    with (
        pytest.raises(UnavailableError, match=r"^output: cannot write .*o\.parquet: "),
        output_file(str(path), TABLE.schema),
    ):
        pass
