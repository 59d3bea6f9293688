"""The KFP face of `extract_features`."""

from typing import List

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Output

from regraft_core.runtime.container_image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def extract_features(
    dataset: Input[Dataset],
    features: Output[Artifact],
    shard: int = 0,
    shards: List[int] = [0],  # noqa: B006
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
    """Compute the frozen backbone's features of one worker's share, once.

    Args:
        dataset: The ingested dataset.
        features: Pooled features and activations at the cut.
        shard: The share of this worker.
        shards: All shares; their number is the number of workers.
        strategies: The strategies to come; `top` and `auto` need activations at the cut.
        backbone: Name of the pretrained backbone.
        weights: `imagenet`, `random`, or a path or URI of weights.
        image_px: Side of the images in pixels; 0 is the backbone's own.
        cut: The cut point of strategy `top`; `auto` is the backbone's own.
        pooling: The head's pooling: `gap`, `gmp` or `flatten`.
        head_search: Extract all poolings, as heads of every kind are to be compared.
        views: Number of cached views of each training image.
        augment: Strength of the augmented views: `off`, `light` or `strong`.
        batch_size: Images in one step.
        feature_dtype: Type of cached features: `float16` or `float32`.
        seed: Seed of the augmentation.
        require_gpu: Fail at once where no GPU is seen.
        precision: `float32`, `mixed` (float16), or `auto`: mixed on GPUs that gain from it.
        cache_gb: Gigabytes that cached activations may take; beyond, `top` streams images.
        work_dir: Folder in which a killed step finds what it had done; empty keeps nothing.
    """
    values = locals()
    from regraft_core.formats.option_parsing import select_options
    from regraft_core.formats.options import FeatureOptions
    from regraft_core.runtime.gpu_check import check_gpu
    from regraft_core.runtime.step import run_step

    with run_step("extract_features"):
        poolings = ("gap", "gmp", "flatten") if head_search else (pooling,)
        keep_cut = bool({"top", "auto"} & set(strategies))
        options = select_options(
            FeatureOptions, values | {"keep_cut": keep_cut, "poolings": poolings}
        )
        check_gpu(options.require_gpu)
        from components.extract_features.extract_features import extract_features as run

        manifest = run(dataset.path, features.path, options, shard, len(shards))
    features.metadata.update(digest=manifest.digest, cut=manifest.cut or "")
