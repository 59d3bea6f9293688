"""The page of all metrics: of an evaluation, of the server and of a check of drift."""

from __future__ import annotations

from components.evaluate.metrics.classification import TOP_K
from regraft_core.images.corruptions import CORRUPTIONS

RATIO, NUMBER, CHANCE = "0 to 1", "number", "p-value"
# Metrics on the test split by name: unit, and meaning. `_low` and `_high` are bounds of a 95%
# interval.
ONE_LABEL = {
    "test_images": ("images", "Number of test images."),
    "test_accuracy": (RATIO, "Fraction of the images whose predicted class is correct."),
    "test_accuracy_low": (RATIO, "Lower bound of its interval (Wilson)."),
    "test_accuracy_high": (RATIO, "Upper bound of its interval (Wilson)."),
    **{
        f"test_top{k}_accuracy": (
            RATIO, f"Fraction of the images whose class is among the {k} most probable ones; "
            f"with more than {k} classes.",
        )
        for k in TOP_K
    },
    "macro_f1": (RATIO, "Mean over classes of the harmonic mean of precision and recall."),
    "log_loss": ("nats", "Mean negative logarithm of the true class's probability."),
    "roc_auc": (RATIO, "Area under the ROC curve, one class against the rest, mean over classes."),
    "calibration_error": (RATIO, "Expected calibration error of the served probabilities."),
    "calibration_error_before": (RATIO, "The same before the temperature was applied."),
    "objective_score": (RATIO, "What `--optimize` chooses, on the test split."),
    "objective_score_low": (RATIO, "Lower bound of its interval."),
    "constant_score": (RATIO, "The same of a model that always predicts the best single class."),
    "lowest_recall_high": (RATIO, "Lowest upper bound of a class's recall."),
    "worst_slice_accuracy": (RATIO, "Accuracy of the worst slice, with `--slices`."),
    "set_coverage": (
        RATIO, "Fraction of the prediction sets that contain the true class, with `--coverage`."
    ),
    "mean_set_size": ("classes", "Mean number of classes in a prediction set."),
    "accepted_fraction": (
        RATIO, "Fraction of the images for which the model does not abstain, with "
        "`--abstain-precision`.",
    ),
    "accepted_precision": (RATIO, "Accuracy on these images."),
    **{
        f"corruption_drop_{kind}": (
            RATIO, f"Mean loss of accuracy on images with the corruption `{kind}`, if it was "
            "measured.",
        )
        for kind in CORRUPTIONS
    },
}  # fmt: skip
SEVERAL_LABELS = {
    "test_images": ("images", "Number of test images."),
    "mean_average_precision": (RATIO, "Mean over labels of the average precision."),
    "chance_map": (RATIO, "The same of predictions that ignore the image."),
    "macro_f1": (RATIO, "Mean over labels of F1."),
    "micro_f1": (RATIO, "F1 of all decisions together."),
    **{
        f"{name}_{side}": (RATIO, f"{word} bound of its interval (bootstrap over images).")
        for name in ("mean_average_precision", "macro_f1", "micro_f1")
        for side, word in (("low", "Lower"), ("high", "Upper"))
    },
    "exact_match": (RATIO, "Fraction of the images with all labels correct."),
    "log_loss": ("nats", "Mean binary log loss of all labels."),
    "calibration_error": (RATIO, "Expected calibration error of all labels together."),
    "lowest_recall_high": (RATIO, "Lowest upper bound of a label's recall."),
    "champion_map": (RATIO, "Mean average precision of the champion on the same images."),
}
BOTH = {
    "ood_auroc": (RATIO, "How well the familiarity separates `--ood-images` from test images."),
    "champion_accuracy": (
        RATIO,
        "Accuracy of the champion on the same images; one label an image.",
    ),
    "champion_difference": ("-1 to 1", "Main metric minus that of the champion."),
    "champion_difference_low": ("-1 to 1", "Lower bound of its bootstrap interval."),
    "champion_difference_high": ("-1 to 1", "Upper bound of its bootstrap interval."),
    "champion_p_two_sided": (CHANCE, "McNemar's exact test, two-sided; one label an image."),
    "model_mb": ("MB", "Size of the model's file."),
    "latency_ms": ("ms", "Time per image from bytes to prediction, on the machine of the run."),
}
# Labels, and meaning, of the metrics of `/monitoring/prometheus/metrics`.
SERVER = {
    ":tensorflow:serving:request_count": (
        "counter", "`model_name`, `status`", "Requests by the name of their final status.",
    ),
    ":tensorflow:serving:request_latency": (
        "histogram, microseconds", "`model_name`, `API`, `entrypoint`", "Time of whole requests.",
    ),
    ":tensorflow:serving:runtime_latency": (
        "histogram, microseconds", "`model_name`, `API`, `runtime`",
        "Time of the model's computation.",
    ),
    ":regraft:serving:request_log_count": (
        "counter", "`outcome`", "Lines of the request log: `written`, or `dropped`.",
    ),
    ":regraft:serving:shadow_count": (
        "counter", "`outcome`", "Requests of the shadow: `predicted`, `failed`, or `dropped`.",
    ),
}  # fmt: skip
DRIFT = {
    "regraft_drift_alarm": ("0 or 1", "`test`", "Whether a test found a drift."),
    "regraft_drift_p_value": (CHANCE, "`test`", "Corrected for the number of tests."),
    "regraft_drift_statistic": (NUMBER, "`test`", "Statistic of a test."),
    "regraft_drift_images": ("images", "", "Images that were checked."),
    "regraft_drift_unfamiliar_ratio": (RATIO, "", "Fraction below the OOD threshold."),
    "regraft_drift_checked_timestamp_seconds": ("seconds since 1970", "", "Time of the check."),
}
TEXT = """
The metrics of an evaluation are on the test split. They have the same names in `metrics` of
`evaluation.json`, of `report.json` and of a run's `summary.json`, in the output of `regraft run
--json` and `regraft runs`, in the metrics of the step `evaluate` in Kubeflow, and in MLflow. A
metric that is not available is absent. [The report](../gate.md) shows them with their charts.
"""
SERVER_TEXT = """
`/monitoring/prometheus/metrics` on the REST port, in the names of TF Serving, and those that only
the embedded server has. [Monitor](../serving.md#monitor) explains how to enable the page, and what
to watch.
"""
DRIFT_TEXT = """
The file of `regraft drift --prometheus`, for the textfile collector of the node exporter. All have
the labels `model` and `version`. See [drift](../drift.md#in-a-schedule).
"""


def metrics_page(note: str) -> str:
    """Return the page of all metrics."""
    lines = [note, "# Metrics", *TEXT.splitlines()]
    sections = {
        "One label an image": ONE_LABEL,
        "Several labels an image": SEVERAL_LABELS,
        "Both": BOTH,
    }
    for title, rows in sections.items():
        lines += ["", f"## {title}", "", "| metric | unit | meaning |", "|---|---|---|"]
        lines += [f"| `{name}` | {unit} | {meaning} |" for name, (unit, meaning) in rows.items()]
    for title, text, named in (
        ("The server", SERVER_TEXT, SERVER), ("A check of drift", DRIFT_TEXT, DRIFT)
    ):  # fmt: skip
        lines += ["", f"## {title}", *text.splitlines(), ""]
        lines += ["| metric | type or unit | labels | meaning |", "|---|---|---|---|"]
        lines += [f"| `{name}` | {' | '.join(cells)} |" for name, cells in named.items()]
    return "\n".join(lines) + "\n"
