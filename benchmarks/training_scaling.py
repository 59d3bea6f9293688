"""How time and memory of extraction and head training grow with the number of images.

The first 1,000, 10,000 and 50,000 training images of Fashion-MNIST, brought to 32 px, on
`efficientnet_lite0` (1,280 features an image, in float16), activations at the cut kept, and 20
epochs of a head. 2 % of the images are validated with; 2 % are test images, which neither step
reads.

Ingest, extraction and head training are a process of their own each. Seconds are those of the
step's function, without the start of Python and its imports. Memory is the process' peak, libraries
included: what TensorFlow takes for itself is in all of them. Head training holds rows up to 1 GiB
in memory, so its peak grows with the images; that of extraction should not.
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

from benchmarks.result import Figure

CHECKOUT = Path(__file__).resolve().parents[1]
COUNTS = (1_000, 10_000, 50_000)
STEPS = ("ingest", "extraction", "head")


@dataclass(frozen=True)
class GrowthCase:
    """What runs on the images."""

    backbone: str = "efficientnet_lite0"
    image_px: int = 32
    head_epochs: int = 20


@dataclass(frozen=True)
class Took:
    """What one step took."""

    seconds: float
    peak_mb: float


def growth(work: Path) -> Iterator[tuple[str, Figure]]:
    """Yield seconds and peak memory of both steps for each number of images, and their growth."""
    from components.ingest.sources.samples import write_fashion

    took: dict[str, dict[int, Took]] = {step: {} for step in STEPS}
    for count in COUNTS:
        folder = work / str(count)
        write_fashion(folder / "images", limit=count)
        for step in STEPS:
            took[step][count] = measured_apart(step, folder, GrowthCase())
        for step in ("extraction", "head"):
            yield f"growth_{step}_{count}", Figure(took[step][count].seconds, "s")
            yield f"growth_{step}_memory_{count}", Figure(took[step][count].peak_mb, "MB")
    yield from ratios(took["extraction"], took["head"])


def ratios(
    extraction: Mapping[int, Took], head: Mapping[int, Took]
) -> Iterator[tuple[str, Figure]]:
    """Yield how both steps grow, from what each took for three numbers of images.

    The time that extraction takes for one image more is compared above and below the middle
    number; 1 is growth in proportion. Memory is that of the most images in times of the fewest.
    """
    least, middle, most = sorted(extraction)
    above = (extraction[most].seconds - extraction[middle].seconds) / (most - middle)
    below = (extraction[middle].seconds - extraction[least].seconds) / (middle - least)
    yield "growth_time_an_image", Figure(above / below)
    for step, took in (("extraction", extraction), ("head", head)):
        yield f"growth_{step}_memory_times", Figure(took[most].peak_mb / took[least].peak_mb)


def measured_apart(step: str, folder: Path, case: GrowthCase) -> Took:
    """Run one step in a process of its own, on what the steps before it left in `folder`."""
    values = [step, str(folder.absolute()), json.dumps(asdict(case))]
    command = [sys.executable, "-m", "benchmarks.training_scaling", *values]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT)
    return Took(**json.loads(done.stdout.splitlines()[-1]))


def measured_here(step: str, folder: Path, case: GrowthCase) -> Took:
    """Run one step in this process."""
    run = prepared(step, folder, case)
    start = time.perf_counter()
    run()
    return Took(time.perf_counter() - start, peak_mb())


def prepared(step: str, folder: Path, case: GrowthCase) -> Callable[[], Any]:
    """Import what a step needs, and return it ready to run."""
    from regraft_core.formats.options import FeatureOptions, HeadOptions, IngestOptions

    if step == "ingest":
        from components.ingest.ingest import ingest

        splits = IngestOptions(
            near_duplicates="off", validation_fraction=0.02, test_fraction=0.02, min_per_class=1
        )
        return lambda: ingest([str(folder / "images" / "train")], folder / "dataset", splits)
    if step == "extraction":
        from components.extract_features.extract_features import extract_features

        kept = FeatureOptions(backbone=case.backbone, image_px=case.image_px)
        return lambda: extract_features(folder / "dataset", folder / "features", kept)
    from components.train_head.train_head import train_head

    patient = HeadOptions(head_epochs=case.head_epochs, patience=case.head_epochs)
    return lambda: train_head([folder / "features"], folder / "head", patient)


def peak_mb() -> float:
    """Return the most memory that this process had at once.

    `ru_maxrss` would not do: a child takes over the peak of the process that started it.
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    told = measured_here(sys.argv[1], Path(sys.argv[2]), GrowthCase(**json.loads(sys.argv[3])))
    print(json.dumps(asdict(told)))
