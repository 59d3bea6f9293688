"""The commands for a run on this machine: the whole pipeline, one dataset, or the report."""

from __future__ import annotations

import sys
import webbrowser
from pathlib import Path
from typing import Annotated, Any

import typer

from regraft.cli.options.completion import complete_recipes
from regraft.cli.options.json_flag import JsonFlag
from regraft.cli.options.ray_option import RayOption
from regraft.cli.options.recipe_options import with_recipe_options
from regraft_core.runtime.errors import InputError, RejectedError


@with_recipe_options
def run(
    values: dict[str, Any],
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="A recipe (its name or YAML file), or images: a folder with one subfolder per "
            "class, an archive, a table, a URL, a sample or another form of data.",
            autocompletion=complete_recipes,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the run: summary, report, log, models. (default: runs/NAME of the "
            "recipe or folder)",
            show_default=False,
        ),
    ] = None,
    runner: Annotated[
        str, typer.Option(help="Run the steps as `subprocess`, or in containers with `docker`.")
    ] = "subprocess",
    ray: RayOption = "",
    json: JsonFlag = False,
) -> None:
    """Run the whole pipeline on this machine.

    Options override the recipe. Images without a recipe use the defaults that `regraft init`
    would write for them.

    Example: regraft run digits --min-accuracy 0.95
    """
    from pipelines.local.prepare_recipe import prepare_recipe
    from pipelines.local.run import run_locally
    from pipelines.recipes.recipe_choice import choose_options
    from regraft.cli.console_output import print_json, print_note, print_summary

    chosen = choose_options(recipe, values)
    out = out or Path("runs") / chosen.name
    prepared = prepare_recipe(chosen.values, out, runner)
    if chosen.note:
        print_note(chosen.note)
    summary = run_locally(prepared, out, runner=runner, ray=ray)
    if json:
        print_json(summary.model_dump(mode="json"))
    else:
        print_summary(summary)
    if summary.verdict == "rejected":
        failed = [check for check in summary.reasons if not check.passed]
        raise RejectedError("; ".join(
            f"{check.name}: expected {check.expected}, got {check.received}" for check in failed
        ))  # fmt: skip


@with_recipe_options(only="ingest")
def ingest(
    values: dict[str, Any],
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Images: folders, archives, tables, URLs, patterns of shards, samples."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write the dataset to.")],
) -> None:
    """Turn images into a checked dataset, and stop there.

    Example: regraft ingest ./images --out runs/dataset
    """
    from components.ingest.ingest import ingest as ingest_step
    from pipelines.recipes.recipe_file import with_recipe
    from regraft.cli.console_output import print_line, progress_on_stderr
    from regraft_core.formats.option_parsing import parse_options
    from regraft_core.formats.options.ingest import IngestOptions

    values = with_recipe(None, {"sources": sources, **values})
    with progress_on_stderr():
        manifest = ingest_step(values.pop("sources"), out, parse_options(IngestOptions, **values))
    counts = ", ".join(f"{name} {split.count}" for name, split in manifest.splits.items())
    print_line(f"{out}: {len(manifest.classes)} classes, {counts}")


def report(
    run_dir: Annotated[
        Path, typer.Argument(help="Folder of a run, of an evaluation, or of a request log.")
    ],
    open_page: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in a browser.")
    ] = True,
    screenshot: Annotated[
        Path | None,
        typer.Option(help="PNG file to write an image of the report to; needs Chromium."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="CSV file with the columns sha256 and label, for a request log."),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Rebuild the report of a run from its metrics, and open it.

    For the folder of a request log, compare the version that answered the requests with the shadow
    version.

    Example: regraft report runs/digits
    """
    from regraft_core.formats.request_log import log_files

    if log_files(run_dir):
        from regraft.cli.request_log import report_request_log

        if screenshot is not None:
            raise InputError("--screenshot: expected the folder of a run, got a request log")
        report_request_log(run_dir, labels, json)
        return
    if labels is not None or json:
        option = "--json" if labels is None else "--labels"
        raise InputError(f"{option}: expected the folder of a request log, got {run_dir}")
    from components.evaluate.report.report import rebuild_report
    from regraft.cli.console_output import print_line
    from regraft.cli.screenshot import capture_page

    page = rebuild_report(run_dir).absolute()
    print_line(page)
    if screenshot is not None:
        capture_page(page, screenshot)
        print_line(screenshot)
    if open_page and sys.stdout.isatty():
        webbrowser.open(page.as_uri())
