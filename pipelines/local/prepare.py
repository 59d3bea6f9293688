"""The recipe of a local run, checked before any data is read, for the command and the API alike."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.preflight import check_backbone, check_destination
from pipelines.recipes.recipe import RECIPE_FIELDS, Recipe, make_recipe
from pipelines.recipes.recipe_draft import write_draft
from pipelines.recipes.recipe_file import known_recipes, read_recipe, with_recipe
from regraft_core.runtime.errors import unknown_name
from regraft_core.runtime.gpu_check import check_gpu

MODELS_FOLDER, WORK_FOLDER = "models", "work"


def prepare_recipe(
    recipe: str | None,
    options: Mapping[str, Any],
    out: str | os.PathLike[str],
    runner: str = "subprocess",
) -> Recipe:
    """Return the checked recipe of a run into the folder `out`.

    Models are published to `<out>/models` and checkpoints are written to `<out>/work` unless the
    recipe or the options set other folders.

    Args:
        recipe: a YAML file, the name of a built-in recipe, or a folder of class folders, for which
            the options are those that `regraft init` writes.
        options: recipe fields that override the recipe's.
        out: the folder of the run.
        runner: `subprocess` or `docker`.

    Raises:
        InputError: an unknown option (similar names are suggested), a value out of range, no
            source, or something that this machine lacks.
    """
    for name in options:
        if name not in RECIPE_FIELDS:
            raise unknown_name("option", name, RECIPE_FIELDS)
    if recipe and recipe not in known_recipes() and Path(recipe).is_dir():
        values = {**folder_options(recipe), **options}
    else:
        values = with_recipe(recipe, options)
    for name, folder in (("destination", MODELS_FOLDER), ("work_dir", WORK_FOLDER)):
        values.setdefault(name, str((Path(out) / folder).absolute()))
    checked = make_recipe(**values)
    if runner != "docker":  # the container image has its own packages
        check_destination(checked)
        check_gpu(checked.require_gpu)
    check_backbone(checked)
    return checked


def folder_options(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the options that `regraft init` writes for a folder of class folders.

    Raises:
        InputError: it is not a folder.
        DataError: it has fewer than two classes with images.
    """
    with tempfile.TemporaryDirectory() as drafts:
        draft = Path(drafts) / "recipe.yaml"
        write_draft(Path(folder), draft)
        return read_recipe(str(draft))
