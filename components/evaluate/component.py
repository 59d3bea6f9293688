"""The KFP component `evaluate`."""

from typing import Dict

from kfp import dsl
from kfp.dsl import HTML, Artifact, ClassificationMetrics, Dataset, Input, Metrics, Model, Output

from regraft_core.runtime.container_image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate(
    candidates: Input[Artifact],
    dataset: Input[Dataset],
    evaluation: Output[Artifact],
    model: Output[Model],
    metrics: Output[Metrics],
    classification: Output[ClassificationMetrics],
    report: Output[HTML],
    min_accuracy: float = 0.0,
    accuracy_rule: str = "lower_bound",
    min_class_recall: float = 0.0,
    min_recall_by_class: Dict[str, float] = {},  # noqa: B006 - kfp stores it as a constant
    max_calibration_error: float = 1.0,
    max_model_mb: float = 0.0,
    max_latency_ms: float = 0.0,
    champion: str = "",
    champion_digest: str = "",
    champion_policy: str = "not-worse",
    champion_margin: float = 1.0,
    champion_significance: float = 0.05,
    ood_images: str = "",
    in_distribution_fraction: float = 0.95,
    batch_size: int = 32,
    seed: int = 0,
    require_gpu: bool = False,
    work_dir: str = "",
) -> bool:
    """Choose the best candidate on validation and apply the gate on the test split.

    Args:
        candidates: Complete candidates, trained on the dataset, in one folder.
        dataset: Dataset with its test split.
        evaluation: Verdict with all metrics and predictions.
        model: The chosen candidate.
        metrics: Metrics for the KFP UI.
        classification: Confusion matrix and ROC curve for the KFP UI.
        report: Report as a web page.
        min_accuracy: Minimum test accuracy (0 to 1); 0 disables the check.
        accuracy_rule: What must reach min_accuracy: `lower_bound` of the 95% interval or `point`.
        min_class_recall: Minimum recall of every class; 0 disables the check.
        min_recall_by_class: Minimum recall of single classes, overrides min_class_recall.
        max_calibration_error: Maximum calibration error after scaling; 1 disables the check.
        max_model_mb: Maximum model size in MB; 0 disables the check.
        max_latency_ms: Maximum latency per image in ms; 0 disables the check.
        champion: Folder or URI of the champion; may be empty or not exist yet.
        champion_digest: Digest of the champion, so that another one invalidates the cache.
        champion_policy: `not-worse` or `better`: required result of the champion test.
        champion_margin: Maximum accuracy drop against the champion; 1 disables the check.
        champion_significance: Significance level of the champion test.
        ood_images: Folder of out-of-distribution images to measure detection on; may be empty.
        in_distribution_fraction: Fraction of validation images that must be in-distribution.
        batch_size: Images per batch.
        seed: Random seed of the bootstrap.
        require_gpu: Stop at once if TensorFlow finds no GPU.
        work_dir: Folder or bucket URI for finished work and resuming; empty disables it.

    Returns:
        Whether the gate accepted the model.
    """
    from regraft_core.runtime.gpu_check import check_gpu
    from regraft_core.runtime.step_reports import run_step

    with run_step("evaluate"):
        check_gpu(require_gpu)
        from components.evaluate.kfp_outputs import evaluate_artifacts

        gate = {"min_accuracy": min_accuracy, "accuracy_rule": accuracy_rule,
                "min_class_recall": min_class_recall, "min_recall_by_class": min_recall_by_class,
                "max_calibration_error": max_calibration_error, "max_model_mb": max_model_mb,
                "max_latency_ms": max_latency_ms, "champion_policy": champion_policy,
                "champion_margin": champion_margin,
                "in_distribution_fraction": in_distribution_fraction,
                "champion_significance": champion_significance, "batch_size": batch_size,
                "seed": seed, "ood_images": ood_images, "require_gpu": require_gpu}  # fmt: skip
        outputs = {"evaluation": evaluation, "model": model, "metrics": metrics,
                   "classification": classification, "report": report}  # fmt: skip
        return evaluate_artifacts(candidates, dataset, outputs, gate, (champion, work_dir))
