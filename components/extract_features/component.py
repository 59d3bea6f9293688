"""The KFP component `extract_features`."""

from typing import Dict

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Output

from regraft_core.runtime.container_image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def extract_features(
    options: Dict, dataset: Input[Dataset], features: Output[Artifact], shard: int = 0
) -> None:
    """Compute the features of one worker's shards with the frozen backbone, once.

    Args:
        options: `FeatureOptions`, and `workers`, the number of workers that share the dataset.
        dataset: Ingested dataset.
        features: Pooled features and activations at the cut.
        shard: Number of this worker, from 0.
    """
    from components.extract_features.kfp_step import run

    run(options, dataset, features, shard)
