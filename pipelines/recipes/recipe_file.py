"""Recipes as files: YAML that is read strictly, and the names of the recipes that come along."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pipelines.recipes.recipe import RECIPE_FIELDS, Recipe, make_recipe
from regraft_core.formats.option_parsing import as_input_error
from regraft_core.runtime.errors import InputError, unknown_name

RECIPES = Path(__file__).parent
SUFFIXES = (".yaml", ".yml")
MAX_BYTES = 1 << 20
_OF_THE_SOURCE = ("sha256", "mirrors")


class _Loader(yaml.SafeLoader):
    """YAML 1.2's plain values: `off` and `no` are text, `1e-3` is a number, dates are text."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not taken", mark)
        return super().compose_node(parent, index)


for _tag, _pattern, _firsts in (
    ("null", r"~|null|Null|NULL|", [*"~nN", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    ("int", r"[-+]?[0-9]+", [*"-+0123456789"]),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        [*"-+.0123456789"],
    ),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _firsts
    )


def _decimal(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))


def _number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    text = str(loader.construct_scalar(node)).lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


_Loader.add_constructor("tag:yaml.org,2002:int", _decimal)
_Loader.add_constructor("tag:yaml.org,2002:float", _number)


def schema() -> dict[str, Any]:
    """Return the JSON schema of a recipe's file. Any key may be left to the command's options."""
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
    """Return the names of the recipes that come with Regraft."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def find_recipe(recipe: str) -> Path:
    """Return the file of a recipe, given by its path or by the name of one that comes along.

    Raises:
        InputError: there is none; near names are suggested.
    """
    path = Path(recipe)
    if path.is_file():
        return path
    if recipe in known_recipes():
        return RECIPES / f"{recipe}.yaml"
    if path.is_dir():
        raise InputError(
            f"recipe: expected a YAML file or a recipe's name, got the folder {recipe}"
        )
    near = [str(p) for p in path.parent.glob("*") if p.suffix in SUFFIXES]
    if path.suffix in SUFFIXES and not get_close_matches(recipe, near, cutoff=0.5):
        raise InputError(f"recipe: expected a YAML file or a recipe's name, found no file {recipe}")
    raise unknown_name("recipe", recipe, [*known_recipes(), *near])


def read_recipe(recipe: str) -> dict[str, Any]:
    """Read the options of a recipe, by path or name. They may lack `sources`, which come later.

    Raises:
        InputError: the file cannot be read, is no mapping, has a key twice, an unknown key (near
            ones are suggested), or a value of another type or out of range.
    """
    path = find_recipe(recipe)
    node = _composed(path)
    for key, line in _keys(path, node).items():
        if key not in RECIPE_FIELDS:
            raise _at(path, line, unknown_name("key", key, RECIPE_FIELDS))
    values = _constructed(path, node)
    lines = _keys(path, node)
    try:
        text = json.dumps({"sources": ["sample:digits"]} | values)
        checked = Recipe.model_validate_json(text, strict=True)
    except ValidationError as error:
        line = lines.get(str((error.errors()[0]["loc"] or ("",))[0]), 0)
        raise _at(path, line, as_input_error(Recipe, error)) from error
    return {name: getattr(checked, name) for name in values}


def with_recipe(recipe: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a recipe with those that were given in their place.

    Other sources also drop the recipe's checksum and mirrors, which belong to its own. A source
    that is the name of a recipe, and not of a file here, stands for the sources of that recipe.

    Raises:
        InputError: as `read_recipe`.
    """
    values = read_recipe(recipe) if recipe else {}
    if "sources" in given:
        values = {name: value for name, value in values.items() if name not in _OF_THE_SOURCE}
    return _with_sources_of_recipes({**values, **given})


def _with_sources_of_recipes(values: dict[str, Any]) -> dict[str, Any]:
    sources = list(values.get("sources", ()))
    named = [s for s in sources if s in known_recipes() and not Path(s).exists()]
    for source in named:
        own = read_recipe(source)
        place = sources.index(source)
        sources[place : place + 1] = own["sources"]
        if len(sources) == 1:
            values = {name: own[name] for name in _OF_THE_SOURCE if name in own} | values
    return values | {"sources": tuple(sources)} if named else values


def recipe_of(recipe: str | None, given: Mapping[str, Any]) -> Recipe:
    """Return the checked recipe of a file or name with options that were given.

    Raises:
        InputError: as `read_recipe` and `make_recipe`.
    """
    return make_recipe(**with_recipe(recipe, given))


def _composed(path: Path) -> yaml.MappingNode:
    """Parse a file into YAML's own tree, which still has lines and keys that stand twice."""
    try:
        data = path.read_bytes()
        if len(data) > MAX_BYTES:
            raise InputError(f"{path}: expected a recipe of at most 1 MB, got {len(data)} bytes")
        node = yaml.compose(data.decode("utf-8-sig"), _Loader)
    except OSError as error:
        raise InputError(f"cannot read the recipe {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected text in UTF-8: {error.reason}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        raise _at(path, mark.line + 1 if mark else 0, f"expected YAML: {problem}") from error
    except RecursionError as error:
        raise InputError(f"{path}: expected a mapping of options, got deep nesting") from error
    if node is None:
        raise InputError(f"{path}: expected a mapping of options, got an empty file")
    if not isinstance(node, yaml.MappingNode):
        kind = "a list" if isinstance(node, yaml.SequenceNode) else f"the value {node.value!r}"
        raise InputError(f"{path}: expected a mapping of options, got {kind}")
    return node


def _keys(path: Path, node: yaml.MappingNode) -> dict[str, int]:
    """Return the keys of a mapping with their lines.

    Raises:
        InputError: a key stands twice, or is no plain text.
    """
    lines: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise _at(path, line, "expected a plain key, got a collection")
        if key.value in lines:
            first = lines[key.value]
            raise _at(path, line, f"the key {key.value!r} stands twice, first in line {first}")
        lines[key.value] = line
        if isinstance(value, yaml.MappingNode):
            _keys(path, value)
    return lines


def _constructed(path: Path, node: yaml.MappingNode) -> dict[str, Any]:
    loader = _Loader("")
    try:
        values = loader.construct_document(node)
        json.dumps(values)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        problem = getattr(error, "problem", None) or str(error)
        raise InputError(f"{path}: expected plain values: {problem}") from error
    finally:
        loader.dispose()
    return dict(values)


def _at(path: Path, line: int, error: object) -> InputError:
    return InputError(f"{path}{f', line {line}' if line else ''}: {error}")
