"""`regraft plan`: what a larger run would take, before it is run."""

from __future__ import annotations

from typing import Annotated

import typer

from components.core.errors import InputError
from pipelines.cost import Plan, Rates, estimate


def plan(
    pictures: Annotated[float, typer.Option(help="Pictures, also as 1e8.")] = 1e6,
    nodes: Annotated[
        list[int] | None, typer.Option(help="Nodes for extraction; may be repeated.")
    ] = None,
    node_mb_s: Annotated[float, typer.Option(help="Network of a node, MB a second.")] = 100.0,
    storage_mb_s: Annotated[float, typer.Option(help="All that the storage gives.")] = 1000.0,
    cache_gb: Annotated[float, typer.Option(help="Activations that may be kept.")] = 20.0,
    start_s: Annotated[float, typer.Option(help="Start of each step, seconds.")] = Rates.start_s,
    ingest_rate: Annotated[float, typer.Option(help="Pictures a second, ingest.")] = Rates.ingest,
    extract_rate: Annotated[
        float, typer.Option(help="Pictures a second and node, extraction.")
    ] = Rates.extract,
    head_rate: Annotated[float, typer.Option(help="The same for the head.")] = Rates.head,
    top_rate: Annotated[float, typer.Option(help="The same for the top, cached.")] = Rates.top,
    picture_kb: Annotated[float, typer.Option(help="Size of a picture.")] = Rates.picture_bytes
    / 1e3,
    cut_kb: Annotated[float, typer.Option(help="Activations of a picture.")] = Rates.cut_bytes
    / 1e3,
    head_epochs: Annotated[int, typer.Option(help="Epochs of the head.")] = 20,
    top_epochs: Annotated[int, typer.Option(help="Epochs of the top.")] = 10,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False,
) -> None:
    """Estimate a run's time for more pictures and nodes, from measured rates.

    The rates' defaults are of two CPU cores; `regraft bench scale_out` and the timings in a run's
    summary.json give those of your machines.

    Example: regraft plan --pictures 1e8 --nodes 1 --nodes 16 --extract-rate 2000
    """
    from pipelines.presentation import print_estimates, print_json

    if not 1 <= pictures <= 1e12:
        raise InputError(f"pictures: expected 1 to 1e12, got {pictures:g}")
    rates = Rates(
        start_s, ingest_rate, extract_rate, head_rate, top_rate,
        picture_bytes=picture_kb * 1e3, cut_bytes=cut_kb * 1e3,
    )  # fmt: skip
    plans = [
        Plan(int(pictures), count, node_mb_s, storage_mb_s, cache_gb,
             head_epochs=head_epochs, top_epochs=top_epochs)
        for count in nodes or [1, 2, 4, 8, 16]
    ]  # fmt: skip
    found = [estimate(plan, rates) for plan in plans]
    if json:
        print_json([one.as_json() for one in found])
    else:
        print_estimates(found)
