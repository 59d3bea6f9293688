"""Writes the reference from the code: commands, Python API, recipe, formats, messages, metrics.

The descriptions are those of the options, and the docstrings those of the code.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from docs.error_messages import collect_messages
from docs.reference_environment import CODES, environment_page, exit_codes_page
from docs.reference_messages import messages_page
from docs.reference_metrics import metrics_page
from docs.reference_python import python_page
from pipelines.recipes.recipe import Recipe
from regraft_core.backbones.backbone_row import KERAS
from regraft_core.backbones.backbone_table import BACKBONES
from regraft_core.formats import manifest_storage, manifests
from regraft_core.formats.manifests import (
    dataset,
    evaluation,
    features,
    model,
    parity,
    published,
    saved_model,
)

BACKBONES_TEXT = """
The values of `--backbone`. The size in pixels is the one that the backbone was trained with;
`--image-px` overrides it. Channels are those of the last feature map, which pooling converts to the
head's input. The default cut is where strategy `top` starts. `regraft inspect NAME` shows the
layers and their costs.

The weights are trained on ImageNet, and Keras downloads them once, except for these:
"""
NOTE = "<!-- Written by docs/reference_pages.py from the code; do not edit. -->"
MANIFEST_MODULES = (
    manifest_storage, dataset, features, model, evaluation, saved_model, parity, published,
)  # fmt: skip
DEFAULT = re.compile(r"\(default: (.*)\)$")
RECIPE_TEXT = """
All options of a run, as keys of a YAML file. They are also options of `regraft run`: underscores
become dashes, and `sources` and `mirrors` become `--source` and `--mirror`, which can be repeated.
An unknown key, or a value out of range, is an error before anything is read. `regraft init` writes
a recipe for a folder of images. `regraft recipe-schema` prints all keys as JSON Schema, with which
editors complete and check recipes.
"""


def write_pages(folder: Path) -> None:
    """Write all pages of the reference, except those that are up to date."""
    from regraft.cli.main import app

    pages = {
        "cli.md": cli_page(app),
        "python.md": python_page(NOTE),
        "recipe.md": recipe_page(app),
        "manifests.md": manifests_page(),
        "backbones.md": backbones_page(),
        "messages.md": messages_page(NOTE, collect_messages()),
        "metrics.md": metrics_page(NOTE),
        "exit-codes.md": exit_codes_page(NOTE),
        "environment.md": environment_page(NOTE),
        **{f"schemas/{kind.file_name}": schema_text(kind) for kind in manifest_kinds()},
    }
    for name, text in pages.items():
        page = folder / name
        page.parent.mkdir(parents=True, exist_ok=True)
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")


def cli_page(app: typer.Typer) -> str:
    """Return the page of all commands with their arguments and options."""
    group: Any = typer.main.get_command(app)
    lines = [NOTE, "# The command line", "", _flowing(group.help), ""]
    lines += [*_paragraphs(CODES), "", "Options of `regraft` itself, before the command:", ""]
    lines += _options(group.params)
    first_with: dict[str, str] = {}
    for name, command in group.commands.items():
        lines += ["", f"## {name}", "", *_command_help(command.help)]
        by_panel: dict[str, list[Any]] = {}
        for parameter in command.params:
            if not parameter.hidden:
                by_panel.setdefault(parameter.rich_help_panel or "", []).append(parameter)
        for panel, parameters in by_panel.items():
            table = _options(parameters)
            first = first_with.setdefault("\n".join(table), name)
            lines += ["", *([f"**{panel}**", ""] if panel else [])]
            lines += table if first == name else [f"The options of [{first}](#{first})."]
    return "\n".join(lines) + "\n"


def recipe_page(app: typer.Typer) -> str:
    """Return the page of a recipe's keys, with the headings of `regraft run --help`."""
    group: Any = typer.main.get_command(app)
    by_panel: dict[str, list[str]] = {}
    for parameter in group.commands["run"].params:
        if field := Recipe.model_fields.get(parameter.name):
            rows = by_panel.setdefault(parameter.rich_help_panel, [])
            rows.append(_key_row(parameter.name, field))
    lines = [NOTE, "# Recipe", "", *_paragraphs(RECIPE_TEXT), ""]
    for panel, rows in by_panel.items():
        lines += [f"## {panel}", "", "| key | values | default | meaning |", "|---|---|---|---|"]
        lines += [*rows, ""]
    return "\n".join(lines)


def manifests_page() -> str:
    """Return the page of the manifests and their parts, with the docstrings of the code."""
    parts = [kind for kind in _records() if not issubclass(kind, manifest_storage.Manifest)][1:]
    lines = [NOTE, "# Manifests", "", *_paragraphs(manifests.__doc__), ""]
    lines += ["## In every manifest", "", *_fields(manifest_storage.Manifest, BaseModel), ""]
    for kind in manifest_kinds():
        schema = f"{{download}}`Its JSON Schema <schemas/{kind.file_name}>`."
        lines += [f"## {kind.__name__}", "", *_paragraphs(kind.__doc__), "", schema, ""]
        lines += [*_fields(kind, manifest_storage.Manifest), ""]
    lines += ["## Parts", ""]
    for kind in parts:
        lines += [f"### {kind.__name__}", "", *_paragraphs(kind.__doc__), ""]
        lines += [*_fields(kind, manifest_storage.Record), ""]
    return "\n".join(lines)


def manifest_kinds() -> list[type[manifest_storage.Manifest]]:
    """Return the manifests that have a file."""
    return [
        kind
        for kind in _records()
        if issubclass(kind, manifest_storage.Manifest) and hasattr(kind, "file_name")
    ]


