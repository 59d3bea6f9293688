"""The KFP component `merge_features`."""

from typing import List

from kfp import dsl
from kfp.dsl import Artifact, Input, Output

from regraft_core.runtime.container_image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def merge_features(parts: Input[List[Artifact]], features: Output[Artifact]) -> None:
    """Merge the features of all workers into one artifact.

    The backend passes a list of artifacts within a graph, but only its last artifact into a
    condition or a nested pipeline, so the next steps get a single artifact.

    Args:
        parts: Features of each worker.
        features: Features of all workers, one folder per worker.
    """
    from components.merge_features.kfp_step import run

    run(parts, features)
