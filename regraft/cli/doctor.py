"""The commands about the machine: whether it can run Regraft, and how fast it does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regraft.cli.benchmarks import BENCHMARKS, run_benchmark
from regraft.cli.completion import offered

# A benchmark has options of its own, and `--help` after its name is the benchmark's.
PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def doctor(
    runs_dir: Annotated[Path, typer.Option(help="Folder that runs would be written to.")] = Path(
        "runs"
    ),
    json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False,
) -> None:
    """Look whether this machine can run Regraft; tell a remedy for each lack.

    The exit code is 0 where it can, with or without remarks, and 1 where it cannot.

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
            help="One of: " + ", ".join(BENCHMARKS) + ".",
            autocompletion=offered(BENCHMARKS),
        ),
    ],
) -> None:
    """Measure one part of Regraft and write the figures as JSON.

    Each benchmark has options of its own: regraft bench NAME --help.

    Example: regraft bench evaluation --json evaluation.json
    """
    if name in ("-h", "--help"):
        print(context.get_help())
        return
    run_benchmark(name, context.args)
