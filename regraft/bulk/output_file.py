"""One Parquet file, at a path or in a bucket, which appears when it is complete."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from typing import IO, Any

from regraft_core.formats.content_store import explained
from regraft_core.runtime.addresses import local_path
from regraft_core.runtime.errors import UnavailableError
from regraft_core.runtime.object_stores import is_store_uri, open_store_uri
from regraft_core.runtime.safe_files import replaced_file


@contextlib.contextmanager
def output_file(location: str, schema: Any) -> Iterator[Callable[[Any], None]]:
    """Yield a function that writes a table of pyarrow; the file appears if the block succeeds.

    Args:
        location: a path, or the URI of an object.
        schema: of all tables.

    Raises:
        UnavailableError: the file cannot be written. Errors of the block stay what they are.
        InputError: the bucket refuses it.
    """
    from pyarrow import parquet

    with contextlib.ExitStack() as opened:
        with _writing(location):
            file = opened.enter_context(_target(location))
            writer = parquet.ParquetWriter(file, schema)

        def write(table: Any) -> None:
            with _writing(location):
                writer.write_table(table)

        try:
            yield write
        except BaseException:
            with contextlib.suppress(OSError):
                writer.close()
            raise
        with _writing(location):
            writer.close()
            opened.close()


@contextlib.contextmanager
def _target(location: str) -> Iterator[IO[bytes]]:
    """Open a file that becomes the one at a path or URI when the block succeeds."""
    if is_store_uri(location):
        store, path = open_store_uri(location)
        with tempfile.NamedTemporaryFile(prefix="regraft-predictions-") as local:
            yield local.file
            local.flush()
            with explained(location):
                store.put_file(local.name, path)
    else:
        target = local_path(location)
        target.parent.mkdir(parents=True, exist_ok=True)
        with replaced_file(target) as file:
            yield file


@contextlib.contextmanager
def _writing(location: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UnavailableError(
            f"output: cannot write {location}: {error.strerror or error}"
        ) from error
