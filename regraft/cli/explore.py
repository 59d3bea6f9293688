"""The commands to learn from: what a pretrained model sees, and what it is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regraft.cli.completion import backbones, offered
from regraft_core.runtime.errors import InputError


def classify(
    images: Annotated[list[str], typer.Argument(help="Images, folders of them or addresses.")],
    backbone: Annotated[
        str,
        typer.Option(
            help="Pretrained model that has ImageNet's 1000 classes.", autocompletion=backbones
        ),
    ] = "efficientnet_lite0",
    weights: Annotated[
        str, typer.Option(help="imagenet, or a file with the weights of the model and its top.")
    ] = "imagenet",
    top_k: Annotated[int, typer.Option(min=1, max=1000, help="Classes to show an image.")] = 5,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False,
) -> None:
    """Say what a pretrained model sees in images, by ImageNet's 1000 classes.

    Nothing is trained. The weights of efficientnet_lite0 are installed; those of the other models
    are downloaded once by Keras.

    Example: regraft classify cat.png --backbone efficientnet_lite0 --top-k 3
    """
    from regraft.cli.console_output import counting, print_classified, print_json
    from regraft.explore.classification import classify_images

    with counting("images") as progress:
        found = classify_images(images, backbone, weights, top_k, progress)
    if json:
        print_json([one.as_json() for one in found])
    else:
        print_classified(found)
    refused = [one for one in found if one.error]
    if refused:
        raise InputError(f"{len(refused)} of {len(found)} images were refused, the first: "
                         f"{refused[0].image}: {refused[0].error}")  # fmt: skip


def inspect(
    model: Annotated[
        str,
        typer.Argument(
            help="A backbone, a .keras file, the folder of a trained or of a published model.",
            autocompletion=backbones,
        ),
    ],
    layer: Annotated[str, typer.Option(help="Show the weights of this layer.")] = "",
    export_weights: Annotated[
        Path | None, typer.Option(help="File .npz to write the weights to, of --layer or all.")
    ] = None,
    strategy: Annotated[
        str,
        typer.Option(
            help="Show what a strategy would train: head, top or full.",
            autocompletion=offered(["head", "top", "full"]),
        ),
    ] = "",
    cut: Annotated[
        str, typer.Option(help="Where strategy top starts: a layer, fraction:S, top:N or auto.")
    ] = "auto",
    batch_norm: Annotated[
        str,
        typer.Option(
            help="frozen or adapt: BatchNormalization in the plan.",
            autocompletion=offered(["frozen", "adapt"]),
        ),
    ] = "frozen",
    classes: Annotated[int, typer.Option(min=2, help="Classes of the heads to compare.")] = 10,
    dense_width: Annotated[
        int, typer.Option(min=0, help="Width of a hidden layer in those heads; 0 is none.")
    ] = 0,
    weights: Annotated[
        str,
        typer.Option(
            help="imagenet, random or a file; a backbone's are loaded only where they are shown."
        ),
    ] = "",
    image_px: Annotated[
        int, typer.Option(min=0, max=2048, help="Side of the images; 0 is the backbone's own.")
    ] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False,
) -> None:
    """Show what a model is made of: layers, weights, cut points and their costs.

    Costs are for one image. FLOPs count a multiplication and its addition as two; the cache
    holds the activations at a cut as float16.

    Example: regraft inspect vgg16 --strategy top --cut block4_pool
    """
    from regraft.cli.console_output import print_json
    from regraft.cli.model_tables import print_anatomy
    from regraft.explore.inspection import InspectOptions, inspect_model
    from regraft.explore.trainable_counts import PlanOptions

    if cut != "auto" and strategy != "top":
        raise InputError(
            f"--cut: expected --strategy top beside it, got --strategy {strategy or 'none'}"
        )
    wanted = InspectOptions(
        weights=weights,
        image_px=image_px,
        layer=layer,
        export_weights=export_weights,
        plan=PlanOptions(strategy, cut, batch_norm, classes, dense_width) if strategy else None,
        classes=classes,
        dense_width=dense_width,
    )
    found = inspect_model(model, wanted)
    if json:
        print_json(found.as_json())
    else:
        print_anatomy(found)
