"""Command-line options made from the option models, which define and explain each option once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args, get_origin, overload

import typer
from pydantic.fields import FieldInfo

from pipelines.recipes.recipe import OPTION_FIELDS, Recipe
from regraft.cli.options.completion import complete_backbones, complete_recipes, completing
from regraft_core.formats.options.evaluate import GateOptions
from regraft_core.formats.options.export import ExportOptions
from regraft_core.formats.options.extract_features import FeatureOptions
from regraft_core.formats.options.fine_tune import FineTuneOptions
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.formats.options.option_types import Options
from regraft_core.formats.options.publish import PublishOptions
from regraft_core.formats.options.train_head import HeadOptions
from regraft_core.formats.options.verify import VerifyOptions

Command = Callable[..., None]
RecipeArgument = Annotated[
    str | None,
    typer.Argument(
        help="A recipe: a YAML file, or the name of a built-in one such as digits.",
        autocompletion=complete_recipes,
    ),
]
_LISTS = {"sources": "--source", "mirrors": "--mirror"}
_PANELS: dict[str, type[Options]] = {
    "Ingest": IngestOptions,
    "Features": FeatureOptions,
    "Head": HeadOptions,
    "Fine-tuning": FineTuneOptions,
    "Gate": GateOptions,
    "Export": ExportOptions,
    "Verification": VerifyOptions,
    "Publication": PublishOptions,
}


@overload
def with_recipe_options(command: Command) -> Command: ...
@overload
def with_recipe_options(*, only: Literal["ingest"]) -> Callable[[Command], Command]: ...
def with_recipe_options(command: Command | None = None, *, only: str = "") -> Any:
    """Add the recipe's options to a command, which receives those that are set as dict `values`.

    Args:
        command: the command, if this is used as a plain decorator.
        only: `ingest` adds the options of that step only.
    """
    headings = ["Run", *_PANELS]
    names = list(IngestOptions.model_fields) if only else sorted(
        ("workers", *OPTION_FIELDS), key=lambda name: headings.index(_panel(name))
    )  # fmt: skip

    def decorate(function: Command) -> Command:
        return _with_options(function, names)

    return decorate(command) if command is not None else decorate


def _with_options(function: Command, names: list[str]) -> Command:
    own = [p for p in inspect.signature(function, eval_str=True).parameters.values()
           if p.name != "values"]  # fmt: skip
    added = [_parameter(name, Recipe.model_fields[name]) for name in names]

    def command(**arguments: Any) -> None:
        values = {name: arguments.pop(name) for name in names if name in arguments}
        function({k: _parsed(k, v) for k, v in values.items() if v not in (None, [])}, **arguments)

    command.__name__, command.__doc__ = function.__name__, function.__doc__
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + added
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    """Return the option of one field; None if it is not set, so that the recipe's value is used."""
    flag = _LISTS.get(name, f"--{name.replace('_', '-')}")
    kind = field.annotation if field.annotation in (int, float, bool) else str
    flags = [f"{flag}/--no-{flag[2:]}"] if kind is bool else [flag]
    option = typer.Option(
        *flags,
        help=_help(field),
        show_default=False,
        rich_help_panel=_panel(name),
        autocompletion=complete_backbones if name == "backbone" else completing(_choices(field)),
    )
    hint = list[str] if name in _LISTS else kind
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[hint | None, option],
    )


def _panel(name: str) -> str:
    """Return the heading of an option in the help: the first step that has it."""
    for heading, options in _PANELS.items():
        if name in options.model_fields:
            return heading
    return "Run"


def _help(field: FieldInfo) -> str:
    """Return the description of a field with its choices and its default."""
    choices = [choice for choice in _choices(field) if choice]
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    if isinstance(default, tuple):
        default = ",".join(map(str, default))
    parts = [field.description or "", f"One of {', '.join(choices)}." if choices else "",
             f"(default: {default})" if default not in (None, "", {}) else ""]  # fmt: skip
    return " ".join(part for part in parts if part)


def _choices(field: FieldInfo) -> list[str]:
    """Return the possible values of a field, if they are names."""
    is_choice = get_origin(field.annotation) is Literal
    return [str(value) for value in get_args(field.annotation)] if is_choice else []


def _parsed(name: str, value: Any) -> Any:
    """Split the comma-separated options; the model checks the rest."""
    if get_origin(Recipe.model_fields[name].annotation) is tuple and isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value
