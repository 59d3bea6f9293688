"""The evaluation step's KFP face."""

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
    """Choose the best candidate on validation and judge it on the test split.

    Args:
        candidates: Complete candidates, all trained on the dataset.
        dataset: the dataset with its test split.
        evaluation: The verdict with all metrics and predictions.
        model: The chosen candidate.
        metrics: the figures, for the KFP UI.
        classification: confusion matrix and ROC curve, for the KFP UI.
        report: the page that a person reads before trusting the model.
        min_accuracy: what the test accuracy must reach, 0 to 1.
        accuracy_rule: what is compared, "lower_bound" of the 95 % Wilson interval or "point".
        min_class_recall: what the recall of every class must reach; 0 is no floor.
        min_recall_by_class: floors of single classes by name, in place of min_class_recall.
        max_calibration_error: the most that confidence may be off, after scaling; 1 is no limit.
        max_model_mb: the largest model in megabytes; 0 is no limit.
        max_latency_ms: the longest time for one image in milliseconds; 0 is no limit.
        champion: Folder or URL of the champion's version; empty without one.
        champion_digest: Its digest; another champion is another input for the cache.
        champion_policy: "not-worse" (beyond noise) or "better" (beyond noise).
        champion_margin: the largest drop against the champion, even within noise; 1 is no limit.
        champion_significance: the chance to reject an equal model that is accepted.
        ood_images: folder of images of no class, to measure familiarity by; may be empty.
        in_distribution_fraction: the share of validation images that must count as familiar.
        batch_size: images a batch.
        seed: of the bootstrap.
        require_gpu: Fail immediately if no GPU is visible.
        work_dir: Folder or bucket for finished work and for resuming; empty disables it.

    Returns:
        Whether the model may go out.
    """
    from regraft_core.runtime.gpu_check import check_gpu
    from regraft_core.runtime.step import run_step

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
