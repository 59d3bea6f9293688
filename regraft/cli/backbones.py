"""The command that lists the backbones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from regraft.cli.options.completion import complete_backbones
from regraft.cli.options.json_flag import JsonFlag
from regraft_core.formats.options.extract_features import FeatureOptions

if TYPE_CHECKING:
    from regraft.explore.backbone_list import BackboneFacts


def backbones(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Backbones to list: names, hub: and the name or folder of a KerasHub preset, or "
            "files; all names if none is given.",
            autocompletion=complete_backbones,
        ),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure those whose weights are on this machine.")
    ] = False,
    scaling: Annotated[
        str, typer.Option(help=FeatureOptions.model_fields["scaling"].description)
    ] = "auto",
    json: JsonFlag = False,
) -> None:  # fmt: skip
    """List the backbones with their size, license and speed.

    "here" is whether their weights are on this machine. The milliseconds per image are those that
    --measure has measured on this machine, in batches of 16 images and float32.

    Example: regraft backbones efficientnet_lite0 vgg16 --measure
    """
    from regraft.cli.console_output import print_json, progress_bar
    from regraft.explore.backbone_list import list_backbones

    with progress_bar("backbones") as progress:
        found = list_backbones(names or [], scaling, measure=measure, progress=progress)
    if json:
        print_json([one.as_json() for one in found])
    else:
        _print(found)


def _print(found: Sequence[BackboneFacts]) -> None:
    from regraft.cli.console_output import add_row, console, table

    shown = table(
        "backbone", "px", "parameters", "ms", "here", "license", "weights", numbers=(1, 2, 3)
    )
    for one in found:
        numbers = (
            "" if one.image_px is None else str(one.image_px),
            "" if one.parameters is None else f"{one.parameters / 1e6:.3g} M",
            "" if one.image_ms is None else f"{one.image_ms:.2f}",
        )
        here = "yes" if one.here else "no"
        add_row(shown, one.name, *numbers, here, one.license, one.weights_from)
    console().print(shown)
