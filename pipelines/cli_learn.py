"""The commands to learn from: what a pretrained model sees, and what it is made of."""

from __future__ import annotations

from typing import Annotated

import typer

from components.core.errors import InputError


def classify(
    pictures: Annotated[list[str], typer.Argument(help="Pictures, folders of them or addresses.")],
    backbone: Annotated[
        str, typer.Option(help="Pretrained model that has ImageNet's 1000 classes.")
    ] = "efficientnet_lite0",
    weights: Annotated[
        str, typer.Option(help="imagenet, or a file with the weights of the model and its top.")
    ] = "imagenet",
    top: Annotated[int, typer.Option(min=1, max=1000, help="Classes to show a picture.")] = 5,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False,
) -> None:
    """Say what a pretrained model sees in pictures, by ImageNet's 1000 classes.

    Nothing is trained. The weights of efficientnet_lite0 are installed; those of the other models
    are downloaded once by Keras.

    Example: regraft classify cat.png --backbone efficientnet_lite0 --top 3
    """
    from pipelines.classification import classify_pictures
    from pipelines.presentation import counting, print_classified, print_json

    with counting("pictures") as progress:
        found = classify_pictures(pictures, backbone, weights, top, progress)
    if json:
        print_json([one.as_json() for one in found])
    else:
        print_classified(found)
    refused = [one for one in found if one.error]
    if refused:
        raise InputError(f"{len(refused)} of {len(found)} pictures were refused, the first: "
                         f"{refused[0].picture}: {refused[0].error}")  # fmt: skip
