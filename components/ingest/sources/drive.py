"""Google Drive: links, ids, and downloads by gdown, which handles the pages for large files."""

from __future__ import annotations

from pathlib import Path

import requests

from components.ingest.sources.download_retry import Deadline, TransientError
from components.ingest.sources.html_pages import PAGE_BYTES, refuse_page
from components.ingest.sources.http import open_response, timeouts_s
from components.ingest.sources.transfer_progress import Advance
from regraft_core.formats.options.ingest import IngestOptions

_URL = "https://drive.google.com/uc?id={}"


def download_drive(
    identity: str, part: Path, options: IngestOptions, deadline: Deadline, advance: Advance
) -> None:
    """Make one attempt to complete `part`; gdown keeps what it received for the next.

    Raises:
        TransientError: another attempt may succeed: quota, timeouts, truncated bodies.
        FetchError: no other attempt will: not shared, no such file.
    """
    import gdown
    from gdown.exceptions import DownloadError, FileURLRetrievalError

    def report(done: int, total: int | None) -> None:
        advance(done, total)
        deadline.check()

    part.unlink(missing_ok=True)
    try:
        gdown.download(
            url=_URL.format(identity), output=str(part), quiet=True, use_cookies=False,
            resume=True, timeout=timeouts_s(options, deadline), progress=report,
        )  # fmt: skip
    except FileURLRetrievalError as error:
        if "ermission" not in str(error) or "many accesses" not in str(error):
            refuse_page(str(error))
        # gdown has one text for several pages; the page itself has the cause.
        with open_response(_URL.format(identity), options, deadline) as response:
            page = response.raw.read(PAGE_BYTES, decode_content=True).decode("utf-8", "replace")
            refuse_page(page, response.url, response.status_code)
    except DownloadError as error:
        if "incomplete" not in str(error):
            _discard_partial_files(part)
        raise TransientError(" ".join(str(error).split())[:200]) from error
    except (requests.RequestException, KeyError, AssertionError) as error:
        # gdown requires some headers of every response.
        raise TransientError(f"no usable response ({type(error).__name__})") from error


def _discard_partial_files(part: Path) -> None:
    """Remove gdown's partial files, which it cannot resume."""
    for partial in part.parent.glob(f"{part.name}*.part"):
        partial.unlink(missing_ok=True)
