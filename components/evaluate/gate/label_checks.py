"""The gate's checks of a model that predicts several labels an image, in place of its accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from components.evaluate.gate.baseline import BASELINE
from components.evaluate.gate.limits import at_least, format_value, is_known
from components.evaluate.metrics.multilabel import MACRO_F1, MEAN_AP
from regraft_core.formats.manifests.evaluation import Check
from regraft_core.formats.options.evaluate import GateOptions


@dataclass(frozen=True)
class LabelEvidence:
    """The metrics of the test split by name, without those that are not available.

    `chance` is the mean of the mean average precision (mAP) of the same predictions for shuffled
    images, and `chance_high` what only 5% of these exceed.
    """

    metrics: Mapping[str, float]
    chance: float | None
    chance_high: float | None


def check_labels(evidence: LabelEvidence, options: GateOptions) -> Iterator[Check]:
    """Yield the checks of mAP and macro F1 against their minimums, and of the mAP against chance.

    That of the macro F1 is only there with a minimum. Minimums are reached as that of the accuracy
    is, by `accuracy_rule`.
    """
    for name, metric, minimum in (
        ("mAP", MEAN_AP, options.min_map), ("macro F1", MACRO_F1, options.min_macro_f1)
    ):  # fmt: skip
        if metric == MACRO_F1 and minimum == 0:
            continue
        estimate, low = evidence.metrics.get(metric), evidence.metrics.get(f"{metric}_low")
        by_bound = options.accuracy_rule == "lower_bound"
        what = "lower bound of the 95% interval" if by_bound else "point estimate"
        check = at_least(name, low if by_bound else estimate, minimum, what)
        # A bound without its estimate, or the reverse, is not evidence.
        both = is_known(estimate) and is_known(low)
        yield check.model_copy(update={"passed": check.passed and both})
    if options.baseline_rule == "off":
        return
    by_bound = options.baseline_rule == "lower_bound"
    limit = evidence.chance_high if by_bound else evidence.chance
    value = evidence.metrics.get(MEAN_AP)
    if not is_known(limit) or not is_known(value):
        yield Check(name=BASELINE, expected="above the mAP by chance", received="not available",
                    passed=False)  # fmt: skip
        return
    what = "mAP of 95% of shuffled predictions" if by_bound else "mean mAP of shuffled predictions"
    yield Check(
        name=BASELINE,
        expected=f"above {limit:.4g} ({what})",
        received=f"{format_value(value, limit)} (mAP)",
        passed=value > limit,
    )
