"""The KFP face of `extract_features`."""

from typing import List

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Output

from components.core.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def extract_features(
    dataset: Input[Dataset],
    features: Output[Artifact],
    shard: int,
    shards: List[int],
    strategies: List[str],
    backbone: str,
    weights: str,
    image_px: int,
    cut: str,
    head: str,
    views: int,
    augment: str,
    batch_size: int,
    seed: int,
    require_gpu: bool,
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
        image_px: Side of the pictures in pixels; 0 is the backbone's own.
        cut: The cut point of strategy `top`; `auto` is the backbone's own.
        head: The head's pooling: `gap`, `gmp` or `flatten`.
        views: Number of cached views of each training picture.
        augment: Strength of the augmented views: `off`, `light` or `strong`.
        batch_size: Pictures in one step.
        seed: Seed of the augmentation.
        require_gpu: Fail at once where no GPU is seen.
    """
    from components.core.options import FeatureOptions, checked
    from components.core.step import running
    from components.extract_features.extract_features import extract_features as run

    with running("extract_features"):
        options = checked(FeatureOptions, backbone=backbone, weights=weights, image_px=image_px,
                          cut=cut, keep_cut=bool({"top", "auto"} & set(strategies)),
                          poolings=(head,), views=views, augment=augment, batch_size=batch_size,
                          seed=seed, require_gpu=require_gpu)  # fmt: skip
        manifest = run(dataset.path, features.path, options, shard, len(shards))
    features.metadata.update(digest=manifest.digest, cut=manifest.cut or "")
