"""The report: one self-contained HTML page, built from `report.json` without a model."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from pydantic import ValidationError

from components.evaluate.report import charts
from components.evaluate.report.report_data import ReportData
from regraft_core.formats.manifest_storage import write_text
from regraft_core.formats.manifests.evaluation import Check, EvaluationManifest
from regraft_core.formats.manifests.model import ModelManifest
from regraft_core.runtime.errors import InputError

REPORT_FILE = "report.html"
MAX_ROWS = 60
MAX_CELLS = 60
MAX_CONFUSIONS = 8
MAX_RECALL_CHECKS = 4
MAX_SLICES = 20
MAX_CURVES = 24
CHARTS = ("interval", "reliability", "confusion", "timings", "data", "parameters", "heads", "sizes",
          "set_sizes")  # fmt: skip


def rebuild_report(run_dir: str | os.PathLike[str]) -> Path:
    """Rebuild the report of a run from its stored data; return the path of the page.

    Args:
        run_dir: the folder of a run, or of an evaluation; the latest of several evaluations is
            used. The timings come from the run's `summary.json`, if there is one.

    Raises:
        InputError: the folder contains no finished evaluation, or its data cannot be read.
    """
    run = Path(run_dir)
    files = sorted(run.rglob(ReportData.file_name), key=lambda p: p.stat().st_mtime)
    if not files:
        raise InputError(f"expected a finished evaluation ({ReportData.file_name}) in {run}")
    try:
        data = ReportData.model_validate_json(files[-1].read_bytes())
    except (OSError, ValidationError) as error:
        line = " ".join(str(error).split())[:200]
        raise InputError(f"cannot read {files[-1]}: {line}") from error
    timings = _run_timings(run / "summary.json")
    if timings:
        data = data.model_copy(update={"timings": timings})
    page = files[-1].with_name(REPORT_FILE)
    write_text(page, render(data))
    return page


def _run_timings(summary: Path) -> dict[str, float]:
    try:
        timings = json.loads(summary.read_text(encoding="utf-8"))["timings"]
        return {str(step): float(seconds) for step, seconds in timings.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # an evaluation outside a run, or a run that has not finished


def render(data: ReportData) -> str:
    """Return the page; sections without data are omitted."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "number": _number, "seconds": _seconds}
    evaluation = data.evaluation
    chosen = next((m for m in data.models if m.digest == evaluation.model_digest), None)
    return environment.get_template("report.html.j2").render(
        data=data,
        evaluation=evaluation,
        metrics=evaluation.metrics,
        chosen=chosen,
        head_fits=_head_fits(chosen) if chosen else [],
        reasons=_reasons(data, chosen) if chosen else [],
        checks=_ordered_checks(evaluation),
        trainable={m.digest: m.parameters.trainable for m in data.models},
        seeds=_seeds(data),
        confusions=_confusions(evaluation),
        classes=_worst_classes(evaluation),
        labels=_label_rows(evaluation),
        precision_recall=_precision_recall(data),
        slices=_worst_slices(evaluation),
        corruptions=_corruptions(data),
        backbones=chosen.measurements.get("backbones") if chosen else None,
        search=next((found for m in data.models if (found := m.measurements.get("search"))), None),
        training_sizes=chosen.measurements.get("training_sizes") if chosen else None,
        curves=[curve for m in data.models if (curve := _learning(m)) is not None],
        charts=_charts(data, chosen),
    )


def _head_fits(model: ModelManifest) -> list[dict[str, Any]]:
    """Return the best fit of each levels and method in the head's cross-validation."""
    best: dict[tuple[str, str], dict[str, Any]] = {}
    for fit in sorted(model.measurements.get("cross_validation", []), key=lambda fit: fit["loss"]):
        best.setdefault((fit["levels"], fit["method"]), fit)
    return list(best.values())


def _percent(value: float | None, digits: int = 1) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    return charts.percent(value, digits)


