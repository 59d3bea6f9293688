"""The `regraft` command. Heavy imports happen inside the commands, so that `--help` is instant."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer

from components.core.errors import RegraftError, RejectedError
from pipelines.cli_options import with_recipe_options

app = typer.Typer(
    name="regraft",
    help="Transfer learning for pictures: from a folder to a served, proven model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of text.")]


def _version(wanted: bool) -> None:
    if wanted:
        from components.core.version import VERSION

        print(VERSION)
        raise typer.Exit


@app.callback()
def _global(
    debug: Annotated[bool, typer.Option(help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    _ = debug, version


@app.command()
@with_recipe_options
def run(
    values: dict[str, Any],
    out: Annotated[Path, typer.Option(help="Folder of the run: summary, steps, log.")],
    json: JsonFlag = False,
) -> None:
    """Run the whole pipeline on this machine.

    Example: regraft run --source sample:digits --backbone efficientnet_lite0 --image-px 64
    --out runs/digits
    """
    from pipelines.local import run_locally
    from pipelines.preflight import check_backbone
    from pipelines.presentation import print_summary
    from pipelines.recipe import make_recipe

    values.setdefault("destination", str((out / "models").absolute()))
    recipe = make_recipe(**values)
    check_backbone(recipe)
    summary = run_locally(recipe, out)
    if json:
        print(summary.model_dump_json(indent=2))
    else:
        print_summary(summary)
    if summary.verdict == "rejected":
        failed = [check for check in summary.reasons if not check.passed]
        raise RejectedError("; ".join(
            f"{check.name}: expected {check.expected}, got {check.received}" for check in failed
        ))  # fmt: skip


@app.command("compile")
@with_recipe_options
def compile_(
    values: dict[str, Any],
    output: Annotated[Path, typer.Option("-o", "--output", help="The IR file to write.")],
) -> None:
    """Write the pipeline's intermediate representation for Kubeflow.

    Options that are given become the defaults of the pipeline's parameters.

    Example: regraft compile -o pipeline.yaml
    """
    from pipelines.compilation import compile_pipeline

    compile_pipeline(values, output)
    print(output)


@app.command()
@with_recipe_options(only="ingest")
def ingest(
    values: dict[str, Any],
    sources: Annotated[list[str], typer.Argument(help="Folders, archives, links or samples.")],
    out: Annotated[Path, typer.Option(help="Folder of the dataset.")],
) -> None:
    """Turn pictures into a checked dataset, without the rest of the pipeline.

    Example: regraft ingest ./pictures --out runs/dataset
    """
    from components.core.options import IngestOptions, checked
    from components.ingest.ingest import ingest as ingest_step

    manifest = ingest_step(sources, out, checked(IngestOptions, **values))
    counts = ", ".join(f"{name} {split.count}" for name, split in manifest.splits.items())
    print(f"{out}: {len(manifest.classes)} classes, {counts}")


def main() -> None:
    """Run the command line; end with the exit codes of `components.core.errors`."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's notes are no answers
    try:
        code = app(standalone_mode=False)
    except RegraftError as error:
        code = _fail(error, error.exit_code)
    except typer.TyperException as error:
        code = _fail(_usage(error), 2)
    except (KeyboardInterrupt, typer.Abort):
        code = _fail("interrupted", 1)
    except Exception as error:
        code = _fail(f"{type(error).__name__}: {error} (--debug shows the traceback)", 1)
    sys.exit(code if isinstance(code, int) else 0)


def _usage(error: typer.TyperException) -> str:
    """Return a usage error's text, with the command whose help says more."""
    text = getattr(error, "format_message", lambda: str(error))()
    context = getattr(error, "ctx", None)
    return f"{text} See '{context.command_path} --help'." if context else text


def _fail(message: object, code: int) -> int:
    """Print one line; the traceback before it when `--debug` was given."""
    if "--debug" in sys.argv:
        traceback.print_exc()
    print(f"regraft: error: {' '.join(str(message).split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
