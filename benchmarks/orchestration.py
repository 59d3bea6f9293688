"""What kfp's local runner costs beside the steps' own work, and what parallel workers gain.

    regraft bench orchestration --json benchmarks/results/orchestration.json
    regraft bench orchestration --json benchmarks/results/orchestration.json --only image

Digits on `efficientnet_lite0` at 64 px, strategy `head`, so that the steps follow each other.
Overhead is the wall time less the seconds that the steps' manifests name: kfp, starting Python,
importing kfp and TensorFlow. The run is then repeated unchanged.

Extraction is measured on more work (`--loop-px`, three views of each training image), from the
end of ingest to the start of the head. One TensorFlow process uses all cores by itself, so the
efficiency of two workers is held against one worker that is kept on one core; what one worker
takes with all cores is told beside it. kfp's local runner takes two turns of a loop at once, on
whatever machine.

`--only image` builds the image without the engine's cache; it needs a Docker engine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.result import Figure, Measured, kept, run_benchmark

CHECKOUT = Path(__file__).resolve().parents[1]
PARTS = ("run", "loop", "image")


@dataclass(frozen=True)
class Run:
    """Seconds of one run: as a whole, and in the loop over workers; and the steps that ran."""

    wall_s: float
    loop_s: float
    steps: tuple[str, ...]


def timed_run(out: Path, **values: Any) -> Run:
    """Run the pipeline on digits into `out` by the local runner."""
    from pipelines.local.run import run_locally
    from pipelines.recipes.recipe import make_recipe

    recipe = make_recipe(
        sources=("sample:digits",), strategies=("head",), head_epochs=10, model_name="digits",
        destination=str(out / "models"), work_dir=str(out / "work"), **values,
    )  # fmt: skip
    said: dict[str, float] = {}

    def listen(line: str) -> None:
        said.setdefault(line.split(" in ")[0], time.perf_counter())

    start = time.perf_counter()
    summary = run_locally(recipe, out, listen)
    wall_s = time.perf_counter() - start
    loop_s = said.get("train_head: start", start) - said.get("ingest: done", start)
    return Run(wall_s, loop_s, tuple(summary.timings))


def work_s(out: Path) -> float:
    """Return the seconds of all steps of the one run into `out`, as their manifests name them."""
    told: dict[str, float] = {}
    for file in (out / "steps").rglob("*.json"):
        content = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(content, dict) and (made_by := content.get("made_by")):
            step = made_by["step"]
            told[step] = max(told.get(step, 0.0), made_by["seconds"])
    return sum(told.values())


@contextlib.contextmanager
def on_one_core() -> Iterator[None]:
    """Keep this process, and those that it starts, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def loop_figures(folder: Path, values: dict[str, Any]) -> dict[str, Figure]:
    """Measure extraction by one worker on one core, one on all cores, and two workers."""
    more = values | {"views": 3, "augment": "light", "min_accuracy": 0.9999}  # ends with evaluate
    with on_one_core():
        one_core = timed_run(folder / "one-core", workers=1, **more).loop_s
    alone = timed_run(folder / "alone", workers=1, **more).loop_s
    both = timed_run(folder / "two", workers=2, **more).loop_s
    return {
        "extraction_1_worker_1_core": Figure(one_core, "s"),
        "extraction_1_worker": Figure(alone, "s"),
        "extraction_2_workers": Figure(both, "s"),
        "efficiency_2_workers": Figure(one_core / (2 * both)),
    }


def run_figures(folder: Path, values: dict[str, Any]) -> dict[str, Figure]:
    """Measure one run, and the same once more."""
    out = folder / "run"
    first = timed_run(out, **values)
    work = work_s(out)
    again = timed_run(out, **values)
    return {
        "wall": Figure(first.wall_s, "s"),
        "work": Figure(work, "s"),
        "overhead_a_step": Figure((first.wall_s - work) / len(first.steps), "s", "<= 5"),
        "unchanged_run": Figure(again.wall_s, "s", "<= 15"),
        "unchanged_run_steps": Figure(len(again.steps)),
    }


def image_figures() -> dict[str, Figure]:
    """Build the image anew, without the engine's cache; its size is that of the unpacked files."""
    import docker

    from regraft_core.runtime.container_image import IMAGE

    start = time.perf_counter()
    subprocess.run(["make", "image", "BUILD_FLAGS=--no-cache"], check=True, cwd=CHECKOUT)
    seconds = time.perf_counter() - start
    size = float(docker.from_env().images.get(IMAGE).attrs["Size"])
    return {"image_build": Figure(seconds, "s"), "image": Figure(size / 1e9, "GB")}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what may be varied."""
    parser.add_argument("--only", choices=PARTS, help="Measure one part.")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--image-px", type=int, default=64)
    parser.add_argument("--loop-px", type=int, default=128, help="For the extraction's loop.")


def measure(given: argparse.Namespace) -> Measured:
    """Run once, once more, and with two workers; the image only if it is asked for.

    Figures of parts that are not measured stay as they are.
    """
    figures = kept(given.json)
    values = {"backbone": given.backbone, "image_px": given.image_px}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.only in (None, "run"):
            figures |= run_figures(folder, values)
        if given.only in (None, "loop"):
            figures |= loop_figures(folder, values | {"image_px": given.loop_px})
    if given.only == "image":
        figures |= image_figures()
    about = f"digits on {given.backbone} at {given.image_px} px, strategy head, subprocess runner"
    return Measured(about, figures)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    run_benchmark("orchestration", __doc__, add_options, measure, arguments)


if __name__ == "__main__":
    main()
