"""Predictions as rows of a Parquet table, which has the columns of the CSV with their types."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from regraft.bulk.prediction import LoadedModel, PredictionSetup
from regraft_client.predict_files import FilePrediction
from regraft_core.runtime.errors import InputError

KEY, ERRORS = b"regraft.key", b"regraft.errors"
"""Metadata of a table: what it was made from, and its number of rows with an error."""


class PredictionRow(NamedTuple):
    """A row: the values that the model does not report are None, and all of them with an error."""

    path: str
    label: str | None = None
    confidence: float | None = None
    familiar: bool | None = None
    selected: list[str] | None = None
    label_set: list[str] | None = None
    abstain: bool | None = None
    error: str | None = None


def check_parquet() -> None:
    """Check that pyarrow is installed.

    Raises:
        InputError: it is not; how to install it.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise InputError(
            "output: Parquet needs pyarrow, which comes with the extras [cloud] and [ray]; in a "
            "checkout: make install"
        ) from error


def prepare_rows(setup: PredictionSetup) -> Callable[[list[str]], list[PredictionRow]]:
    """Load a model; return the rows of images by name as a function."""
    model = LoadedModel(setup)
    return lambda names: [as_row(one, model.classes) for one in model(names)]


def as_table(rows: Sequence[PredictionRow], key: str = "") -> Any:
    """Return rows as a table of pyarrow, with `KEY` and `ERRORS` in its metadata."""
    import pyarrow

    names, flags = pyarrow.string(), pyarrow.bool_()
    schema = pyarrow.schema(
        [
            ("path", names), ("label", names), ("confidence", pyarrow.float32()),
            ("familiar", flags), ("selected", pyarrow.list_(names)),
            ("label_set", pyarrow.list_(names)), ("abstain", flags), ("error", names),
        ],
        {KEY: key, ERRORS: str(sum(row.error is not None for row in rows))},
    )  # fmt: skip
    columns = zip(*rows, strict=True) if rows else [[]] * len(schema)
    arrays = [pyarrow.array(*column) for column in zip(columns, schema.types, strict=True)]
    return pyarrow.Table.from_arrays(arrays, schema=schema)


def as_row(one: FilePrediction, classes: Sequence[str]) -> PredictionRow:
    """Return the row of a prediction of a model with these classes."""
    # The name of a file need not be valid UTF-8, and text in Parquet must be.
    path = one.path.encode("utf-8", "backslashreplace").decode()
    found = one.prediction
    if found is None:
        return PredictionRow(path, error=one.error)
    return PredictionRow(
        path, found.label, found.confidence, found.familiar,
        None if found.selected is None else found.selected_names(classes),
        None if found.label_set is None else found.names_in_set(classes), found.abstain,
    )  # fmt: skip
