"""The check of the accuracy by slice.

No slice may be shown to be below the minimum. A slice with so few images that even without an error
they would not show that it reaches the minimum is too small to judge, and the check says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from components.evaluate.metrics.slices import SliceMetrics, probabilities_by_chance
from regraft_core.formats.manifests.evaluation import Check

SIGNIFICANCE = 0.05
SHOWN_SLICES = 5


def check_slices(
    slices: Sequence[SliceMetrics], minimum: float, untested: Sequence[str] = ()
) -> Iterator[Check]:
    """Yield the check of all slices, if there is a minimum.

    It fails if one is shown to be below, or if all are too small to judge.

    Args:
        slices: those with test images.
        minimum: of the accuracy; 0 is none.
        untested: names of those without.
    """
    if minimum == 0:
        return
    needed = needed_images(minimum)
    chances = probabilities_by_chance(slices, minimum)
    below = [
        f"{one.name}: {one.accuracy:.4g} ({one.correct} of {one.images}, p = {p:.2g})"
        for one, p in zip(slices, chances, strict=True)
        if p < SIGNIFICANCE
    ]
    small = [
        f"{one.name} ({one.correct} of {one.images})"
        for one, p in zip(slices, chances, strict=True)
        if p >= SIGNIFICANCE and one.images < needed
    ]
    judged = len(slices) - len(small)
    parts = [f"below: {_list(below)}"] if below else []
    parts += [f"none below of {judged} judged"] if judged and not below else []
    if small:
        parts.append(f"too small to judge, with fewer than {needed} images: {_list(small)}")
    if untested:
        parts.append(f"without a test image: {_list(untested)}")
    yield Check(
        name="accuracy by slice",
        expected=f"no slice significantly below {minimum:.4g} (p >= {SIGNIFICANCE:g}, Holm)",
        received="; ".join(parts) or "not available",
        passed=judged > 0 and not below,
    )


def needed_images(minimum: float) -> int:
    """Return the fewest images that show an accuracy above the minimum if all are correct."""
    return math.ceil(math.log(SIGNIFICANCE) / math.log(minimum) - 1e-9) if minimum < 1 else 1


def _list(texts: Sequence[str]) -> str:
    more = f"; and {len(texts) - SHOWN_SLICES} more" if len(texts) > SHOWN_SLICES else ""
    return "; ".join(texts[:SHOWN_SLICES]) + more
