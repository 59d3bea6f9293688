"""The commands by name. Each is imported when it is used, so that `regraft --help` is instant."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import typer
from typer.core import TyperGroup

from regraft.cli.help_page import HelpfulCommand, in_color

# Name: where the command is defined, and its line in `regraft --help`.
COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("local_run.run", "Run the whole pipeline on this machine."),
    "init": ("recipes.init", "Write a commented recipe for a folder of images."),
    "report": ("local_run.report", "Rebuild the report of a run from its metrics, and open it."),
    "review": ("review.review", "Review suspected problems in the data of a run."),
    "suggest": ("suggest.suggest", "Rank unlabeled images by how useful their labels would be."),
    "serve": ("serving.serve", "Serve published models over gRPC and REST."),
    "predict": ("serving.predict", "Predict images with a served or a local model."),
    "publish": ("serving.publish", "Publish an exported model, label a version, or roll back."),
    "runs": ("runs.runs", "List the runs in a folder side by side."),
    "diff": ("runs.diff", "Compare two runs: options, data, head and metrics."),
    "drift": ("drift.drift", "Test whether the images that a model receives have changed."),
    "classify": ("explore.classify", "Classify images with a pretrained ImageNet model."),
    "backbones": ("backbones.backbones", "List the backbones with their size, license and speed."),
    "inspect": ("explore.inspect", "Show the layers, weights and cut points of a model."),
    "ingest": ("local_run.ingest", "Turn images into a checked dataset."),
    "doctor": ("doctor.doctor", "Check that this machine can run Regraft."),
    "bench": ("doctor.bench", "Measure one part of Regraft and write the results as JSON."),
    "compile": ("cluster.compile_", "Compile the pipeline into a file for Kubeflow Pipelines."),
    "submit": ("cluster.submit", "Run the pipeline on Kubeflow, now or on a schedule."),
    "gc": ("gc.gc", "Remove stored content that no run or version uses."),
    "estimate": ("estimate.estimate", "Estimate the time and the price of a larger run."),
    "recipe-schema": ("recipes.recipe_schema", "Print the JSON schema of recipes."),
}
# A benchmark has its own options and its own `--help`.
_SETTINGS: dict[str, dict[str, Any]] = {
    "bench": {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
}


class CommandGroup(TyperGroup):
    """The group of all commands; an unknown command gets suggestions."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands: Any = _LoadedCommands()

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands."""
        return list(COMMANDS)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command, or fail with suggestions."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            from pipelines.recipes.option_hints import suggest_commands
            from regraft.cli.options.usage_errors import with_suggestions

            similar = suggest_commands(name, COMMANDS)
            ctx.fail(with_suggestions(f"unknown command {name!r}", similar))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the lines of all commands, without importing them."""
        with formatter.section(in_color("Commands")):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


class _LoadedCommands(Mapping[str, Any]):
    """The commands by name, imported on access."""

    def __init__(self) -> None:
        self._load = functools.cache(_load)

    def __getitem__(self, name: str) -> Any:
        if name not in COMMANDS:
            raise KeyError(name)
        return self._load(name)

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


def _load(name: str) -> Any:
    module, _, function = COMMANDS[name][0].partition(".")
    command = getattr(importlib.import_module(f"regraft.cli.{module}"), function)
    paragraphs = (inspect.getdoc(command) or "").split("\n\n")
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    # In the help, only blank lines start a new line.
    text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    settings = _SETTINGS.get(name)
    app.command(name, cls=HelpfulCommand, help=text, context_settings=settings)(command)
    loaded: Any = typer.main.get_command(app)
    for parameter in loaded.params:
        if parameter.param_type_name == "option":
            parameter.metavar = ""  # the types take too much room
    return loaded
