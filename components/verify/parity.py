"""Compares served predictions with the trained model's: arithmetic and a table, no server."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from regraft_core.formats.manifests.parity import ParityManifest, ParityRow
from regraft_core.formats.served_thresholds import NO_THRESHOLDS, ServedThresholds

_SHOWN_ROWS = 12
TF32_NOTE = (
    "not verified: NVIDIA_TF32_OVERRIDE turns TF32 on, so predictions depend on the batch size; "
    "set NVIDIA_TF32_OVERRIDE=0 for this run and for the server"
)


@dataclass(frozen=True)
class Predicted:
    """The prediction for one image: a label and probabilities float [classes].

    `label_set` is which labels are in its set, bool [classes], `abstain` whether the model
    abstains, and `selected` which of several labels the image gets, bool [classes]; None if the
    model does not report it.
    """

    label: str
    probabilities: NDArray[np.floating]
    label_set: NDArray[np.bool_] | None = None
    abstain: bool | None = None
    selected: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class ParityCase:
    """One image: its path, its true class or classes, and the prediction of the trained model."""

    image: str
    true_label: str
    expected: Predicted


def compare(
    cases: Sequence[ParityCase],
    served: Mapping[str, Sequence[Predicted]],
    thresholds: ServedThresholds = NO_THRESHOLDS,
) -> list[ParityRow]:
    """Return one row per image: the served prediction of each protocol, and its difference.

    Args:
        cases: the images, in the order in which they were sent.
        served: the served predictions by protocol, in the same order.
        thresholds: those of the exported model.
    """
    return [
        ParityRow(
            image=case.image,
            true_label=case.true_label,
            label=case.expected.label,
            probability=float(np.max(case.expected.probabilities)),
            served={protocol: predicted[i].label for protocol, predicted in served.items()},
            max_abs_diff={
                protocol: max(
                    difference(case.expected, predicted[i]),
                    decision_difference(case.expected, predicted[i], thresholds),
                )
                for protocol, predicted in served.items()
            },
        )
        for i, case in enumerate(cases)
    ]


def difference(expected: Predicted, served: Predicted) -> float:
    """Return the maximum difference between probabilities; infinite if they are not comparable.

    If the labels differ, it is at least the margin of the expected label, so that only ties pass.
    """
    trained, received = np.asarray(expected.probabilities), np.asarray(served.probabilities)
    if trained.shape != received.shape or not np.isfinite(received).all():
        return math.inf
    maximum = float(np.max(np.abs(trained - received)))
    if expected.label != served.label:
        first, second = np.sort(trained)[::-1][:2]
        maximum = max(maximum, float(first - second))
    return maximum


def decision_difference(
    expected: Predicted, served: Predicted, thresholds: ServedThresholds
) -> float:
    """Return by how much the probabilities of other decisions miss their threshold, at most.

    Only labels at the threshold may be in one set and not in the other, and likewise images of
    which one model abstains; infinite if only one of the models decides.
    """
    maximum = 0.0
    for limits, own, other in (
        (thresholds.set_probability, expected.label_set, served.label_set),
        (thresholds.by_label, expected.selected, served.selected),
    ):
        if limits is None:
            continue
        if own is None or other is None or len(own) != len(other):
            return math.inf
        differs = own != other
        predicted = [int(np.argmax(one.probabilities)) for one in (expected, served)]
        if predicted[0] != predicted[1] and own is expected.label_set:
            differs[predicted] = False  # always in the set, and `difference` compares them
        missed = abs(expected.probabilities - np.asarray(limits)) * differs
        maximum = max(missed.tolist(), default=0.0)
    if (limit := thresholds.accepted_confidence) is not None:
        if expected.abstain is None or served.abstain is None:
            return math.inf
        if expected.abstain != served.abstain:
            maximum = max(maximum, abs(float(np.max(expected.probabilities)) - limit))
    return maximum


def worst_by_protocol(rows: Sequence[ParityRow]) -> dict[str, float]:
    """Return the maximum difference of each protocol over all rows."""
    protocols = rows[0].max_abs_diff if rows else {}
    return {name: max(row.max_abs_diff[name] for row in rows) for name in protocols}


def failure(rows: Sequence[ParityRow], tolerance: float) -> str | None:
    """Return an error message about the worst image, or None if all are within `tolerance`."""
    row = max(rows, key=lambda row: max(row.max_abs_diff.values()))
    protocol = max(row.max_abs_diff, key=lambda name: row.max_abs_diff[name])
    if row.max_abs_diff[protocol] <= tolerance:
        return None
    failed = sum(max(r.max_abs_diff.values()) > tolerance for r in rows)
    return (
        f"{failed} of {len(rows)} images: served and trained predictions differ; worst: "
        f"{row.image} by {protocol}: expected {row.label} within {tolerance:g}, "
        f"got {row.served[protocol]}, difference {row.max_abs_diff[protocol]:.3g}"
    )


def parity_table(parity: ParityManifest) -> str:
    """Return the parity report as Markdown, worst images first."""
    outcome = "passed" if parity.passed else "**failed**"
    protocols = list(parity.max_abs_diff)
    lines = [
        "# Parity of served and trained predictions",
        "",
        f"{parity.images} test images, engine {parity.engine}: {outcome} with tolerance "
        f"{parity.tolerance:g}. Maximum difference: "
        + ", ".join(f"{name} {value:.3g}" for name, value in parity.max_abs_diff.items())
        + ".",
        "",
        *_conditions(parity),
        *_other_variants(parity),
        *_decisions(parity),
        "| image | true class | trained | probability | "
        + " | ".join(f"{name} | difference" for name in protocols)
        + " |",
        "|" + "---|" * (4 + 2 * len(protocols)),
    ]
    rows = sorted(parity.rows, key=lambda row: -max(row.max_abs_diff.values()))
    for row in rows[:_SHOWN_ROWS]:
        cells = [row.image, row.true_label, row.label, f"{row.probability:.4f}"]
        for name in protocols:
            cells += [row.served[name], f"{row.max_abs_diff[name]:.2g}"]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    if len(rows) > _SHOWN_ROWS:
        lines += ["", f"The other {len(rows) - _SHOWN_ROWS} are in `parity.json`."]
    return "\n".join(lines) + "\n"


def _decisions(parity: ParityManifest) -> list[str]:
    """Return the lines about sets of labels and abstention, if the model has them."""
    if not parity.decisions:
        return []
    names = " and ".join(f"`{name}`" for name in parity.decisions)
    return [f"The differences include {names}: a decision that differs counts as the distance of "
            "its probability from the threshold.", ""]  # fmt: skip


def _other_variants(parity: ParityManifest) -> list[str]:
    """Return a line about each other way in which the model was verified."""
    found = {
        "In bfloat16": (parity.bfloat16_max_abs_diff, parity.bfloat16_tolerance),
        "With OpenVINO": (parity.openvino_max_abs_diff, parity.openvino_tolerance),
        "With OpenVINO in bfloat16": (
            parity.openvino_bfloat16_max_abs_diff,
            parity.bfloat16_tolerance,
        ),
    }
    lines = []
    for name, (by_protocol, tolerance) in found.items():
        if by_protocol:
            worst = ", ".join(f"{protocol} {value:.3g}" for protocol, value in by_protocol.items())
            lines += [f"{name}, tolerance {tolerance:g}: {worst}.", ""]
    return lines


def _conditions(parity: ParityManifest) -> list[str]:
    """Return the lines about device, precision and batch sizes, if they are recorded."""
    if not parity.device:
        return []
    sizes = "; ".join(
        f"{side} model: batches of {' and '.join(map(str, found))}"
        for side, found in parity.batches.items()
    )
    lines = [f"Device: {parity.device}; precision: {parity.precision}; {sizes}.", ""]
    return lines if parity.verified else [*lines, f"**{TF32_NOTE[0].upper()}{TF32_NOTE[1:]}.**", ""]
