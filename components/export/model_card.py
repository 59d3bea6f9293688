"""The model card: metrics, usage, provenance and limits of a model, as Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from components.export.int8 import Int8Test
from regraft_core.formats.manifests.evaluation import EvaluationManifest
from regraft_core.formats.manifests.model import ModelManifest
from regraft_core.formats.manifests.saved_model import SavedModelManifest
from regraft_core.formats.run_outcome import main_metric
from regraft_core.runtime.printable import markdown_text, one_line

_SHOWN_CLASSES = 50


def model_card(
    exported: SavedModelManifest, model: ModelManifest, evaluation: EvaluationManifest
) -> str:
    """Return the model card of an exported model."""
    several = "labels" in evaluation.details
    px = model.preprocessing.image_px
    backbone = one_line(model.backbone_label).replace("`", "")
    parts = [
        "# Model card",
        f"An image classifier for {len(model.classes)} classes: a head on the backbone "
        f"`{backbone}`, trained with strategy `{model.strategy}`."
        + (" An image may have several of them, or none." if several else ""),
        "## Metrics on the test split",
        _scores(evaluation.metrics),
        _class_table(evaluation),
        "## Gate checks",
        _table(
            ("check", "expected", "received", "passed"),
            [
                (check.name, check.expected, check.received, "yes" if check.passed else "no")
                for check in evaluation.checks
            ],
        ),
        "## Usage",
        _signatures(exported),
        "Images are decoded, rotated by their EXIF orientation and resized to "
        f"{px} x {px} pixels in the graph. An image that cannot be decoded fails its batch with "
        "INVALID_ARGUMENT and its index; send the other images again without it.",
        *_formats(exported),
        "## Provenance",
        _table(
            ("name", "value"),
            [
                ("dataset digest", model.dataset_digest),
                ("model digest", model.digest),
                ("evaluation digest", evaluation.digest),
                ("weights", f"{model.weights} ({model.weights_digest[:12]})"),
                ("temperature", f"{evaluation.temperature:.4f}"),
                *((f"version of {name}", value) for name, value in exported.versions.items()),
            ],
        ),
        "## Limits",
        ("" if several else "The model predicts one of these classes for every image. ")
        + "Its metrics are valid only for images similar to those of the test split.",
    ]
    return "\n\n".join(parts) + "\n"


def _scores(metrics: Mapping[str, float]) -> str:
    """Return the accuracy, or with several labels an image what replaces it, with intervals."""
    names = {"test_accuracy": "Accuracy"}
    if main_metric(metrics) not in names:
        names = {
            "mean_average_precision": "Mean average precision",
            "macro_f1": "macro F1",
            "micro_f1": "micro F1",
            "exact_match": "all labels of an image correct",
        }
    texts = []
    for name, text in names.items():
        low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
        known = low is not None and high is not None
        interval = f" (95% interval {low:.4f} to {high:.4f})" if known else ""
        texts.append(f"{text} {metrics.get(name, math.nan):.4f}{interval}")
    return f"{'; '.join(texts)}."


def _class_table(evaluation: EvaluationManifest) -> str:
    labels = evaluation.details.get("labels")
    header = ["class", "images", "precision", "recall", "F1"]
    rows = [
        [row.name, str(row.support), *(f"{x:.3f}" for x in (row.precision, row.recall, row.f1))]
        for row in evaluation.per_class[:_SHOWN_CLASSES]
    ]
    if labels:
        header += ["average precision", "threshold"]
        areas = labels["average_precisions"]
        for row, area, threshold in zip(rows, areas, labels["thresholds"], strict=False):
            row += ["–" if area is None else f"{area:.3f}", f"{threshold:.4f}"]
    return _table(tuple(header), [tuple(row) for row in rows])


def _formats(exported: SavedModelManifest) -> list[str]:
    """Return the section on the additional formats, if there are any."""
    written, left_out = (exported.details.get(name) for name in ("formats", "formats_left_out"))
    if not written and not left_out:
        return []
    rows: list[tuple[str, ...]]
    rows = [(file, _format(found)) for file, found in (written or {}).items()]
    rows += [(name, f"left out: {_format(found)}") for name, found in (left_out or {}).items()]
    return ["## Additional formats", _table(("file", "compared with the model"), rows)]


def _format(found: dict[str, Any]) -> str:
    if "max_abs_diff" in found:
        return f"probabilities within {found['max_abs_diff']:.1g}"
    return str(Int8Test(**found))


def _signatures(exported: SavedModelManifest) -> str:
    descriptions: dict[str, str] = exported.details.get("signatures", {})
    return "\n".join(f"- `{name}`: {text}" for name, text in descriptions.items())


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    escaped = [list(map(markdown_text, row)) for row in rows]
    lines = [header, ["---"] * len(header), *escaped]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
