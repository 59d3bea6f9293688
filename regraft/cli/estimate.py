"""`regraft estimate`: what a larger run would take, before it is run."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.cluster.runtime_estimate import Plan, Rates, estimate_run
from regraft_core.runtime.errors import InputError


def estimate(
    images: Annotated[float, typer.Option(help="Images, also as 1e8.")] = 1e6,
    nodes: Annotated[
        list[int] | None, typer.Option(help="Nodes for extraction; may be repeated.")
    ] = None,
    node_mb_s: Annotated[
        float, typer.Option(help="Network of a node, MB a second.")
    ] = Plan.node_mb_s,
    storage_mb_s: Annotated[
        float, typer.Option(help="All that the storage gives.")
    ] = Plan.storage_mb_s,
    cache_gb: Annotated[float, typer.Option(help="Activations that may be kept.")] = Plan.cache_gb,
    start_s: Annotated[float, typer.Option(help="Start of each step, seconds.")] = Rates.start_s,
    ingest_rate: Annotated[
        float, typer.Option(help="Images a second, ingest.")
    ] = Rates.ingest_rate,
    extract_rate: Annotated[
        float, typer.Option(help="Images a second and node, extraction.")
    ] = Rates.extract_rate,
    head_rate: Annotated[float, typer.Option(help="The same for the head.")] = Rates.head_rate,
    top_rate: Annotated[float, typer.Option(help="The same for the top, cached.")] = Rates.top_rate,
    image_kb: Annotated[float, typer.Option(help="Size of an image.")] = Rates.image_kb,
    activation_kb: Annotated[
        float, typer.Option(help="Activations of an image.")
    ] = Rates.activation_kb,
    head_epochs: Annotated[int, typer.Option(help="Epochs of the head.")] = Plan.head_epochs,
    top_epochs: Annotated[int, typer.Option(help="Epochs of the top.")] = Plan.top_epochs,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False,
) -> None:
    """Estimate a run's time for more images and nodes, from measured rates.

    The rates' defaults are of two CPU cores; `regraft bench scale_out` and the timings in a run's
    summary.json give those of your machines.

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
        activation_kb=activation_kb,
    )
    plans = [
        Plan(int(images), count, node_mb_s, storage_mb_s, cache_gb,
             head_epochs=head_epochs, top_epochs=top_epochs)
        for count in nodes or [1, 2, 4, 8, 16]
    ]  # fmt: skip
    found = [estimate_run(plan, rates) for plan in plans]
    if json:
        print_json([one.as_json() for one in found])
    else:
        print_estimates(found)
