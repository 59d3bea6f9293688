"""`regraft review`: suspected problems in the data of a run, to decide on in a browser."""

from __future__ import annotations

import contextlib
import getpass
import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from regraft.cli.options.json_flag import JsonFlag
from regraft_core.runtime.errors import InputError


def review(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    fixes: Annotated[
        Path | None,
        typer.Option(
            help="CSV file for the decisions; an existing one is continued. (default: fixes.csv in "
            "the folder of the run)",
            show_default=False,
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(help="HTML file to write the page to."),
    ] = None,
    count: Annotated[
        int, typer.Option(min=1, max=5000, help="Maximum number of images.")
    ] = 300,
    who: Annotated[
        str | None,
        typer.Option(help="Name of the reviewer. (default: the user)", show_default=False),
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port on this machine; 0 is a free one.")
    ] = 0,
    open_page: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in a browser.")
    ] = True,
    json: JsonFlag = False,
) -> None:  # fmt: skip
    """Review suspected problems in the data of a run, the most harmful first.

    They are labels that the head, fitted without the image, contradicts; near duplicates with two
    labels; outliers; and dark, blurred or odd images. Decide on each by a key. The next run applies
    the decisions with --fixes. With --html, the page is a file, from which the browser downloads
    them.

    Example: regraft review runs/digits
    """
    from dataclasses import asdict

    from regraft.cli.console_output import print_json, print_line, progress_on_stderr
    from regraft.review.decisions import Decisions
    from regraft.review.page import render_page, write_page
    from regraft.review.reviewed_run import find_reviewed
    from regraft.review.server import ReviewServer
    from regraft_core.curation.suspects import find_suspects
    from regraft_core.formats.fixes import FIXES_FILE

    if html is not None and json:
        raise InputError("--html: expected either --html or --json, got both")
    found = find_reviewed(run)
    with progress_on_stderr():
        suspects = find_suspects(found.dataset, found.features, found.head)
    suspects = [one for one in suspects if not found.is_settled(one.image)]
    shown = suspects[:count]
    if json:
        print_json([asdict(one) for one in shown])
        return
    path = fixes or run / FIXES_FILE
    labels = {one.image.sha256: one.image.label for one in shown}
    name = _user() if who is None else who
    decisions = Decisions(path, labels, found.data.classes, name, found.fixes)
    if html is not None:
        page = render_page(found, shown, len(suspects), decisions.fixes, served=False, who=name)
        write_page(html, page)
        print_line(f"{html}: {len(shown)} of {len(suspects)} suspected images")
        return

    def render() -> str:
        return render_page(found, shown, len(suspects), decisions.fixes, served=True)

    with ReviewServer(port, render, decisions) as server:
        print_line(f"{len(shown)} of {len(suspects)} suspected images at {server.url}")
        print_line(f"decisions are saved to {path}; Ctrl+C ends the review")
        sys.stdout.flush()
        if open_page and sys.stdout.isatty():
            webbrowser.open(server.url)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
    if path.exists():
        print_line(f"apply them: regraft run ... --fixes {path}")


def _user() -> str:
    """Return the name of the user; a container may have none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
