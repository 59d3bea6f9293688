"""The KFP component `merge_features`: the workers' features as one artifact."""

from typing import List

from kfp import dsl
from kfp.dsl import Artifact, Input, Output

from regraft_core.runtime.container_image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def merge_features(parts: Input[List[Artifact]], features: Output[Artifact]) -> None:
    """Put the features of all workers into one artifact.

    The backend hands a list of artifacts over in the graph that made it, but not into a condition
    or another pipeline, so the steps that follow get a single one.

    Args:
        parts: The features of each worker.
        features: All of them, a folder for each worker.
    """
    from pathlib import Path

    from regraft_core.formats.stored_artifacts import copy_artifact
    from regraft_core.runtime.step import run_step
    from regraft_core.training.feature_store import read_manifests

    with run_step("merge_features"):
        folders = [part.path for part in parts]
        read_manifests(folders)
        for number, folder in enumerate(folders):
            copy_artifact(folder, Path(features.path) / f"worker-{number}")