def schema_text(kind: type[manifest_storage.Manifest]) -> str:
    """Return the JSON Schema of a manifest."""
    return json.dumps(kind.model_json_schema(), indent=2) + "\n"


def _records() -> list[type[manifest_storage.Record]]:
    """Return the manifests and their parts, in the order of the modules."""
    return [
        value
        for module in MANIFEST_MODULES
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, manifest_storage.Record)
        and value.__module__ == module.__name__
    ]


def backbones_page() -> str:
    """Return the table of backbones."""
    lines = [NOTE, "# Backbones", "", *_paragraphs(BACKBONES_TEXT), ""]
    others = [row for row in BACKBONES.values() if row.weights_from != KERAS]
    lines += [f"- `{row.name}`: {_cell(row.weights_from)}" for row in others]
    lines += ["", "| name | px | smallest px | channels | default cut | license of the weights |",
              "|---|---|---|---|---|---|"]  # fmt: skip
    for row in BACKBONES.values():
        sizes = (str(size) for size in (row.image_px, row.min_px, row.width))
        lines.append(_row(f"`{row.name}`", *sizes, f"`{row.cut}`", row.license))
    return "\n".join(lines) + "\n"


def _command_help(text: str | None) -> Iterator[str]:
    """Yield a command's help; the text after `Example:` becomes a code block."""
    for paragraph in inspect.cleandoc(text or "").split("\n\n"):
        if paragraph.startswith("Example:"):
            yield from ("```sh", _flowing(paragraph.removeprefix("Example:")), "```", "")
        else:
            yield from (_flowing(paragraph), "")


def _options(parameters: Iterable[Any]) -> list[str]:
    """Return the table of a command's arguments and options."""
    rows = [
        _row(_names(p), _flowing(DEFAULT.sub("", p.help or "")), _default(p))
        for p in parameters
        if not p.hidden
    ]
    return ["| option | meaning | default |", "|---|---|---|", *rows]


def _names(parameter: Any) -> str:
    if not parameter.opts[0].startswith("-"):
        many = "..." if parameter.nargs == -1 else ""
        name = f"{(parameter.metavar or parameter.name).upper()}{many}"
        return f"`{name}`" if parameter.required else f"`[{name}]`"
    return ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))


def _default(parameter: Any) -> str:
    """Return the default; options that are recipe keys have it in their help."""
    if parameter.required:
        return "required"
    if found := DEFAULT.search(parameter.help or ""):
        return f"`{found[1]}`"
    flag = getattr(parameter, "is_flag", False) and not parameter.secondary_opts
    if flag or parameter.default in (None, "", [], (), False) or not parameter.show_default:
        return ""
    return f"`{parameter.default}`"


def _key_row(name: str, field: FieldInfo) -> str:
    values = " ".join((_type(field.annotation), _range(field))).strip()
    return _row(f"`{name}`", values, _optional(field) or "required", field.description or "")


def _range(field: FieldInfo) -> str:
    """Return the limits of a value, as `above 0, at most 1`."""
    words = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    limits = {name: getattr(rule, name) for rule in field.metadata for name in words
              if getattr(rule, name, None) is not None}  # fmt: skip
    texts = {name: f"{value:,}" if isinstance(value, int) else f"{value:g}"
            for name, value in limits.items()}  # fmt: skip
    return ", ".join(f"{words[name]} {texts[name]}" for name in words if name in texts)


def _fields(kind: type[BaseModel], parent: type[BaseModel]) -> list[str]:
    """Return the table of the fields that `kind` adds to `parent`."""
    own = {n: f for n, f in kind.model_fields.items() if n not in parent.model_fields}
    rows = [
        _row(f"`{name}`", _type(field.annotation), _optional(field), field.description or "")
        for name, field in own.items()
    ]
    return ["| field | type | default | meaning |", "|---|---|---|---|", *rows]


def _optional(field: FieldInfo) -> str:
    return "" if field.is_required() else _value(field.get_default(call_default_factory=True))


def _value(value: Any) -> str:
    if value in ("", (), [], {}):
        return "empty"
    if isinstance(value, tuple):
        return ", ".join(f"`{one}`" for one in value)
    return f"`{value}`"


def _type(hint: Any) -> str:
    """Return a type in words, with links to parts on the same page."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return ", ".join(f"`{choice}`" if choice else "empty" for choice in arguments)
    if origin in (list, tuple):
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return f"map of {_type(arguments[0])} to {_type(arguments[1])}"
    if origin is Union or type(hint).__name__ == "UnionType":
        return " or ".join(_type(one) for one in arguments)
    if hasattr(hint, "__metadata__"):
        limits = (_range(one) for one in hint.__metadata__ if isinstance(one, FieldInfo))
        return " ".join((_type(arguments[0]), *filter(None, limits)))
    if inspect.isclass(hint) and issubclass(hint, manifest_storage.Record):
        return f"[{hint.__name__}](#{hint.__name__.lower()})"
    names = {str: "text", float: "number", int: "whole number", bool: "true or false",
             type(None): "null", Any: "any"}  # fmt: skip
    return names.get(hint, str(hint))


def _row(*cells: str) -> str:
    return f"| {' | '.join(_cell(cell) for cell in cells)} |"


def _cell(text: str) -> str:
    """Return a text with the characters of tables and HTML escaped, except in code."""
    parts = text.replace("|", "\\|").split("`")
    parts[::2] = [part.replace("<", "&lt;") for part in parts[::2]]
    return "`".join(parts)


def _paragraphs(text: str | None) -> Sequence[str]:
    return inspect.cleandoc(text or "").split("\n")


def _flowing(text: str | None) -> str:
    """Return a text in one line."""
    return re.sub(r"\s+", " ", text or "").strip()