def _number(value: Any) -> str:
    """Format a number with significant digits only, whole numbers with thin spaces."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if not math.isfinite(value):
        return "–"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}".replace(",", "\u202f")
    return f"{value:.4g}"


def _seconds(value: float) -> str:
    if value >= 90:
        return f"{int(value) // 60} min {int(value) % 60:02} s"
    return f"{value:.1f} s"


def _seeds(data: ReportData) -> dict[str, Any]:
    seeds = {f"{m.strategy}": m.options["seed"] for m in data.models if "seed" in m.options}
    return seeds | ({"bootstrap": data.options["seed"]} if "seed" in data.options else {})


def _known_timings(data: ReportData) -> dict[str, float]:
    """Return the seconds of the steps whose manifests are available."""
    timings = {"ingest": data.dataset.made_by.seconds}
    timings |= {f"train {m.strategy}": m.made_by.seconds for m in data.models}
    return timings | {"evaluate": data.evaluation.made_by.seconds}


def _ordered_checks(evaluation: EvaluationManifest) -> dict[str, list[Check]]:
    """Return the checks, failed ones first; many passed recall checks are collapsed."""
    checks = sorted(evaluation.checks, key=lambda check: check.passed)
    recalls = [check for check in checks if check.passed and check.name.startswith("recall of ")]
    collapsed = recalls if len(recalls) > MAX_RECALL_CHECKS else []
    return {"shown": [c for c in checks if c not in collapsed], "collapsed": collapsed}


def _confusions(evaluation: EvaluationManifest) -> list[tuple[str, str, int, float]]:
    """Return the most frequent errors: true label, label, count, fraction of the class's images."""
    names = evaluation.classes
    errors = [
        (names[i], names[j], count, count / sum(row))
        for i, row in enumerate(evaluation.confusion)
        for j, count in enumerate(row)
        if i != j and count
    ]
    return sorted(errors, key=lambda entry: (-entry[2], -entry[3]))[:MAX_CONFUSIONS]


def _worst_classes(evaluation: EvaluationManifest) -> list[tuple[Any, Markup]]:
    """Return the rows of the class table with their charts; of many classes, the worst ones."""
    rows = evaluation.per_class
    if len(rows) > MAX_ROWS:
        known = [row for row in rows if math.isfinite(row.recall)]
        rows = sorted(known, key=lambda row: row.recall)[:MAX_ROWS]
    return [(row, _span(row)) for row in rows]


def _span(row: Any) -> Markup:
    if not math.isfinite(row.recall):
        return Markup("")
    low, high = _percent(row.recall_low), _percent(row.recall_high)
    title = f"recall {_percent(row.recall)}, interval {low} to {high}"
    return charts.span(row.recall, row.recall_low, row.recall_high, title)


def _label_rows(evaluation: EvaluationManifest) -> dict[str, dict[str, float | None]]:
    """Return threshold and average precision by class; empty with one label an image."""
    labels = evaluation.details.get("labels")
    if labels is None:
        return {}
    rows = zip(labels["thresholds"], labels["average_precisions"], strict=True)
    return {
        name: {"threshold": threshold, "average_precision": area}
        for name, (threshold, area) in zip(evaluation.classes, rows, strict=True)
    }


def _precision_recall(data: ReportData) -> list[tuple[str, Markup]]:
    """Return the curves of the classes, of many those with the lowest average precision."""
    areas = {
        name: row["average_precision"] or 0.0 for name, row in _label_rows(data.evaluation).items()
    }
    chosen = {row.name: (row.recall, row.precision) for row in data.evaluation.per_class}
    worst = sorted(data.precision_recall, key=lambda name: areas[name])[:MAX_CURVES]
    return [
        (name, charts.precision_recall(name, data.precision_recall[name], chosen[name]))
        for name in data.precision_recall
        if name in worst
    ]


def _worst_slices(evaluation: EvaluationManifest) -> list[tuple[Any, Markup]]:
    """Return the slices with the lowest accuracies, the worst first, with their charts."""
    rows = evaluation.details.get("slices", [])[:MAX_SLICES]
    return [
        (row, charts.span(row["accuracy"], row["low"], row["high"], f"accuracy of {row['value']}"))
        for row in rows
    ]


def _corruptions(data: ReportData) -> list[dict[str, Any]]:
    """Return the kinds of corruption with the results and images at each strength."""
    found: dict[str, dict[str, Any]] = {}
    for row in data.evaluation.details.get("corruptions", []):
        images = data.corruption_examples.get(row["kind"], [])
        kind = found.setdefault(row["kind"], {"kind": row["kind"], "rows": [], "images": images})
        kind["rows"].append(row)
    return list(found.values())


def _reasons(data: ReportData, chosen: ModelManifest) -> list[str]:
    """Return the reasoning of the chosen candidate, then that of others that trained layers."""
    others = [
        f"{model.strategy}: {line}"
        for model in data.models
        if model.digest != chosen.digest and model.strategy != "head"
        for line in model.reasoning
        if line not in chosen.reasoning
    ]
    return [*chosen.reasoning, *others]


