"""The KFP component `extract_features`."""

from typing import List

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Output

from regraft_core.runtime.container_image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def extract_features(
    dataset: Input[Dataset],
    features: Output[Artifact],
    shard: int = 0,
    workers: int = 1,
    strategies: List[str] = ["head", "top"],  # noqa: B006
    backbone: str = "vgg16",
    weights: str = "imagenet",
    image_px: int = 0,
    cut: str = "auto",
    pooling: str = "gap",
    head_search: bool = False,
    views: int = 1,
    augment: str = "off",
    batch_size: int = 32,
    feature_dtype: str = "float16",
    seed: int = 0,
    require_gpu: bool = False,
    precision: str = "auto",
    cache_gb: float = 20.0,
    work_dir: str = "",
) -> None:
    """Compute the features of one worker's shards with the frozen backbone, once.

    Args:
        dataset: Ingested dataset.
        features: Pooled features and activations at the cut.
        shard: Number of this worker, from 0.
        workers: Number of workers that share the dataset.
        strategies: Strategies of the run; `top` and `auto` need activations at the cut.
        backbone: Name of the pretrained backbone.
        weights: Backbone weights: `imagenet`, `random`, or the path or URI of a file.
        image_px: Input image size in pixels; 0 uses the backbone's default.
        cut: Cut point for `top`; `auto` uses the backbone's default.
        pooling: Pooling of the feature map: `gap`, `gmp` or `flatten`.
        head_search: Extract all poolings for the head search.
        views: Cached views of each training image; 1 caches only the original image.
        augment: Strength of the image augmentation: `off`, `light` or `strong`.
        batch_size: Images per batch.
        feature_dtype: Data type of the cached features: `float16` or `float32`.
        seed: Random seed of the augmentation.
        require_gpu: Stop at once if TensorFlow finds no GPU.
        precision: `float32`, `mixed` (float16), or `auto`: mixed on GPUs with tensor cores.
        cache_gb: Maximum GB of cached activations; above it, `top` trains from images.
        work_dir: Folder or bucket URI for finished work and resuming; empty disables it.
    """
    values = locals()
    from regraft_core.formats.option_parsing import select_options
    from regraft_core.formats.options import FeatureOptions
    from regraft_core.formats.stored_artifacts import keep
    from regraft_core.runtime.gpu_check import check_gpu
    from regraft_core.runtime.step_reports import run_step

    with run_step("extract_features"):
        poolings = ("gap", "gmp", "flatten") if head_search else (pooling,)
        keep_cut = bool({"top", "auto"} & set(strategies))
        options = select_options(
            FeatureOptions, values | {"keep_cut": keep_cut, "poolings": poolings}
        )
        check_gpu(options.require_gpu)
        from components.extract_features.extract_features import extract_features as run

        manifest = run(dataset.path, features.path, options, shard, workers)
        features.metadata.update(digest=manifest.digest, cut=manifest.cut or "")
        keep(features, work_dir, f"features-{manifest.digest[:32]}", manifest.file_name, "*.npy")
