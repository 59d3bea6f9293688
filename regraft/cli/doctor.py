"""The commands for this machine: check that it can run Regraft, and measure how fast."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regraft.cli.benchmarks import BENCHMARKS, run_benchmark
from regraft.cli.options.completion import completing
from regraft.cli.options.json_flag import JsonFlag


def doctor(
    runs_dir: Annotated[
        Path, typer.Option(help="Folder for runs, whose free disk space is checked.")
    ] = Path("runs"),
    json: JsonFlag = False,
) -> None:
    """Check that this machine can run Regraft; suggest a fix for each problem.

    The exit code is 0 if Regraft can run, perhaps with limits, and 1 if it cannot.

    Example: regraft doctor
    """
    from regraft.cli.console_output import print_diagnosis, print_json
    from regraft.diagnosis import diagnose

    found = diagnose(runs_dir)
    if json:
        print_json(found.as_json())
    else:
        print_diagnosis(found)
    raise typer.Exit(0 if found.usable else 1)


def bench(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            help="Benchmark to run: " + ", ".join(BENCHMARKS) + ".",
            autocompletion=completing(BENCHMARKS),
        ),
    ],
) -> None:
    """Measure one part of Regraft and write the results as JSON.

    Each benchmark has its own options: regraft bench NAME --help.

    Example: regraft bench evaluation --json evaluation.json
    """
    if name in ("-h", "--help"):
        print(context.get_help())
        return
    run_benchmark(name, context.args)
