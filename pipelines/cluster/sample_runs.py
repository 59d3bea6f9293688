"""The rates of a machine, from two short runs of different sizes on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.cluster.runtime_estimate import RELEASE_STEPS, Rates, head_images
from regraft_core.runtime.errors import InputError

NO_LIMIT = 1e12
"""The rate of a step whose time does not depend on the number of images."""
SMALLEST_RATIO = 1.5
"""Of the images of two runs: below it, what they differ by is noise."""


@dataclass(frozen=True)
class SampleRun:
    """The images of each split of a run, the epochs of `top`, and the seconds of each step."""

    train: int
    validation: int
    test: int
    top_epochs: int
    seconds: Mapping[str, float]

    @property
    def images(self) -> int:
        """All images."""
        return self.train + self.validation + self.test


def rates_of_samples(first: SampleRun, second: SampleRun, sizes: Rates) -> Rates:
    """Return start-up times and rates of all steps, fitted to two runs.

    Each step is a line through two points, that of the head by `head_images` and that of
    fine-tuning by the images of the epochs that were trained. If the larger run was not slower, the
    step's time is taken as constant.

    Args:
        first: a run.
        second: a run with another number of images, and the same recipe.
        sizes: the sizes per image.

    Raises:
        InputError: the runs have about the same number of images, or a step is missing in one.
    """
    small, large = sorted((first, second), key=lambda run: run.images)
    starts: dict[str, float] = {}

    def rate(step: str, counts: tuple[float, float]) -> float:
        starts[step], found = _line(step, small, large, counts)
        return found

    rates = Rates(
        ingest_rate=rate("ingest", (small.images, large.images)),
        extract_rate=rate(
            "extract_features", (small.train + small.validation, large.train + large.validation)
        ),
        head_rate=rate("train_head", (head_images(small.train), head_images(large.train))),
        top_rate=rate(
            "fine_tune", (small.top_epochs * small.train, large.top_epochs * large.train)
        ),
        evaluate_rate=rate("evaluate", (small.test, large.test)),
        image_kb=sizes.image_kb,
        pooled_kb=sizes.pooled_kb,
        activation_kb=sizes.activation_kb,
        ray_start_s=sizes.ray_start_s,
        starts=starts,
    )
    for step in RELEASE_STEPS:  # a fixed number of images is verified
        starts[step] = (small.seconds.get(step, 0.0) + large.seconds.get(step, 0.0)) / 2
    return rates


def _line(
    step: str, small: SampleRun, large: SampleRun, counts: tuple[float, float]
) -> tuple[float, float]:
    """Return the seconds at zero images, and the images per second.

    Of fine-tuning, the smaller run can have more `counts` than the larger one.
    """
    if step not in small.seconds or step not in large.seconds:
        raise InputError(f"expected two complete runs, found one without the time of {step}")
    seconds = small.seconds[step], large.seconds[step]
    (few, before), (many, after) = sorted(zip(counts, seconds, strict=True))
    if 0 < many < SMALLEST_RATIO * few:
        raise InputError(f"{step}: expected a run with at least {SMALLEST_RATIO:g} times the "
                         f"images of the other, over all epochs, got {few:.0f} and {many:.0f}; "
                         "give a larger one")  # fmt: skip
    if after <= before or many == 0:
        return (before + after) / 2, NO_LIMIT
    found = (many - few) / (after - before)
    start_s = before - few / found
    if start_s < 0:  # the line through zero and the larger run
        return 0.0, many / after
    return start_s, found