def _learning(model: ModelManifest) -> dict[str, Any] | None:
    """Return the two learning curves of a candidate, one phase after the other."""
    if not model.history:
        return None
    epochs = list(enumerate(model.history, start=1))
    marks: list[tuple[float, str]] = []
    for x, epoch in epochs:
        if not marks or epoch.phase != marks[-1][1]:
            marks.append((x, epoch.phase))
    marks = marks if len(marks) > 1 else []

    def draw(name: str, title: str, fraction: bool) -> Markup:
        lines = [
            charts.Line(kind, [(x, getattr(epoch, field)) for x, epoch in epochs])
            for kind, field in (("train", name), ("validation", f"validation_{name}"))
        ]
        return charts.curves(lines, f"{model.strategy}: {title}", fraction=fraction, marks=marks)

    return {
        "strategy": model.strategy,
        "epochs": len(epochs),
        "accuracy": draw("accuracy", "accuracy by epoch", True),
        "loss": draw("loss", "loss by epoch", False),
    }


def _charts(data: ReportData, chosen: ModelManifest | None) -> dict[str, Markup]:
    evaluation, metrics = data.evaluation, data.evaluation.metrics
    drawn = {name: Markup("") for name in CHARTS}
    for name, option, what in (
        ("test_accuracy", "min_accuracy", "test accuracy"),
        ("mean_average_precision", "min_map", "mean average precision"),
    ):
        value, low, high = (metrics.get(f"{name}{end}", math.nan) for end in ("", "_low", "_high"))
        if all(map(math.isfinite, (value, low, high))):
            required = data.options.get(option) or None
            title = f"{what} with its 95% interval"
            drawn["interval"] = charts.interval(value, low, high, required, title)
    if data.reliability_after:
        drawn["reliability"] = charts.reliability(
            data.reliability_before, data.reliability_after, "accuracy over confidence"
        )
    if evaluation.confusion and len(evaluation.classes) <= MAX_CELLS:
        drawn["confusion"] = charts.confusion(
            evaluation.confusion, evaluation.classes, "confusion matrix, true classes by row"
        )
    timings = data.timings or _known_timings(data)
    drawn["timings"] = charts.bars(
        [(step, [("fill", s)], _seconds(s)) for step, s in timings.items()], "seconds by step"
    )
    drawn["data"] = _data_chart(data)
    if sets := evaluation.details.get("prediction_sets"):
        rows = [(size, [("fill", float(n))], _number(n)) for size, n in sets["sizes"].items()]
        drawn["set_sizes"] = charts.bars(rows, "test images by labels in their set")
    if chosen is not None:
        drawn |= _parameter_charts(chosen)
        drawn["sizes"] = _size_chart(chosen.measurements.get("training_sizes", {}))
    return drawn


def _size_chart(curve: Mapping[str, Any]) -> Markup:
    sizes = curve.get("sizes", [])
    accuracies = [(size["images"], size["accuracy"]) for size in sizes]
    intervals = [(s["images"], s["accuracy_low"], s["accuracy_high"]) for s in sizes]
    return charts.curves(
        [charts.Line("validation", accuracies)], "validation accuracy by training images",
        fraction=True, intervals=intervals,
    )  # fmt: skip


def _data_chart(data: ReportData) -> Markup:
    splits = data.dataset.splits
    rows = []
    for name in data.dataset.classes[:MAX_ROWS]:
        counts: Mapping[str, int] = {s: splits[s].by_class.get(name, 0) for s in splits}
        parts = [(split, float(count)) for split, count in counts.items()]
        rows.append((name, parts, _number(sum(counts.values()))))
    return charts.bars(rows, "images by class and split") if rows else Markup("")


def _parameter_charts(model: ModelManifest) -> dict[str, Markup]:
    parameters, heads = model.parameters, model.head_parameters
    parts = [
        (kind, [(style, float(count))], _number(count))
        for kind, style, count in (
            ("trainable", "fill", parameters.trainable),
            ("frozen", "muted", parameters.frozen),
            ("total", "muted", parameters.total),
        )
    ]
    drawn = {"parameters": charts.bars(parts, "parameters of the chosen model")}
    if heads:
        chosen = model.head.get("pooling")
        rows = [
            (kind, [("fill" if kind == chosen else "muted", float(count))], _number(count))
            for kind, count in heads.items()
        ]
        drawn["heads"] = charts.bars(rows, "parameters of a head by pooling")
    return drawn
