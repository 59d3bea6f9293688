"""`regraft suggest`: which unlabeled images to label next."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regraft.cli.options.json_flag import JsonFlag


def suggest(
    model: Annotated[
        str, typer.Argument(help="Folder of a run, a published model, or an exported model.")
    ],
    folder: Annotated[Path, typer.Argument(help="Folder of unlabeled images.")],
    count: Annotated[
        int, typer.Option(min=1, max=5000, help="Maximum number of images.")
    ] = 100,
    out: Annotated[
        Path, typer.Option(help="Folder for suggested.csv and suggested.html.")
    ] = Path("suggested"),
    json: JsonFlag = False,
) -> None:  # fmt: skip
    """Rank unlabeled images by how useful their labels would be.

    Uncertain images that differ from each other come first, and out-of-distribution images last.
    Fill in the column label of the table, and add the table to the sources of the next run.

    Example: regraft suggest runs/digits ./unlabeled --count 100
    """
    from dataclasses import asdict

    from regraft.cli.console_output import print_json, print_line, print_note, progress_bar
    from regraft.suggestion.outputs import refuse_labeled, write_suggestions
    from regraft.suggestion.ranking import suggest_images

    if not json:
        refuse_labeled(out)
    with progress_bar("images") as progress:
        found = suggest_images(model, folder, count, progress)
    for path, reason in found.refused[:5]:
        print_note(f"{path}: {reason}")
    if len(found.refused) > 5:
        print_note(f"and {len(found.refused) - 5} more files that the model cannot read")
    if json:
        print_json(asdict(found))
        return
    table, page = write_suggestions(out, model, found)
    print_line(f"{len(found.images)} of {found.candidates} images: {table}, {page}")
