"""The comparison of served answers with the trained model's: arithmetic and a table, no server."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from regraft_core.formats.manifests import ParityManifest, ParityRow

_SHOWN_ROWS = 12


@dataclass(frozen=True)
class Answer:
    """What was said of one image: a label and probabilities float [classes]."""

    label: str
    probabilities: NDArray[np.floating]


@dataclass(frozen=True)
class ParityCase:
    """One image that was sent: its name, its true class, and the trained model's own answer."""

    image: str
    true_label: str
    expected: Answer


def compare(asked: Sequence[ParityCase], served: Mapping[str, Sequence[Answer]]) -> list[ParityRow]:
    """Return one row per image: what each protocol answered and how far it is off.

    Args:
        asked: the images in the order in which they were sent.
        served: the answers by protocol, in the same order.
    """
    return [
        ParityRow(
            image=one.image,
            true_label=one.true_label,
            label=one.expected.label,
            probability=float(np.max(one.expected.probabilities)),
            served={protocol: answers[i].label for protocol, answers in served.items()},
            max_abs_diff={
                protocol: difference(one.expected, answers[i])
                for protocol, answers in served.items()
            },
        )
        for i, one in enumerate(asked)
    ]


def difference(expected: Answer, served: Answer) -> float:
    """Return the largest difference of a probability; infinite where they cannot be compared.

    Labels that differ make it at least the lead of the expected one, so that only a tie may differ.
    """
    ours, theirs = np.asarray(expected.probabilities), np.asarray(served.probabilities)
    if ours.shape != theirs.shape or not np.isfinite(theirs).all():
        return math.inf
    off = float(np.max(np.abs(ours - theirs)))
    if expected.label != served.label:
        first, second = np.sort(ours)[::-1][:2]
        off = max(off, float(first - second))
    return off


def worst_by_protocol(rows: Sequence[ParityRow]) -> dict[str, float]:
    """Return the largest difference of each protocol over all rows."""
    protocols = rows[0].max_abs_diff if rows else {}
    return {name: max(row.max_abs_diff[name] for row in rows) for name in protocols}


def failure(rows: Sequence[ParityRow], tolerance: float) -> str | None:
    """Return what to say of the worst image, or None where all are within `tolerance`."""
    row = max(rows, key=lambda row: max(row.max_abs_diff.values()))
    protocol = max(row.max_abs_diff, key=lambda name: row.max_abs_diff[name])
    if row.max_abs_diff[protocol] <= tolerance:
        return None
    bad = sum(max(r.max_abs_diff.values()) > tolerance for r in rows)
    return (
        f"{bad} of {len(rows)} images are served otherwise than trained; worst is {row.image} "
        f"by {protocol}: expected {row.label} within {tolerance:g}, "
        f"got {row.served[protocol]}, off by {row.max_abs_diff[protocol]:.3g}"
    )


def parity_table(parity: ParityManifest) -> str:
    """Return the proof as Markdown, worst images first."""
    outcome = "holds" if parity.passed else "**fails**"
    protocols = list(parity.max_abs_diff)
    lines = [
        "# Parity of served and trained answers",
        "",
        f"{parity.images} test images, engine {parity.engine}: {outcome} within "
        f"{parity.tolerance:g}. Largest difference: "
        + ", ".join(f"{name} {value:.3g}" for name, value in parity.max_abs_diff.items())
        + ".",
        "",
        "| image | true_label | trained | probability | "
        + " | ".join(f"{name} | off by" for name in protocols)
        + " |",
        "|" + "---|" * (4 + 2 * len(protocols)),
    ]
    rows = sorted(parity.rows, key=lambda row: -max(row.max_abs_diff.values(), default=0.0))
    for row in rows[:_SHOWN_ROWS]:
        cells = [row.image, row.true_label, row.label, f"{row.probability:.4f}"]
        for name in protocols:
            cells += [row.served[name], f"{row.max_abs_diff[name]:.2g}"]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    if len(rows) > _SHOWN_ROWS:
        lines += ["", f"The other {len(rows) - _SHOWN_ROWS} are in `parity.json`."]
    return "\n".join(lines) + "\n"
