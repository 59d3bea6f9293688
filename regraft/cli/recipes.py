"""The commands for recipes: write the first one for a folder, and print their schema."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer


def init(
    folder: Annotated[
        Path, typer.Argument(help="Folder with one subfolder per class, which may be split.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="YAML file to write.")] = Path(
        "recipe.yaml"
    ),
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a commented recipe for a folder of images.

    Example: regraft init ./images -o images.yaml
    """
    from pipelines.recipes.recipe_draft import write_draft
    from regraft.cli.console_output import print_line

    contents = write_draft(folder, output, overwrite=force)
    classes = contents.classes
    print_line(f"{output}: {classes.total()} images of {len(classes)} classes; "
          f"next: regraft run {quote(str(output))} --out runs/first")  # fmt: skip


def recipe_schema() -> None:
    """Print the JSON schema of recipes.

    Editors use it to complete and check YAML files.

    Example: regraft recipe-schema
    """
    from pipelines.recipes.recipe_file import schema
    from regraft.cli.console_output import print_json

    print_json(schema())
