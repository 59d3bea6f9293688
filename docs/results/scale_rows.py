"""Rows of the benchmarks of more than one machine, and of millions of images."""

from __future__ import annotations

from functools import partial
from typing import Any

from docs.results.values import Results, Row, goal, markdown


def scale_out(scale_out: Any) -> list[Row]:
    """Return the rows of workers of one extraction."""
    return [
        (
            f"slowest of {count} extraction workers: measured / predicted by the cost model",
            f"{slowest:.1f} / {predicted:.1f} s",
            f"error {goal(error, percent=True)}",
        )
        for count, slowest, predicted, error in (
            (2, scale_out.slowest_of_2, scale_out.predicted_of_2, scale_out.relative_error_of_2),
            (4, scale_out.slowest_of_4, scale_out.predicted_of_4, scale_out.relative_error_of_4),
        )
    ]


def scale(scale: Any) -> list[Row]:
    """Return the rows of Ray nodes."""

    def both(suffix: str) -> tuple[Any, Any]:
        return getattr(scale, f"ingest_{suffix}"), getattr(scale, f"extraction_{suffix}")

    equal = scale.equal_digests_nodes, scale.equal_digests_executors
    return [
        *(
            (
                f"{what}: ingest / extraction",
                " / ".join(f"{value:.2f}" for value in values),
                goal(*values),
            )
            for what, values in (
                ("two Ray nodes of one core, speed relative to one", both("speedup_2_nodes")),
                (
                    "one Ray node of all cores, time relative to local processes",
                    both("ray_relative_time"),
                ),
                (
                    "two Ray nodes, one killed half-way, time relative to undisturbed ones",
                    both("lost_node_relative_time"),
                ),
            )
        ),
        (
            "equal digests of dataset and features with one node, two and a killed one / with "
            "local processes and Ray",
            " / ".join(f"{value:.0f}" for value in equal),
            goal(*equal),
        ),
        (
            "bytes that one of 8 workers of the fan-out downloads, relative to an eighth of the "
            "dataset",
            f"{scale.read_by_a_worker_of_8:.2f}",
            goal(scale.read_by_a_worker_of_8),
        ),
    ]


def estimate(estimate: Any) -> list[Row]:
    """Return the rows of predicted runs."""
    names = [name for name in vars(estimate) if name.startswith("relative_error_")]
    errors = [getattr(estimate, name) for name in names]
    images = [int(name.split("_")[2]) for name in names]
    counts = " / ".join(f"{count:,}" for count in images)
    times = " / ".join(
        f"{value('measured'):.0f} s ({value('shortest'):.0f} to {value('longest'):.0f} s)"
        for value in (partial(_of_images, estimate, count) for count in images)
    )
    return [
        (
            f"`regraft estimate` from two short runs, error of whole runs of {counts} images, for "
            "the epochs that they trained",
            " / ".join(f"{error:.1%}" for error in errors),
            goal(*errors, percent=True),
        ),
        (
            f"time of these runs (both ends that were predicted before) of {counts} images",
            times,
            "",
        ),
    ]


def _of_images(estimate: Any, images: int, name: str) -> float:
    """Return a figure of the run of so many images."""
    value: float = getattr(estimate, f"{name}_{images}_images")
    return value


def scale_catalog(catalog: Any) -> list[Row]:
    """Return the rows of the catalog of ingest, and of a whole run."""
    return [
        (
            "duplicates and splits of 10,000,000 made images: time / peak memory",
            f"{catalog.catalog_decisions:.0f} s / {catalog.catalog_peak_memory / 1e3:.1f} GB",
            f"{goal(catalog.catalog_decisions)} s / "
            f"{goal(catalog.catalog_peak_memory, scale=1000)} GB",
        ),
        (
            f"{catalog.steps_images:,.0f} images of 28 px, from the files to the gate, small "
            "network: speed / highest peak memory of a step",
            f"{catalog.steps_speed:.0f} images/s / {_highest_peak(catalog) / 1e3:.1f} GB",
            "",
        ),
    ]


def _highest_peak(catalog: Any) -> float:
    """Return the highest peak memory of the steps in MB."""
    return max(
        value
        for name, value in vars(catalog).items()
        if name.startswith("steps_") and name.endswith("_peak_memory")
    )


def scale_table(results: Results) -> str:
    """Return the rows of Ray nodes and of predicted runs."""
    rows = [*scale(results["scale"]), *estimate(results["estimate"])]
    return markdown(("metric", "measured", "goal"), rows)
