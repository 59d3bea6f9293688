"""The option `--ray` of the commands whose work Ray can share."""

from __future__ import annotations

from typing import Annotated

import typer

RayOption = Annotated[
    str,
    typer.Option(
        "--ray",
        help="Ray cluster that shares the work: `local` starts one on this machine, `auto` uses "
        "the one that runs here, or ray://HOST:PORT. Empty: none.",
    ),
]
