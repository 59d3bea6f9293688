"""The demo: runs the pipeline on handwritten digits, then serves the published version."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipelines.local.run import Summary, run_locally
from pipelines.recipes.recipe import Recipe
from pipelines.recipes.recipe_file import recipe_of
from regraft.cli.console_output import print_summary
from regraft_client.errors import RegraftClientError
from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.records import ImageRecord, read_split
from regraft_core.runtime.errors import RegraftError

IMAGES_SHOWN = 12


def demo_recipe(out: Path) -> Recipe:
    """Return the recipe `digits`, which publishes to the folder of the demo."""
    return recipe_of("digits", {"destination": str((out / "models").absolute())})


def main() -> int:
    """Run the demo; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    out = parser.parse_args().out
    try:
        summary = run_locally(demo_recipe(out), out)
        print_summary(summary)
        if summary.verdict == "rejected":
            return 3
        records = held_out(Path(summary.dataset))
        write_images(records, out / "images")
        _predict_served(summary, records, out / "models")
        _print_next_steps(out)
    except (RegraftError, RegraftClientError) as error:
        print(f"demo: error: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 1)
    return 0


def _predict_served(summary: Summary, records: list[ImageRecord], models: Path) -> None:
    """Serve the published version, and predict held-out images over gRPC and REST."""
    from regraft_client.grpc import GrpcClient
    from regraft_client.rest import RestClient
    from serving.running.runner import running_server

    classes = DatasetManifest.read(summary.dataset).classes
    images = [record.encoded for record in records]
    with running_server(models / "digits", "digits") as addresses:
        with GrpcClient(addresses.grpc, "digits") as client:
            by_grpc = client.predict(images)
        with RestClient(addresses.rest, "digits") as client:
            by_rest = client.predict(images)
    table = Table(title=f"served by {models / 'digits'}", title_justify="left")
    for column in ("image", "true class", "gRPC", "", "REST", ""):
        table.add_column(column)
    for record, first, second in zip(records, by_grpc, by_rest, strict=True):
        table.add_row(record.path, classes[record.label], first.label, f"{first.confidence:.4f}",
                      second.label, f"{second.confidence:.4f}")  # fmt: skip
    Console(soft_wrap=True, markup=False, emoji=False).print(table)


def _print_next_steps(out: Path) -> None:
    """Print the next commands in a checkout, in which `make demo` has made the environment."""
    print("\nnext    source .venv/bin/activate")
    print(f"        regraft report {out}           open the report")
    print(f"        regraft review {out}           review suspected problems in the images")
    print(f"        regraft serve {out}/models     serve the published version")


def held_out(dataset: Path) -> list[ImageRecord]:
    """Return some images of the test split, from all classes."""
    records = list(read_split(dataset, "test"))
    return records[:: max(1, len(records) // IMAGES_SHOWN)][:IMAGES_SHOWN]


def write_images(records: list[ImageRecord], folder: Path) -> None:
    """Write images to files, to try the server with."""
    for record in records:
        file = folder / record.path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(record.encoded)


if __name__ == "__main__":
    sys.exit(main())
