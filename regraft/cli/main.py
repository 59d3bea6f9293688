"""The `regraft` command. Heavy imports happen inside the commands, so that `--help` is instant."""

from __future__ import annotations

import os
import sys
import traceback
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from shutil import get_terminal_size
from typing import Annotated, Any

import typer

from regraft.cli.cluster import compile_, submit
from regraft.cli.doctor import PASSED_ON, bench, doctor
from regraft.cli.estimate import estimate
from regraft.cli.explore import classify, inspect
from regraft.cli.recipe_options import RecipeArgument, with_recipe_options
from regraft.cli.recipes import init, recipe_schema
from regraft.cli.serving import predict, publish, serve
from regraft_client.errors import InvalidInputError, RegraftClientError
from regraft_core.runtime.errors import RegraftError, RejectedError

app = typer.Typer(
    name="regraft",
    help="Transfer learning for images: from a folder to a served, proven model.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

FIRST_STEPS = """\
Regraft grafts a new head on a pretrained model, fine-tunes it on your images,
lets it out only if it passes its tests, and serves it. What to type first:

  regraft doctor                         can this machine run it?
  regraft classify IMAGE               what a pretrained model sees, untrained
  regraft inspect efficientnet_lite0     what that model is made of
  regraft run digits --out runs/digits   train on 1,797 digits, test, publish
  regraft serve runs/digits/models       serve what was published

All commands: regraft --help. Each has its own help with an example.
Tab completion for this shell: regraft --install-completion"""
PANELS_WIDTH = 80
JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of text.")]


def _version(wanted: bool) -> None:
    if wanted:
        from regraft_core.runtime.version import VERSION

        print(VERSION)
        raise typer.Exit


@app.callback()
def _global(
    context: typer.Context,
    debug: Annotated[bool, typer.Option(help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    _ = debug, version
    if context.invoked_subcommand is None:
        print(FIRST_STEPS)


@app.command()
@with_recipe_options
def run(
    values: dict[str, Any],
    out: Annotated[Path, typer.Option(help="Folder of the run: summary, steps, log.")],
    recipe: RecipeArgument = None,
    runner: Annotated[str, typer.Option(help="subprocess, or docker: the image.")] = "subprocess",
    json: JsonFlag = False,
) -> None:
    """Run the whole pipeline on this machine.

    Options stand in place of the recipe's.

    Example: regraft run digits --out runs/digits --min-accuracy 0.95
    """
    from pipelines.local.run import run_locally
    from pipelines.preflight import check_backbone, check_destination
    from pipelines.recipes.recipe import make_recipe
    from pipelines.recipes.recipe_file import with_recipe
    from regraft.cli.console_output import print_summary
    from regraft_core.runtime.gpu_check import check_gpu

    values = with_recipe(recipe, values)
    values.setdefault("destination", str((out / "models").absolute()))
    values.setdefault("work_dir", str((out / "work").absolute()))
    whole = make_recipe(**values)
    if runner != "docker":  # the image has packages of its own
        check_destination(whole)
        check_gpu(whole.require_gpu)
    check_backbone(whole)
    summary = run_locally(whole, out, runner=runner)
    if json:
        print(summary.model_dump_json(indent=2))
    else:
        print_summary(summary)
    if summary.verdict == "rejected":
        failed = [check for check in summary.reasons if not check.passed]
        raise RejectedError("; ".join(
            f"{check.name}: expected {check.expected}, got {check.received}" for check in failed
        ))  # fmt: skip


@app.command()
@with_recipe_options(only="ingest")
def ingest(
    values: dict[str, Any],
    sources: Annotated[list[str], typer.Argument(help="Folders, archives, links or samples.")],
    out: Annotated[Path, typer.Option(help="Folder of the dataset.")],
) -> None:
    """Turn images into a checked dataset, without the rest of the pipeline.

    Example: regraft ingest ./images --out runs/dataset
    """
    from components.ingest.ingest import ingest as ingest_step
    from pipelines.recipes.recipe_file import with_recipe
    from regraft.cli.console_output import telling_progress
    from regraft_core.formats.options import IngestOptions, checked

    values = with_recipe(None, {"sources": sources, **values})
    with telling_progress():
        manifest = ingest_step(values.pop("sources"), out, checked(IngestOptions, **values))
    counts = ", ".join(f"{name} {split.count}" for name, split in manifest.splits.items())
    print(f"{out}: {len(manifest.classes)} classes, {counts}")


@app.command()
def report(
    run_dir: Annotated[Path, typer.Argument(help="Folder of a run, or of an evaluation.")],
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="Open the page.")] = True,
    screenshot: Annotated[
        Path | None, typer.Option(help="PNG file to draw the page's top into, by Chromium.")
    ] = None,
) -> None:
    """Rebuild the report of a run from its figures, and open it.

    Example: regraft report runs/digits
    """
    from components.evaluate.report.report import rebuild_report
    from regraft.cli.screenshot import capture_page

    page = rebuild_report(run_dir).absolute()
    print(page)
    if screenshot is not None:
        capture_page(page, screenshot)
        print(screenshot)
    if open_page and sys.stdout.isatty():
        webbrowser.open(page.as_uri())


app.command()(serve)
app.command()(predict)
app.command()(publish)
app.command()(classify)
app.command()(inspect)
app.command()(doctor)
app.command(context_settings=PASSED_ON)(bench)
app.command("compile")(compile_)
app.command()(submit)
app.command()(estimate)
app.command()(init)
app.command("recipe-schema")(recipe_schema)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; end with the exit codes of `regraft_core.runtime.errors`."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's notes are no answers
    # The help in panels cuts names of options short where there is little room.
    app.rich_markup_mode = "rich" if get_terminal_size().columns >= PANELS_WIDTH else None
    try:
        code = app(arguments, prog_name="regraft", standalone_mode=False)
    except RegraftError as error:
        code = _fail(error, error.exit_code)
    except RegraftClientError as error:
        code = _fail(error, 2 if isinstance(error, InvalidInputError) else 1)
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
    return f"{text.rstrip('.')}. See '{context.command_path} --help'." if context else text


def _fail(message: object, code: int) -> int:
    """Print one line; the traceback before it when `--debug` was given."""
    if "--debug" in sys.argv:
        traceback.print_exc()
    print(f"regraft: error: {' '.join(str(message).split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
