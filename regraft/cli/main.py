"""The `regraft` command: first steps, global options, errors and exit codes."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from regraft.cli.commands import CommandGroup
from regraft.cli.windows_paths import check_paths
from regraft.safe_path import ignore_current_folder
from regraft_client.errors import InvalidInputError, RegraftClientError
from regraft_core.runtime.errors import RegraftError
from regraft_core.runtime.printable import one_line

app = typer.Typer(
    name="regraft",
    cls=CommandGroup,
    help="Transfer learning for images: from a folder to a verified, served model.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

FIRST_STEPS = """\
Regraft trains image classifiers by transfer learning: it adds a new head to a
pretrained model, fine-tunes it on your images, tests, publishes and serves it.

First steps:

  regraft doctor                      check that this machine can run Regraft
  regraft classify IMAGE              classify an image with a pretrained model
  regraft run digits                  train on 1,797 digits, test, publish
  regraft run FOLDER                  the same with your images, one subfolder
                                      per class
  regraft serve runs/digits/models    serve the published model

All commands: regraft --help. The help of each command has an example.
Tab completion for this shell: regraft --install-completion"""


def _version(requested: bool) -> None:
    if requested:
        from regraft_core.runtime.version import VERSION

        print(VERSION)
        raise typer.Exit


def _man(requested: bool) -> None:
    if requested:
        from regraft.cli.manual_page import manual_page

        print(manual_page(typer.main.get_command(app)), end="")
        raise typer.Exit


@app.callback()
def _global(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    man: Annotated[
        bool,
        typer.Option(
            "--man",
            callback=_man,
            is_eager=True,
            help="Print the manual page: regraft --man | man -l -",
        ),
    ] = False,
) -> None:
    _ = debug, version, man
    if context.invoked_subcommand is None:
        print(FIRST_STEPS)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; end with the exit codes of `regraft_core.runtime.errors`."""
    ignore_current_folder()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's notes are not results
    try:
        check_paths(sys.argv[1:] if arguments is None else arguments)
        code = app(arguments, prog_name="regraft", standalone_mode=False)
    except RegraftError as error:
        code = _fail(error, error.exit_code)
    except RegraftClientError as error:
        code = _fail(error, 2 if isinstance(error, InvalidInputError) else 1)
    except typer.TyperException as error:
        from regraft.cli.options.usage_errors import usage_error

        code = _fail(usage_error(error), 2)
    except (KeyboardInterrupt, typer.Abort):
        code = _fail("interrupted", 1)
    except Exception as error:
        code = _fail(f"{type(error).__name__}: {error} (--debug shows the traceback)", 1)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: object, code: int) -> int:
    """Print one line, after the traceback if `--debug` is given."""
    if "--debug" in sys.argv:
        traceback.print_exc()
    print(f"regraft: error: {one_line(message)}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
