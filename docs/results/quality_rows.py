"""The rows of benchmarks of predictions: accuracy, labels, intervals and drift."""

from __future__ import annotations

from typing import Any

from docs.results.values import Row, goal, with_prefix

# The rows of the accuracy benchmark with images, by the prefix of their metrics.
ACCURACY_ROWS = {
    "digits_64": "digits, 64 px",
    **{f"fashion_{n}": f"Fashion-MNIST, {images} images, 96 px"
       for n, images in (("1000", "1,000"), ("10000", "10,000"), ("60k", "60,000"))},
    **{f"{kind}_{n}": f"{kind}, {n} images per class, 96 px"
       for kind in ("photos", "faces") for n in (5, 10, 20)},
}  # fmt: skip


def accuracy(accuracy: Any) -> list[Row]:
    columns = ("regraft", "budget", "last_level", "keras")
    rows = []
    for prefix, name in ACCURACY_ROWS.items():
        value = with_prefix(accuracy, prefix)
        if f"{prefix}_lead" not in vars(accuracy):
            continue
        own, budget, lead = value("regraft_accuracy"), value("budget_accuracy"), value("lead")
        seeds = int(value("seeds"))
        few = prefix.startswith(("photos_", "faces_"))
        best = "the best of both" if few else "the logistic regression"
        goals = [goal(own)] if own.goal else []
        goals += [f"with a budget {goal(budget)}"] if budget.goal else []
        if lead.goal:
            goals += [f"{lead:+.1f} points above {best} ({goal(lead)})"]
        rows.append((
            f"{name}, test accuracy, {seeds} {'seeds' if seeds > 1 else 'seed'}: default run / run "
            "with a budget / logistic regression on the last level / Keras' guide",
            " / ".join(f"{value(f'{column}_accuracy'):.3f}" for column in columns),
            "; ".join(goals),
        ))  # fmt: skip
    rows.append((
        "from the features of 1,797 digits at 64 px, all levels, to a chosen and calibrated head",
        f"{accuracy.head_time_seconds:.1f} s",
        f"{goal(accuracy.head_time_seconds)} s",
    ))  # fmt: skip
    rows.append((
        "head of 1,000,000 made rows of 1,280 features and 100 classes, read from disk: time / "
        "memory / loss relative to convergence",
        f"{accuracy.million_seconds:.0f} s / {accuracy.million_memory / 1000:.1f} GB / "
        f"{accuracy.million_loss_ratio:.3f}",
        f"{goal(accuracy.million_seconds)} s / {goal(accuracy.million_memory, scale=1000)} GB / "
        f"{goal(accuracy.million_loss_ratio)}",
    ))  # fmt: skip
    return rows


def review(review: Any) -> list[Row]:
    return [
        (
            "review: changed labels (3%) of the digits among the first 5% of the images, lowest of "
            "five seeds",
            f"{review.found_min:.1%}",
            goal(review.found_min, percent=True),
        ),
        (
            "`suggest`: test accuracy of the digits with 40 labels, chosen / random",
            f"{review.suggest_accuracy_40:.3f} / {review.random_accuracy_40:.3f}",
            "",
        ),
    ]


def coverage(coverage: Any) -> list[Row]:
    covered, precise = coverage.tiny_coverage_0_99, coverage.tiny_precision_0_99
    return [
        (
            "sets of labels that shall contain the true one for 99% of the images, digits, `tiny`: "
            "fraction that does / labels in a set",
            f"{covered:.1%} / {coverage.tiny_set_size_0_99:.2f}",
            goal(covered, percent=True),
        ),
        (
            "predictions that shall be 99% correct where the model does not abstain, same images: "
            "fraction that is / accepted images",
            f"{precise:.1%} / {coverage.tiny_accepted_0_99:.1%}",
            goal(precise, percent=True),
        ),
    ]


def several_labels(labels: Any) -> list[Row]:
    return [
        (
            "digits in pairs, several labels per image: mean average precision / macro F1 on "
            "images of other digits",
            f"{labels.test_map:.3f} / {labels.test_macro_f1:.3f}",
            goal(labels.test_map),
        )
    ]


def label_intervals(intervals: Any) -> list[Row]:
    return [
        (
            "95% intervals of the mean average precision with the true one, made test splits of "
            "100 / 150 images; models that guess accepted by the gate's baseline",
            f"{intervals.good_corrected:.1%} / {intervals.excellent_corrected:.1%}; "
            f"{intervals.good_chance:.1%}",
            goal(intervals.good_chance, percent=True),
        )
    ]


def head_penalties(penalties: Any) -> list[Row]:
    before, after = penalties.many_features_loss_before, penalties.many_features_loss_after
    return [
        (
            "head of 6,400 made rows of 800 features, chosen on 400: log loss / accuracy on "
            "other rows, before and after its penalties and temperature are compared on all rows",
            f"{before:.3f} to {after:.3f} / {penalties.many_features_accuracy_before:.1%} to "
            f"{penalties.many_features_accuracy_after:.1%}",
            "",
        )
    ]


def drift(drift: Any) -> list[Row]:
    return [
        (
            "drift: false alarms of 500 checks of 200 images, significance 1%: digits / "
            "Fashion-MNIST",
            f"{drift.digits_false_alarms:.1%} / {drift.fashion_false_alarms:.1%}",
            goal(drift.digits_false_alarms, percent=True),
        ),
        (
            "200 images, checks that alarm, lower of the two: brighter / blurred / a fifth of a "
            "new class",
            f"{min(drift.digits_brightness_200, drift.fashion_brightness_200):.0%} / "
            f"{min(drift.digits_blur_200, drift.fashion_blur_200):.0%} / "
            f"{min(drift.digits_new_class_200, drift.fashion_new_class_200):.0%}",
            "",
        ),
    ]
