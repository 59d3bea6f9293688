"""The page of a check of drift: one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from components.evaluate.report import charts
from regraft.drift.report import DriftCheck
from regraft_core.drift.check import TestName
from regraft_core.formats.manifest_storage import write_text
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.version import VERSION

TITLES: dict[TestName, str] = {
    "classes": "predicted classes",
    "classifier": "features (classifier)",
    "mean_discrepancy": "features (MMD)",
    "familiarity": "familiarity",
    "combined": "all together",
}
STATISTICS: dict[TestName, str] = {
    "classes": "total variation distance",
    "classifier": "area under the curve",
    "mean_discrepancy": "squared MMD",
    "familiarity": "chance to be lower",
    "combined": "Fisher's statistic",
}
MAX_CLASSES, MAX_POINTS, BINS = 40, 400, 20


def write_page(check: DriftCheck, path: Path) -> None:
    """Write the page, so that a reader sees the old content or all of the new one.

    Raises:
        InputError: it cannot be written.
    """
    try:
        write_text(path, render(check).encode("utf-8", "replace").decode())
    except OSError as error:
        raise InputError(f"--html: cannot write {path}: {error.strerror}") from error


def render(check: DriftCheck) -> str:
    """Return the page; charts without data are omitted."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([Path(__file__).parent, Path(charts.__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": lambda value: charts.percent(value, 1)}
    return environment.get_template("page.html.j2").render(
        report=check.report,
        titles=TITLES,
        statistics=STATISTICS,
        generator=VERSION,
        charts={
            "classes": _class_chart(check),
            "plane": _plane(check),
            "familiarity": _familiarity(check),
        },
    )


def _class_chart(check: DriftCheck) -> Markup:
    """Draw the fractions of the classes that have changed most."""
    classes = sorted(check.report.classes, key=lambda one: -abs(one.images - one.reference))
    rows: list[tuple[str, Sequence[tuple[str, float]], str]] = []
    for one in classes[:MAX_CLASSES]:
        rows.append((one.name, [("muted", one.reference)], charts.percent(one.reference, 1)))
        rows.append(("", [("fill", one.images)], charts.percent(one.images, 1)))
    return charts.bars(rows, "fractions of the predicted classes: reference, then images")


def _plane(check: DriftCheck) -> Markup:
    """Draw the images on the first two axes of the reference, in standard deviations."""
    axes = check.reference.axes[:2].astype(np.float64)
    if len(axes) < 2:
        return Markup("")
    lines = []
    groups = {"before": check.reference.features, "after": check.observed.features}
    for kind, features in groups.items():
        centered = features[:: max(len(features) // MAX_POINTS, 1)] - check.reference.mean
        places = centered @ axes.T / np.square(axes).sum(axis=1)
        lines.append(charts.Line(kind, [(float(x), float(y)) for x, y in places]))
    return charts.scatter(lines, "images on the reference's two axes of the largest variance")


def _familiarity(check: DriftCheck) -> Markup:
    """Draw the two histograms of the familiarity."""
    scores = {"train": check.reference.familiarity, "validation": check.observed.familiarity}
    known = {kind: one[np.isfinite(one)] for kind, one in scores.items()}
    if not all(len(one) for one in known.values()):
        return Markup("")
    # A few extreme scores would otherwise fill the chart.
    low, high = np.percentile(np.concatenate([*known.values()]), (2, 100))
    edges = np.linspace(low, max(high, low + 1e-6), BINS + 1)
    lines = [charts.Line(kind, _histogram(one, edges)) for kind, one in known.items()]
    return charts.curves(lines, "fraction of the images by familiarity", fraction=True)


def _histogram(scores: NDArray[Any], edges: NDArray[Any]) -> list[tuple[float, float]]:
    counts, _ = np.histogram(np.clip(scores, edges[0], edges[-1]), edges)
    centers = (edges[:-1] + edges[1:]) / 2
    return [(float(x), float(y)) for x, y in zip(centers, counts / len(scores), strict=True)]
