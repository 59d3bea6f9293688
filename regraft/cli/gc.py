"""The command that frees storage: content that nothing uses any more."""

from __future__ import annotations

from typing import Annotated

import typer

from regraft.cli.options.json_flag import JsonFlag

KEEP_DAYS = 30.0


def gc(
    location: Annotated[
        str,
        typer.Argument(help="Folder of a local run (its --out), or a --work-dir: folder or URI."),
    ],
    keep_days: Annotated[
        float,
        typer.Option(help="Keep what runs of the last days use; longer than the longest run."),
    ] = KEEP_DAYS,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be removed, and remove nothing.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Remove stored content that no run or version uses.

    The content of the latest run of each model, of recent runs and of published versions stays, and
    so does all content that changed during the last day. Published versions are never changed.

    Example: regraft gc runs/digits --dry-run
    """
    from regraft.cli.console_output import print_cleanup, print_json
    from regraft.store_cleanup import clean_up, find_store

    cleanup = clean_up(find_store(location), keep_days, dry_run=dry_run)
    if json:
        print_json(cleanup.as_json() | {"dry_run": dry_run})
    else:
        print_cleanup(cleanup, dry_run=dry_run)
