"""The KFP component `resolve`. Never cache or retry it: it finds changes of the inputs."""

from typing import Dict, List, NamedTuple

from kfp import dsl

from regraft_core.runtime.container_image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def resolve(
    sources: List[str],
    strategies: List[str],
    model_name: str,
    destination: str,
    champion: str,
    validation_fraction: float,
    test_fraction: float,
    min_per_class: int,
    max_invalid_fraction: float,
    max_pixels: int,
    near_duplicates: str,
    leakage: str,
    folders: str,
    slices: List[str],
    label_columns: List[str],
    label_separator: str,
    archive_encoding: str,
    seed: int,
    processes: int,
    sha256: str,
    mirrors: List[str],
    download_cache: str,
    download_timeout_s: float,
    download_deadline_s: float,
    download_attempts: int,
    download_backoff_s: float,
    max_download_bytes: int,
    table_paths: str,
    max_archive_bytes: int,
    max_archive_members: int,
    fixes: str,
    backbone: str,
    weights: str,
    image_px: str,
    cut: str,
    views: int,
    augment: str,
    flips: str,
    batch_size: int,
    feature_dtype: str,
    require_gpu: bool,
    gpu_memory_mb: int,
    deterministic: bool,
    precision: str,
    feature_engine: str,
    cache_gb: float,
    work_dir: str,
    pooling: str,
    levels: str,
    optimize: str,
    l2: float,
    folds: int,
    label_smoothing: float,
    class_weights: str,
    fine_tune_epochs: int,
    learning_rate: str,
    batch_norm: str,
    lowest_lr_ratio: float,
    ema_momentum: str,
    mix: str,
    budget: str,
    min_accuracy: float,
    accuracy_rule: str,
    min_map: float,
    min_macro_f1: float,
    baseline_rule: str,
    recall_floor: float,
    min_class_recall: float,
    min_recall_by_class: Dict[str, float],
    min_accuracy_by_slice: float,
    max_calibration_error: float,
    max_model_mb: float,
    max_latency_ms: float,
    champion_policy: str,
    champion_margin: float,
    champion_significance: float,
    ood_images: str,
    in_distribution_fraction: float,
    corruption_images: int,
    max_corruption_drop: float,
    coverage: float,
    abstain_precision: float,
    warmup_batch_size: int,
    formats: List[str],
    serving_precision: str,
    int8_margin: float,
    drift_images: int,
    engine: str,
    verify_images: int,
    parity_tolerance: float,
    version_label: str,
    keep_last: int,
    model_registry: str,
    mlflow: str,
    workers: int = 1,
    run_id: str = "",
) -> NamedTuple(  # type: ignore[valid-type]
    "StepOptions",
    [("ingest", Dict), ("extract_features", Dict), ("train_head", Dict), ("fine_tune", Dict),
     ("evaluate", Dict), ("export", Dict), ("verify", Dict), ("publish", Dict),
     ("record_verdict", Dict)],
):  # fmt: skip
    """Check the options and that the run can access its inputs and outputs; find their state.

    The inputs are all options of a run; the pipeline describes them.

    Returns:
        One dict of options per step. Kubeflow repeats the inputs of a step in about six places of
        the run's status, which has a size limit: one dict is much smaller than twenty parameters.
    """
    values = locals()
    from components.resolve.kfp_step import run

    return run(values)
