"""The options of `regraft run`: from a recipe, or from the defaults for images without one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any
from urllib.parse import urlsplit

from components.ingest.sources.folder_forms import find_form
from pipelines.recipes.recipe_draft import BACKBONE, draft_options, name_for, scan_folder
from pipelines.recipes.recipe_file import SUFFIXES, known_recipes, with_recipe
from regraft_core.backbones.backbone_table import find_backbone, is_location
from regraft_core.runtime.addresses import is_url
from regraft_core.runtime.errors import InputError, unknown_name
from regraft_core.sources.shard_patterns import shards_of

_URI_PREFIXES = ("sample:", "gdrive:")
_SHOWN = ("backbone", "image_px", "strategies", "budget", "min_accuracy")


@dataclass(frozen=True)
class RunOptions:
    """The options of a run, and what the user should know about them.

    `name` is made from the name of the recipe or of the images, and may name the run's folder.
    """

    values: dict[str, Any]
    name: str
    note: str = ""


def choose_options(recipe_or_images: str | None, overrides: Mapping[str, Any]) -> RunOptions:
    """Return the options of a run.

    Args:
        recipe_or_images: a recipe's name or YAML file, or images: a folder, an archive, a table, a
            URL or a sample. If a built-in recipe and a file or folder have the same name, the
            recipe is used.
        overrides: options that override those of the recipe or the defaults.

    Raises:
        InputError: it does not exist, or cannot be used.
    """
    if recipe_or_images is None:
        return RunOptions(with_recipe(None, overrides), str(overrides.get("model_name", "regraft")))
    name = recipe_or_images
    path = Path(name)
    if name in known_recipes():
        note = f"recipe {name}; the images in ./{name} are not used: give ./{name} for them"
        return RunOptions(with_recipe(name, overrides), name, note if path.exists() else "")
    if path.suffix not in SUFFIXES:
        if not (path.exists() or _is_uri(name) or shards_of(name)):
            siblings = [str(sibling) for sibling in path.parent.glob("*")]
            raise unknown_name("recipe or folder", name, [*known_recipes(), *siblings])
        return _without_recipe(name, overrides)
    return RunOptions(with_recipe(name, overrides), name_for(path.with_suffix("")))


def default_options(images: str) -> dict[str, Any]:
    """Return the options for images without a recipe, as recipe keys.

    For a folder of class folders they are those that `regraft init` writes. Other images are not
    read, so that a URL is not downloaded twice.

    Raises:
        InputError: the folder cannot be used.
    """
    path = Path(images)
    has_folders = path.is_dir() and any(child.is_dir() for child in path.iterdir())
    if has_folders and not find_form(path):
        return draft_options(scan_folder(path))
    return {
        "sources": [images],
        "model_name": _name_of(images),
        "backbone": BACKBONE,
        "image_px": find_backbone(BACKBONE).image_px,
        "strategies": ["head", "top"],
    }


def _without_recipe(images: str, overrides: Mapping[str, Any]) -> RunOptions:
    if "sources" in overrides:
        raise InputError(f"expected either {images} or --source, got both")
    values = default_options(images)
    if is_location(str(overrides.get("backbone", ""))):
        values["image_px"] = 0  # a preset and a file have a size of their own
    values |= overrides
    shown = ", ".join(
        f"{name.replace('_', ' ')} {_text(values[name])}" for name in _SHOWN if name in values
    )
    note = f"no recipe: {shown}"
    if Path(images).is_dir() and not find_form(Path(images)):
        note += f"; `regraft init {quote(images)} -o {_name_of(images)}.yaml` writes them to edit"
    return RunOptions(values, _name_of(images), note)


def _is_uri(text: str) -> bool:
    return is_url(text) or text.startswith(_URI_PREFIXES)


def _name_of(images: str) -> str:
    """Return a name for a run and model, from the last part of a path or URI without its suffix."""
    if not _is_uri(images):
        path = Path(images)
        # Of a pattern of shards, such as train-{000..009}.tar, what precedes the numbers.
        name = path.name.split(".")[0].partition("{")[0].strip("-_")
        return name_for(path if path.is_dir() else Path(name or "images"))
    last = urlsplit(images).path.rstrip("/").rpartition("/")[2]
    return name_for(Path(last.split(".")[0] or "images"))


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
