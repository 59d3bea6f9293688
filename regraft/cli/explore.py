"""The commands to explore models: classify with a pretrained one, inspect any."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regraft.cli.options.completion import complete_backbones, completing
from regraft.cli.options.json_flag import JsonFlag
from regraft_core.runtime.errors import InputError


def classify(
    images: Annotated[list[str], typer.Argument(help="Image files, folders of them, or URLs.")],
    backbone: Annotated[
        str,
        typer.Option(
            help="Pretrained model with the 1000 classes of ImageNet.",
            autocompletion=complete_backbones,
        ),
    ] = "efficientnet_lite0",
    weights: Annotated[
        str, typer.Option(help="Pretrained weights of the whole model: imagenet, or a file.")
    ] = "imagenet",
    top_k: Annotated[
        int, typer.Option(min=1, max=1000, help="Number of classes to show per image.")
    ] = 5,
    json: JsonFlag = False,
) -> None:
    """Classify images with a pretrained ImageNet model.

    Nothing is trained. The weights of efficientnet_lite0 are installed; Keras downloads those of
    other models once.

    Example: regraft classify cat.png --backbone efficientnet_lite0 --top-k 3
    """
    from regraft.cli.console_output import print_classified, print_json, progress_bar
    from regraft.explore.classification import classify_images

    with progress_bar("images") as progress:
        found = classify_images(images, backbone, weights, top_k, progress)
    if json:
        print_json([one.as_json() for one in found])
    else:
        print_classified(found)
    refused = [one for one in found if one.error]
    if refused:
        raise InputError(f"{len(refused)} of {len(found)} images were refused; the first is "
                         f"{refused[0].image}: {refused[0].error}")  # fmt: skip


def inspect(
    model: Annotated[
        str,
        typer.Argument(
            help="A backbone, a .keras file, or the folder of a trained model, a published "
            "version or a run.",
            autocompletion=complete_backbones,
        ),
    ],
    layer: Annotated[str, typer.Option(help="Show the weights of this layer.")] = "",
    export_weights: Annotated[
        Path | None, typer.Option(help=".npz file to write weights to: those of --layer, or all.")
    ] = None,
    strategy: Annotated[
        str,
        typer.Option(
            help="Count what a fine-tuning strategy would train: head, top or full.",
            autocompletion=completing(["head", "top", "full"]),
        ),
    ] = "",
    cut: Annotated[
        str,
        typer.Option(
            help="Cut point for `top`: a layer, top:N (from the output) or fraction:S (of the "
            "parameters above it); auto uses the backbone's default."
        ),
    ] = "auto",
    batch_norm: Annotated[
        str,
        typer.Option(
            help="BatchNormalization above the cut: keep or update (`adapt`) its statistics. "
            "One of frozen, adapt.",
            autocompletion=completing(["frozen", "adapt"]),
        ),
    ] = "frozen",
    classes: Annotated[
        int, typer.Option(min=2, help="Number of classes of the heads to compare.")
    ] = 10,
    weights: Annotated[
        str,
        typer.Option(
            help="Weights of the backbone: imagenet, random or a file; empty loads imagenet only "
            "to show or export values."
        ),
    ] = "",
    image_px: Annotated[
        int,
        typer.Option(
            min=0, max=2048, help="Input image size in pixels; 0 uses the backbone's default."
        ),
    ] = 0,
    json: JsonFlag = False,
) -> None:
    """Show the layers, weights and cut points of a model.

    Costs are per image. FLOPs count a multiplication and its addition as two; the cache stores
    the activations at a cut as float16.

    Example: regraft inspect vgg16 --strategy top --cut block4_pool
    """
    from regraft.cli.console_output import print_json
    from regraft.cli.inspect_tables import print_model_facts
    from regraft.explore.inspection import InspectOptions, inspect_model
    from regraft.explore.trainable_counts import StrategyOptions

    if cut != "auto" and strategy != "top":
        raise InputError(
            f"--cut: expected --strategy top with it, got --strategy {strategy or 'none'}"
        )
    options = InspectOptions(
        weights=weights,
        image_px=image_px,
        layer=layer,
        export_weights=export_weights,
        strategy=StrategyOptions(strategy, cut, batch_norm, classes) if strategy else None,
        classes=classes,
    )
    found = inspect_model(model, options)
    if json:
        print_json(found.as_json())
    else:
        print_model_facts(found)
