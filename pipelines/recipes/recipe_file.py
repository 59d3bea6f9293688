"""Recipes as files: YAML that is read strictly, and the names of the built-in recipes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from difflib import get_close_matches
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.constructor import RoundTripConstructor
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent

from pipelines.recipes.option_hints import unknown_option
from pipelines.recipes.recipe import RECIPE_FIELDS, Recipe, make_recipe
from regraft_core.formats.option_parsing import as_input_error
from regraft_core.runtime.errors import InputError, unknown_name
from regraft_core.runtime.printable import one_line

SUFFIXES = (".yaml", ".yml")
MAX_BYTES = 1 << 20
MAX_DEPTH = 20  # a recipe has lists and mappings in one mapping; the parser is slow with more
_OF_THE_SOURCE = ("sha256", "mirrors")


class _Constructor(RoundTripConstructor):
    """YAML 1.2 with line numbers, in which dates are text."""


_Constructor.add_constructor(
    "tag:yaml.org,2002:timestamp", lambda loader, node: loader.construct_scalar(node)
)


def schema() -> dict[str, Any]:
    """Return the JSON schema of a recipe file; no key is required, because options may add it."""
    whole = Recipe.model_json_schema()
    properties = {name: whole["properties"][name] for name in RECIPE_FIELDS}
    return whole | {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Recipe",
        "description": "The options of a run of Regraft.",
        "properties": properties,
        "required": [],
    }


def known_recipes() -> list[str]:
    """Return the names of the built-in recipes."""
    names = [file.name for file in files(__package__).iterdir()]
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def find_recipe(recipe: str) -> Traversable:
    """Return the file of a recipe, from its path or the name of a built-in one.

    Raises:
        InputError: it does not exist; similar names are suggested.
    """
    path = Path(recipe)
    if path.suffix in SUFFIXES and path.is_file():
        return path
    if recipe in known_recipes():
        return files(__package__) / f"{recipe}.yaml"
    if path.is_file():
        return path
    if path.is_dir():
        raise InputError(
            f"recipe: expected a YAML file or a recipe's name, got the folder {recipe}"
        )
    visible = (p for p in path.parent.glob("*") if not p.name.startswith("."))
    near = [str(p) for p in visible if p.suffix in SUFFIXES]
    if path.suffix in SUFFIXES and not get_close_matches(recipe, near, cutoff=0.5):
        raise InputError(f"recipe: expected a YAML file or a recipe's name, found no file {recipe}")
    raise unknown_name("recipe", recipe, [*known_recipes(), *near])


def read_recipe(recipe: str) -> dict[str, Any]:
    """Read the options of a recipe, by path or name; `sources` may be missing.

    Raises:
        InputError: the file cannot be read or is not a mapping; a key is given twice or unknown
            (similar ones are suggested); a value has another type or is out of range.
    """
    file = find_recipe(recipe)
    values = _load(file)
    lines = {str(key): position[0] + 1 for key, position in values.lc.data.items()}
    for key in map(str, values):
        if key not in RECIPE_FIELDS:
            raise _at(file, lines.get(key, 0), unknown_option("key", key, RECIPE_FIELDS))
    try:
        text = json.dumps({"sources": ["sample:digits"], **values})
        checked = Recipe.model_validate_json(text, strict=True)
    except TypeError as error:
        raise InputError(f"{file}: expected plain keys and values: {error}") from error
    except ValidationError as error:
        line = lines.get(str((error.errors()[0]["loc"] or ("",))[0]), 0)
        raise _at(file, line, as_input_error(Recipe, error)) from error
    except InputError as error:
        raise _at(file, 0, error) from error
    return {name: getattr(checked, name) for name in values}


def with_recipe(recipe: str | None, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a recipe, overridden by the given ones.

    Given sources also remove the recipe's checksum and mirrors, which belong to its own sources. A
    source that is the name of a built-in recipe, and not of a local file, is replaced by the
    sources of that recipe.

    Raises:
        InputError: as `read_recipe`.
    """
    values = read_recipe(recipe) if recipe else {}
    if "sources" in overrides:
        values = {name: value for name, value in values.items() if name not in _OF_THE_SOURCE}
    return _with_sources_of_recipes({**values, **overrides})


def _with_sources_of_recipes(values: dict[str, Any]) -> dict[str, Any]:
    sources = list(values.get("sources", ()))
    named = [s for s in sources if s in known_recipes() and not Path(s).exists()]
    for source in named:
        own = read_recipe(source)
        index = sources.index(source)
        sources[index : index + 1] = own["sources"]
        if len(sources) == 1:
            values = {name: own[name] for name in _OF_THE_SOURCE if name in own} | values
    return values | {"sources": tuple(sources)} if named else values


def recipe_of(recipe: str | None, overrides: Mapping[str, Any]) -> Recipe:
    """Return the checked recipe of a file or name, overridden by the given options.

    Raises:
        InputError: as `read_recipe` and `make_recipe`.
    """
    return make_recipe(**with_recipe(recipe, overrides))


def _load(file: Traversable) -> CommentedMap:
    """Parse a file into a mapping that has the lines of its keys."""
    try:
        data = file.read_bytes()
        if len(data) > MAX_BYTES:
            raise InputError(f"{file}: expected a recipe of at most 1 MB, got {len(data)} bytes")
        text = data.decode("utf-8-sig")
        _refuse_what_expands(file, text)
        yaml = YAML()
        yaml.Constructor = _Constructor
        values = yaml.load(text)
    except OSError as error:
        raise InputError(f"cannot read the recipe {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: expected text in UTF-8: {error.reason}") from error
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        line = mark.line + 1 if mark else 0
        raise _at(file, line, f"invalid YAML: {one_line(problem)}") from error
    if values is None:
        raise InputError(f"{file}: expected a mapping of options, got an empty file")
    if not isinstance(values, CommentedMap):
        kind = "a list" if isinstance(values, list) else f"the value {values!r}"
        raise InputError(f"{file}: expected a mapping of options, got {kind}")
    return values


def _refuse_what_expands(file: Traversable, text: str) -> None:
    """Refuse aliases, tags and deep nesting: a small file could expand to a large one."""
    depth = 0
    for event in YAML().parse(text):
        line = event.start_mark.line + 1
        depth += isinstance(event, CollectionStartEvent)
        depth -= isinstance(event, CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise _at(file, line, "expected a mapping of options, got deep nesting")
        if isinstance(event, AliasEvent):
            raise _at(file, line, "invalid YAML: aliases (*name) are not supported")
        if getattr(event, "tag", None):
            raise _at(file, line, f"invalid YAML: tags ({event.tag}) are not supported")


def _at(file: Traversable, line: int, error: object) -> InputError:
    return InputError(f"{file}{f', line {line}' if line else ''}: {error}")
