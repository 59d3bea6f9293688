"""`regraft estimate`: the time and the price of a larger run, before it is started."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.cluster.interruptions import Interruptions
from pipelines.cluster.runtime_estimate import Plan, Rates, estimate_run
from regraft.cli.options.json_flag import JsonFlag
from regraft.cli.options.option_groups import with_groups
from regraft_core.runtime.errors import InputError


@dataclass(frozen=True)
class Speeds:
    """Rates, sizes and start-up times of one node."""

    start_s: Annotated[float, typer.Option(help="Start-up time of each step, in seconds.")] = (
        Rates.start_s
    )
    ingest_rate: Annotated[float, typer.Option(help="Images per second of ingest.")] = (
        Rates.ingest_rate
    )
    extract_rate: Annotated[
        float,
        typer.Option(help="Images per second and node of feature extraction and evaluation."),
    ] = Rates.extract_rate
    head_rate: Annotated[
        float, typer.Option(help="Images per second of all fits of a head, if images are many.")
    ] = Rates.head_rate
    top_rate: Annotated[
        float, typer.Option(help="Images per second of strategy top, from cached activations.")
    ] = Rates.top_rate
    image_kb: Annotated[float, typer.Option(help="Size of an image file, in kB.")] = Rates.image_kb
    pooled_kb: Annotated[
        float,
        typer.Option(
            help="Size of the pooled features of all levels per image, in kB (`image_kb` in "
            "features.json)."
        ),
    ] = Rates.pooled_kb
    activation_kb: Annotated[
        float, typer.Option(help="Size of the cached activations per image, in kB.")
    ] = Rates.activation_kb
    ray_start_s: Annotated[
        float, typer.Option(help="Time until the nodes of a Ray cluster are ready, in seconds.")
    ] = Rates.ray_start_s
    from_run: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of a local run; two of different sizes replace the rates and start-up "
            "times of all steps."
        ),
    ] = None

    def rates(self) -> Rates:
        """Return the rates, those of the runs if there are any.

        Raises:
            InputError: there is one run, or the runs do not fit.
        """
        values = dict(vars(self))
        folders = values.pop("from_run") or []
        rates = Rates(**values)
        if not folders:
            return rates
        if len(folders) != 2:
            raise InputError(f"from_run: expected two runs of different sizes, got {len(folders)}")
        from pipelines.cluster.sample_runs import rates_of_samples
        from pipelines.finished_run import read_sample_run

        first, second = (read_sample_run(folder) for folder in folders)
        return rates_of_samples(first, second, rates)


@dataclass(frozen=True)
class Machines:
    """The nodes: bandwidths, interruptions and price."""

    nodes: Annotated[
        list[int] | None,
        typer.Option(help="Number of nodes for feature extraction; may be repeated."),
    ] = None
    ray_cluster: Annotated[
        bool,
        typer.Option(
            "--ray-cluster",
            help="The nodes are a Ray cluster, which also does ingest.",
        ),
    ] = False
    whole_artifacts: Annotated[
        bool,
        typer.Option(
            "--whole-artifacts",
            help="The run has no --work-dir: each pod downloads all its inputs before it starts.",
        ),
    ] = False
    node_mb_s: Annotated[
        float, typer.Option(help="Network bandwidth of a node, in MB per second.")
    ] = Plan.node_mb_s
    storage_mb_s: Annotated[
        float, typer.Option(help="Bandwidth of the storage for all nodes, in MB per second.")
    ] = Plan.storage_mb_s
    source_mb_s: Annotated[
        float, typer.Option(help="Bandwidth of the images' source, in MB per second.")
    ] = Plan.source_mb_s
    node_price: Annotated[
        float, typer.Option(help="Price of a node per hour, in any currency.")
    ] = Plan.node_price
    interruptions: Annotated[
        float,
        typer.Option(help="Interruptions per node and hour, such as of spot machines."),
    ] = Interruptions.per_hour
    restart_s: Annotated[
        float, typer.Option(help="Time until an interrupted node is replaced, in seconds.")
    ] = 120.0
    checkpoint_s: Annotated[
        float, typer.Option(help="Work between two checkpoints, in seconds.")
    ] = Interruptions.checkpoint_s

    def plans(self, images: int, **more: Any) -> list[Plan]:
        """Return a plan for each number of nodes."""
        values = dict(vars(self))
        counts = values.pop("nodes") or [1, 2, 4, 8, 16]
        more |= {"ray": values.pop("ray_cluster"), "work_dir": not values.pop("whole_artifacts")}
        lost = Interruptions(*(values.pop(n) for n in ("interruptions", "restart_s",
                                                       "checkpoint_s")))  # fmt: skip
        return [Plan(images, n, interruptions=lost, **values, **more) for n in counts]


@with_groups
def estimate(
    *,
    machines: Machines,
    speeds: Speeds,
    images: Annotated[float, typer.Option(help="Number of images, such as 1e8.")] = 1e6,
    cache_gb: Annotated[
        float,
        typer.Option(help="Maximum GB of cached activations; above it, `top` trains from images."),
    ] = Plan.cache_gb,
    top_epochs: Annotated[
        int,
        typer.Option(help="Number of epochs for strategy top, after its trials of learning rates."),
    ] = Plan.top_epochs,
    json: JsonFlag = False,
) -> None:
    """Estimate the time and the price of a larger run.

    The default rates were measured on two CPU cores. Two short runs on your machine, given by
    `--from-run`, replace them.

    Example: regraft estimate --images 1e8 --nodes 16 --ray-cluster --node-price 0.4
    --interruptions 0.05
    """
    from regraft.cli.console_output import print_estimates, print_json

    if not 1 <= images <= 1e12:
        raise InputError(f"images: expected 1 to 1e12, got {images:g}")
    rates = speeds.rates()
    plans = machines.plans(int(images), cache_gb=cache_gb, top_epochs=top_epochs)
    found = [estimate_run(plan, rates) for plan in plans]
    if json:
        print_json([one.as_json() for one in found])
    else:
        print_estimates(found)
