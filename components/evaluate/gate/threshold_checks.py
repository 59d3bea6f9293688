"""The checks of prediction sets and abstention: what was chosen must hold on the test split.

A result fails if so few covered or correct images have a probability below 5%. Sets and thresholds
that hold pass in at least 95% of runs, however few test images there are.
"""

from __future__ import annotations

from collections.abc import Iterator

from components.evaluate.metrics.abstention import Abstention
from components.evaluate.metrics.prediction_sets import PredictionSets
from regraft_core.formats.manifests.evaluation import Check

SIGNIFICANCE = 0.05


def check_sets(sets: PredictionSets | None) -> Iterator[Check]:
    """Yield the check of the coverage, if there are sets."""
    if sets is None:
        return
    enough = sets.held_out_images >= sets.needed_images
    if not enough:
        received = f"only {sets.held_out_images} held-out images, expected {sets.needed_images}"
    else:
        received = _received(sets.test_coverage, sets.covered, sets.test_images, sets.p_shortfall)
    yield Check(
        name="coverage",
        expected=_expected(sets.coverage),
        received=received,
        passed=enough and sets.p_shortfall >= SIGNIFICANCE,
    )


def check_abstention(abstention: Abstention | None) -> Iterator[Check]:
    """Yield the check of the precision, if the model abstains."""
    if abstention is None:
        return
    if abstention.threshold is None:
        received = (
            f"no confidence is enough on {abstention.held_out_images} held-out images; without an "
            f"error, {abstention.needed_images} accepted ones are"
        )
    else:
        received = _received(
            abstention.test_precision, abstention.correct, abstention.accepted,
            abstention.p_shortfall,
        )  # fmt: skip
    yield Check(
        name="precision when not abstaining",
        expected=_expected(abstention.precision),
        received=received,
        passed=abstention.p_shortfall >= SIGNIFICANCE,
    )


def _expected(wanted: float) -> str:
    return f"not significantly below {wanted:.4g} (p >= {SIGNIFICANCE:g})"


def _received(fraction: float, hits: int, images: int, p: float) -> str:
    if not images:
        return "no test image"
    return f"{fraction:.4g} ({hits} of {images} images), p = {p:.4g}"
