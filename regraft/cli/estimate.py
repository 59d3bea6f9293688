"""`regraft estimate`: the time of a larger run, before it is started."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.cluster.runtime_estimate import Plan, Rates, estimate_run
from regraft.cli.options.json_flag import JsonFlag
from regraft_core.runtime.errors import InputError


def estimate(
    images: Annotated[float, typer.Option(help="Number of images, such as 1e8.")] = 1e6,
    nodes: Annotated[
        list[int] | None,
        typer.Option(help="Number of nodes for feature extraction; may be repeated."),
    ] = None,
    node_mb_s: Annotated[
        float, typer.Option(help="Network bandwidth of a node, in MB per second.")
    ] = Plan.node_mb_s,
    storage_mb_s: Annotated[
        float, typer.Option(help="Bandwidth of the storage for all nodes, in MB per second.")
    ] = Plan.storage_mb_s,
    cache_gb: Annotated[
        float,
        typer.Option(help="Maximum GB of cached activations; above it, `top` trains from images."),
    ] = Plan.cache_gb,
    start_s: Annotated[
        float, typer.Option(help="Start-up time of each step, in seconds.")
    ] = Rates.start_s,
    ingest_rate: Annotated[
        float, typer.Option(help="Images per second of ingest.")
    ] = Rates.ingest_rate,
    extract_rate: Annotated[
        float, typer.Option(help="Images per second and node of feature extraction.")
    ] = Rates.extract_rate,
    head_rate: Annotated[
        float, typer.Option(help="Images per second of fitting the head.")
    ] = Rates.head_rate,
    top_rate: Annotated[
        float, typer.Option(help="Images per second of strategy top, from cached activations.")
    ] = Rates.top_rate,
    image_kb: Annotated[float, typer.Option(help="Size of an image file, in kB.")] = Rates.image_kb,
    pooled_kb: Annotated[
        float,
        typer.Option(
            help="Size of the pooled features of all levels per image, in kB (`image_kb` in "
            "features.json)."
        ),
    ] = Rates.pooled_kb,
    activation_kb: Annotated[
        float, typer.Option(help="Size of the cached activations per image, in kB.")
    ] = Rates.activation_kb,
    top_epochs: Annotated[
        int, typer.Option(help="Number of epochs for strategy top.")
    ] = Plan.top_epochs,
    json: JsonFlag = False,
) -> None:
    """Estimate the time of a run for more images and nodes.

    The default rates were measured on two CPU cores. `regraft bench scale_out` and the timings in
    the summary.json of a run give the rates of your machines.

    Example: regraft estimate --images 1e8 --nodes 1 --nodes 16 --extract-rate 2000
    """
    from regraft.cli.console_output import print_estimates, print_json

    if not 1 <= images <= 1e12:
        raise InputError(f"images: expected 1 to 1e12, got {images:g}")
    rates = Rates(
        start_s,
        ingest_rate,
        extract_rate,
        head_rate,
        top_rate,
        image_kb,
        pooled_kb,
        activation_kb,
    )
    plans = [
        Plan(int(images), count, node_mb_s, storage_mb_s, cache_gb, top_epochs=top_epochs)
        for count in nodes or [1, 2, 4, 8, 16]
    ]  # fmt: skip
    found = [estimate_run(plan, rates) for plan in plans]
    if json:
        print_json([one.as_json() for one in found])
    else:
        print_estimates(found)
