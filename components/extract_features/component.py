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
    from regraft_core.formats.option_parsing import select_options
    from regraft_core.formats.options import FeatureOptions
    from regraft_core.formats.stored_artifacts import keep
    from regraft_core.runtime.gpu_check import check_gpu
    from regraft_core.runtime.step_reports import run_step

    with run_step("extract_features"):
        checked = select_options(FeatureOptions, options)
        workers = int(options.get("workers", 1))  # numbers in a dict arrive as float
        check_gpu(checked.require_gpu)
        from components.extract_features.extract_features import extract_features as run

        manifest = run(dataset.path, features.path, checked, shard, workers)
        features.metadata.update(digest=manifest.digest, cut=manifest.cut or "")
        name = f"features-{manifest.digest[:32]}"
        keep(features, checked.work_dir, name, manifest.file_name, "*.npy")
