"""The KFP component `evaluate`."""

from typing import Dict

from kfp import dsl
from kfp.dsl import HTML, Artifact, ClassificationMetrics, Dataset, Input, Metrics, Model, Output

from regraft_core.runtime.container_image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate(
    options: Dict,
    candidates: Input[Artifact],
    dataset: Input[Dataset],
    evaluation: Output[Artifact],
    model: Output[Model],
    metrics: Output[Metrics],
    classification: Output[ClassificationMetrics],
    report: Output[HTML],
) -> bool:
    """Choose the best candidate on validation and apply the gate on the test split.

    Args:
        options: `GateOptions`, and `champion` (folder or URI), `champion_digest` (so that another
            one invalidates the cache) and `work_dir`; each may be empty.
        candidates: Complete candidates, trained on the dataset, in one folder.
        dataset: Dataset with its test split.
        evaluation: Verdict with all metrics and predictions.
        model: The chosen candidate.
        metrics: Metrics for the KFP UI.
        classification: Confusion matrix and ROC curve for the KFP UI.
        report: Report as a web page.

    Returns:
        Whether the gate accepted the model.
    """
    from components.evaluate.kfp_step import run

    return run(options, candidates, dataset, evaluation, model, metrics, classification, report)
