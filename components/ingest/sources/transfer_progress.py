"""The progress of a download: a bar on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from components.ingest.sources.download_retry import FetchError
from regraft_core.runtime.printable import printable
from regraft_core.runtime.step_reports import log_progress

Advance = Callable[[int, int | None], None]


class DownloadSizeError(FetchError):
    """The file exceeds a limit of bytes."""


def limited(advance: Advance, limit_bytes: int, before_bytes: int = 0) -> Advance:
    """Return `advance` with a check of the announced and the received bytes.

    It raises `DownloadSizeError` above the limit; `before_bytes` are those of earlier files.
    """

    def checked(done: int, total: int | None) -> None:
        if before_bytes + max(done, total or 0) > limit_bytes:
            raise DownloadSizeError(
                f"max_download_bytes: expected at most {limit_bytes} bytes, got "
                f"{f'{before_bytes + total}' if total else 'more'}; "
                "--max-download-bytes sets the limit"
            )
        advance(done, total)

    return checked


LINE_EVERY_S = 15.0


@contextlib.contextmanager
def transfer_progress(name: str) -> Iterator[Advance]:
    """Yield a function to call with the bytes so far and the bytes in total (None if unknown)."""
    if not sys.stderr.isatty():
        yield _log_lines(name)
        return
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(escape(printable(name)), total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _log_lines(name: str) -> Advance:
    last_s = time.monotonic()

    def advance(done: int, total: int | None) -> None:
        nonlocal last_s
        if time.monotonic() - last_s >= LINE_EVERY_S:
            last_s = time.monotonic()
            of_total = f" of {total >> 20} MB ({done / total:.0%})" if total else " MB"
            log_progress(f"ingest: {name}: {done >> 20}{of_total}")

    return advance
