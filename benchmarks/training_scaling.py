"""Time and memory of extraction and head training for more and more images.

The first 1,000, 10,000 and 50,000 training images of Fashion-MNIST, resized to 32 px, on
`efficientnet_lite0` (1,280 features per image in float16) with cached activations at the cut, and
the fit of the head. 2% of the images are for validation; 2% are test images, which neither
step reads.

Ingest, extraction and head training run in a new process each. The seconds are those of the step's
function, without the start of Python and the imports. The memory is the peak of the process,
including libraries such as TensorFlow. Head training keeps up to 1 GiB of features in memory, so
its peak grows with the number of images; that of extraction should not.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.result import Metric

CHECKOUT = Path(__file__).resolve().parents[1]
COUNTS = (1_000, 10_000, 50_000)
STEPS = ("ingest", "extraction", "head")


@dataclass(frozen=True)
class ScalingCase:
    """The training settings."""

    backbone: str = "efficientnet_lite0"
    image_px: int = 32


@dataclass(frozen=True)
class StepCost:
    """Time and memory of one step."""

    seconds: float
    peak_mb: float


def scaling(work: Path) -> Iterator[tuple[str, Metric]]:
    """Yield seconds and peak memory of both steps for each number of images, and ratios."""
    from components.ingest.sources.samples import write_fashion

    costs: dict[str, dict[int, StepCost]] = {step: {} for step in STEPS}
    for count in COUNTS:
        folder = work / str(count)
        write_fashion(folder / "images", limit=count)
        for step in STEPS:
            costs[step][count] = measure_in_process(step, folder, ScalingCase())
        for step in ("extraction", "head"):
            yield f"scaling_{step}_{count}", Metric(costs[step][count].seconds, "s")
            yield f"scaling_{step}_memory_{count}", Metric(costs[step][count].peak_mb, "MB")
    yield from ratios(costs["extraction"], costs["head"])


def ratios(
    extraction: Mapping[int, StepCost], head: Mapping[int, StepCost]
) -> Iterator[tuple[str, Metric]]:
    """Yield how time and memory scale, from the costs for three numbers of images.

    The time ratio compares the time per additional image above and below the middle number; 1 is
    linear scaling. The memory ratios compare the most images with the fewest.
    """
    least, middle, most = sorted(extraction)
    above = (extraction[most].seconds - extraction[middle].seconds) / (most - middle)
    below = (extraction[middle].seconds - extraction[least].seconds) / (middle - least)
    yield "scaling_time_per_image_ratio", Metric(above / below)
    for step, costs in (("extraction", extraction), ("head", head)):
        yield f"scaling_{step}_memory_ratio", Metric(costs[most].peak_mb / costs[least].peak_mb)


def measure_in_process(step: str, folder: Path, case: ScalingCase) -> StepCost:
    """Run one step in a new process, on the outputs of the earlier steps in `folder`."""
    values = [step, str(folder.absolute()), json.dumps(asdict(case))]
    command = [sys.executable, "-m", "benchmarks.training_scaling", *values]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT)
    return StepCost(**json.loads(done.stdout.splitlines()[-1]))


def measure_here(step: str, folder: Path, case: ScalingCase) -> StepCost:
    """Run one step in this process."""
    run = prepare(step, folder, case)
    start = time.perf_counter()
    run()
    return StepCost(time.perf_counter() - start, peak_mb())


def prepare(step: str, folder: Path, case: ScalingCase) -> Callable[[], Any]:
    """Import what a step needs; return a function that runs it."""
    from regraft_core.formats.options.extract_features import FeatureOptions
    from regraft_core.formats.options.ingest import IngestOptions
    from regraft_core.formats.options.train_head import HeadOptions

    if step == "ingest":
        from components.ingest.ingest import ingest

        splits = IngestOptions(
            near_duplicates="off", validation_fraction=0.02, test_fraction=0.02, min_per_class=1
        )
        return lambda: ingest([str(folder / "images" / "train")], folder / "dataset", splits)
    if step == "extraction":
        from components.extract_features.extract_features import extract_features

        options = FeatureOptions(backbone=case.backbone, image_px=case.image_px)
        return lambda: extract_features(folder / "dataset", folder / "features", options)
    from components.train_head.train_head import train_head

    return lambda: train_head([folder / "features"], folder / "head", HeadOptions())


def peak_mb() -> float:
    """Return the peak memory of this process in MB.

    `ru_maxrss` is not used, because a child process inherits the peak of its parent.
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    cost = measure_here(sys.argv[1], Path(sys.argv[2]), ScalingCase(**json.loads(sys.argv[3])))
    print(json.dumps(asdict(cost)))
