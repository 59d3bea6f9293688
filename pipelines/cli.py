"""The `regraft` command. Heavy imports happen inside the commands, so that `--help` is instant."""

from __future__ import annotations

import os
import sys
import traceback
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from components.core.errors import InputError, RegraftError, RejectedError
from pipelines.cli_learn import classify
from pipelines.cli_options import RecipeArgument, with_recipe_options

app = typer.Typer(
    name="regraft",
    help="Transfer learning for pictures: from a folder to a served, proven model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

HARDWARE_HELP = "Nodes that the steps ask for: cpu, nvidia, gke or eks; any if not given."
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
    recipe: RecipeArgument = None,
    runner: Annotated[str, typer.Option(help="subprocess, or docker: the image.")] = "subprocess",
    json: JsonFlag = False,
) -> None:
    """Run the whole pipeline on this machine.

    Options stand in place of the recipe's.

    Example: regraft run digits --out runs/digits --min-accuracy 0.95
    """
    from pipelines.local import run_locally
    from pipelines.preflight import check_backbone
    from pipelines.presentation import print_summary
    from pipelines.recipe import make_recipe
    from pipelines.recipe_file import with_recipe

    values = with_recipe(recipe, values)
    values.setdefault("destination", str((out / "models").absolute()))
    values.setdefault("work_dir", str((out / "work").absolute()))
    whole = make_recipe(**values)
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


@app.command("compile")
@with_recipe_options
def compile_(
    values: dict[str, Any],
    output: Annotated[Path, typer.Option("-o", "--output", help="The IR file to write.")],
    recipe: RecipeArgument = None,
    hardware: Annotated[str, typer.Option(help=HARDWARE_HELP)] = "",
) -> None:
    """Write the pipeline's intermediate representation for Kubeflow.

    The recipe and the options that are given become the defaults of the pipeline's parameters.

    Example: regraft compile digits -o pipeline.yaml --hardware gke
    """
    from pipelines.compilation import compile_pipeline
    from pipelines.hardware import find_preset
    from pipelines.recipe_file import with_recipe

    values = with_recipe(recipe, values)
    compile_pipeline(values, output, find_preset(hardware) if hardware else None)
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
    from pipelines.recipe_file import with_recipe

    values = with_recipe(None, {"sources": sources, **values})
    manifest = ingest_step(values.pop("sources"), out, checked(IngestOptions, **values))
    counts = ", ".join(f"{name} {split.count}" for name, split in manifest.splits.items())
    print(f"{out}: {len(manifest.classes)} classes, {counts}")


@app.command()
def report(
    run_dir: Annotated[Path, typer.Argument(help="Folder of a run, or of an evaluation.")],
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="Open the page.")] = True,
) -> None:
    """Rebuild the report of a run from its figures, and open it.

    Example: regraft report runs/digits
    """
    from components.evaluate.report import rebuild_report

    page = rebuild_report(run_dir).absolute()
    print(page)
    if open_page and sys.stdout.isatty():
        webbrowser.open(page.as_uri())


@app.command()
def serve(
    base_dir: Annotated[Path, typer.Argument(help="What was published to; every model below.")],
    engine: Annotated[
        str, typer.Option(help="auto, embedded, tensorflow_model_server or docker.")
    ] = "auto",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of gRPC; 0 is a free one.")] = 8500,
    rest_api_port: Annotated[int, typer.Option(help="Port of REST; 0 is a free one.")] = 8501,
    batching: Annotated[bool, typer.Option(help="Join requests of the same moment.")] = True,
    page: Annotated[bool, typer.Option("--page", help="Offer a page to try the model.")] = False,
) -> None:
    """Serve published models by TF Serving's protocol, until it is interrupted.

    Example: regraft serve runs/digits/models --page
    """
    from serving.runner import ServeOptions
    from serving.serve import serve as run_server

    options = ServeOptions(host=host, port=port, rest_api_port=rest_api_port)
    raise typer.Exit(run_server(base_dir, engine, options, batching=batching, page=page))


@app.command()
def predict(
    pictures: Annotated[list[Path], typer.Argument(help="Pictures, or folders of them.")],
    server: Annotated[str, typer.Option(help="grpc://host:port or http://host:port.")],
    model: Annotated[str, typer.Option(help="Name of the model.")] = "regraft",
    version: Annotated[int | None, typer.Option(help="Version to ask; the newest.")] = None,
    label: Annotated[str | None, typer.Option(help="Label to ask, as stable or canary.")] = None,
    concurrency: Annotated[int, typer.Option(help="Requests at a time.")] = 16,
    timeout_s: Annotated[float, typer.Option(help="Seconds for each request.")] = 60.0,
    json: JsonFlag = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of a table.")] = False,
) -> None:
    """Ask a server about pictures.

    Example: regraft predict ./pictures --server grpc://127.0.0.1:8500 --model digits
    """
    from pipelines.presentation import counting, print_predictions
    from serving.client.folder import PredictOptions, as_csv, as_json, predict_files

    options = PredictOptions(
        concurrency=concurrency, timeout_s=timeout_s, version=version, label=label
    )
    with counting("pictures") as progress:
        results = predict_files(pictures, server, model, options, progress)
    if json or csv:
        print(as_json(results) if json else as_csv(results), end="" if csv else "\n")
    else:
        print_predictions(results)
    refused = [result for result in results if result.prediction is None]
    if refused:
        raise InputError(f"{len(refused)} of {len(results)} pictures were refused, the first: "
                         f"{refused[0].path}: {refused[0].error}")  # fmt: skip


@app.command()
def publish(
    destination: Annotated[str, typer.Argument(help="Folder or bucket of published models.")],
    model: Annotated[str, typer.Option(help="Name of the model.")],
    saved_model: Annotated[Path | None, typer.Option(help="Exported model to publish.")] = None,
    label: Annotated[str, typer.Option(help="stable or canary: label the version.")] = "",
    version: Annotated[int | None, typer.Option(help="Version to label or to go back to.")] = None,
    rollback: Annotated[bool, typer.Option("--rollback", help="Withdraw the newest.")] = False,
    keep_last: Annotated[int, typer.Option(help="Versions that stay; 0 keeps all.")] = 0,
) -> None:
    """Publish an exported model, label a version, or roll back.

    Example: regraft publish runs/digits/models --model digits --label stable --version 1
    """
    from serving import publish as publishing

    if sum((rollback, saved_model is not None)) > 1 or (rollback and label):
        raise InputError("expected one of --saved-model, --rollback and --label alone")
    if saved_model is not None:
        done = publishing.publish_saved_model(
            saved_model, destination, model, label=label, keep_last=keep_last
        )
    elif rollback:
        done = publishing.rollback(destination, model, version)
    elif label:
        done = publishing.set_label(destination, model, label, version)
    else:
        raise InputError("expected --saved-model, --label or --rollback")
    print(f"{model} version {done.number} at {done.path}")


app.command()(classify)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; end with the exit codes of `components.core.errors`."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's notes are no answers
    try:
        code = app(arguments, standalone_mode=False)
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
