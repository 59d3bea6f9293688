"""The commands for recipes: a first one for a folder, and the schema of all."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer


def init(
    folder: Annotated[Path, typer.Argument(help="Folder of class folders, perhaps split.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The recipe to write.")] = Path(
        "recipe.yaml"
    ),
    force: Annotated[bool, typer.Option("--force", help="Write over a file.")] = False,
) -> None:
    """Write a commented recipe for a folder of images.

    Example: regraft init ./images -o images.yaml
    """
    from pipelines.recipes.recipe_draft import write_draft

    seen = write_draft(folder, output, overwrite=force)
    print(f"{output}: {seen.classes.total()} images of {len(seen.classes)} classes; "
          f"next: regraft run {quote(str(output))} --out runs/first")  # fmt: skip


def recipe_schema() -> None:
    """Print the JSON schema of recipes, for editors that complete and check YAML.

    Example: regraft recipe-schema
    """
    from pipelines.recipes.recipe_file import schema
    from regraft.cli.console_output import print_json

    print_json(schema())
