"""The recipe of a local run, checked before any data is read, for the command and the API alike."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.recipe_checks import check_folder, check_recipe
from pipelines.recipes.recipe import Recipe, make_recipe
from regraft_core.runtime.errors import InputError

MODELS_FOLDER = "models"


def prepare_recipe(
    options: Mapping[str, Any], out: str | os.PathLike[str], runner: str = "subprocess"
) -> Recipe:
    """Return the checked recipe of a run into the folder `out`.

    Models are published to `<out>/models` unless the options set `destination`.

    Raises:
        InputError: an unknown option, a value out of range, no source, a URI for `out`, or as
            `check_recipe`.
    """
    # A path has only one of the slashes.
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", os.fspath(out)):
        raise InputError(
            f"out: expected a folder of this machine, got {out}; for models and for the work of "
            "finished steps in a bucket, use --destination and --work-dir"
        )
    destination = str((Path(out) / MODELS_FOLDER).absolute())
    recipe = make_recipe(**{"destination": destination, **options})
    check_folder("out", Path(out))
    check_recipe(recipe, containers=runner == "docker")
    return recipe
