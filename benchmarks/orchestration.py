"""What kfp's local runner costs beside the steps' own work, and what parallel workers gain.

    regraft bench orchestration --json benchmarks/results/orchestration.json

Digits on `efficientnet_lite0` at 64 px, strategy `head`, so that the steps follow each other.
Overhead is the wall time less the seconds that the steps say they worked: starting Python,
importing, kfp. The run is then repeated unchanged. Extraction is measured from the end of ingest to
the start of the head, for 1, 2 and 4 workers; one TensorFlow process uses all cores by itself, so
on a machine with few cores a second worker gains only where the first one waits.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.result import Figure, Measured, run_benchmark

CHECKOUT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Run:
    """Seconds of one run: as a whole, in its steps, in the loop; and the steps that ran."""

    wall_s: float
    work_s: float
    loop_s: float
    steps: tuple[str, ...]


def timed_run(out: Path, workers: int, backbone: str, image_px: int) -> Run:
    """Run the pipeline into `out` by the local runner."""
    from pipelines.local import run_locally
    from pipelines.recipe import make_recipe

    recipe = make_recipe(
        sources=("sample:digits",), backbone=backbone, image_px=image_px, strategies=("head",),
        workers=workers, head_epochs=10, model_name="digits", destination=str(out / "models"),
        work_dir=str(out / "work"),
    )  # fmt: skip
    said: dict[str, float] = {}

    def listen(line: str) -> None:
        said.setdefault(line.split(" in ")[0], time.perf_counter())

    start = time.perf_counter()
    summary = run_locally(recipe, out, listen)
    wall_s = time.perf_counter() - start
    loop_s = said.get("train_head: start", start) - said.get("ingest: done", start)
    return Run(wall_s, sum(summary.timings.values()), loop_s, tuple(summary.timings))


def image_size() -> float | None:
    """Return the gigabytes of the image, unpacked, if an engine with the image is there."""
    import docker

    from components.core.image import IMAGE

    try:
        return float(docker.from_env().images.get(IMAGE).attrs["Size"]) / 1e9
    except docker.errors.DockerException:
        return None


def build_image() -> float:
    """Build the image anew, without the engine's cache; return the seconds."""
    start = time.perf_counter()
    subprocess.run(["make", "image", "BUILD_FLAGS=--no-cache"], check=True, cwd=CHECKOUT)
    return time.perf_counter() - start


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what may be varied."""
    parser.add_argument("--build-image", action="store_true", help="Time the image's build, too.")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--image-px", type=int, default=64)


def measure(given: argparse.Namespace) -> Measured:
    """Run once, once more, and with more workers."""
    figures: dict[str, Figure] = {}
    with tempfile.TemporaryDirectory() as folder:
        loops: dict[int, float] = {}
        for workers in (1, 2, 4):
            out = Path(folder) / f"workers-{workers}"
            run = timed_run(out, workers, given.backbone, given.image_px)
            loops[workers] = run.loop_s
            if workers == 1:
                overhead = (run.wall_s - run.work_s) / len(run.steps)
                figures["wall"] = Figure(run.wall_s, "s")
                figures["overhead_a_step"] = Figure(overhead, "s", "<= 5")
                again = timed_run(out, workers, given.backbone, given.image_px)
                figures["unchanged_run"] = Figure(again.wall_s, "s", "<= 15")
                figures["unchanged_run_steps"] = Figure(len(again.steps))
    for workers, loop_s in loops.items():
        figures[f"extraction_{workers}"] = Figure(loop_s, "s")
        if workers > 1:
            figures[f"speedup_{workers}"] = Figure(loops[1] / loop_s)
    if given.build_image:
        figures["image_build"] = Figure(build_image(), "s")
    if (size := image_size()) is not None:
        figures["image"] = Figure(size, "GB")
    about = f"digits on {given.backbone} at {given.image_px} px, strategy head, subprocess runner"
    return Measured(about, figures)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    run_benchmark("orchestration", __doc__, add_options, measure, arguments)


if __name__ == "__main__":
    main()
