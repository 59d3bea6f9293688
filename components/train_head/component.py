"""The KFP component `train_head`."""

from typing import Dict

from kfp import dsl
from kfp.dsl import Artifact, Input, Model, Output

from regraft_core.runtime.container_image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train_head(options: Dict, features: Input[Artifact], model: Output[Model]) -> None:
    """Train the head on cached features (feature extraction).

    Args:
        options: `HeadOptions`.
        features: Features of the dataset.
        model: Trained head.
    """
    from components.train_head.train_head import train_head as run
    from regraft_core.formats.option_parsing import select_options
    from regraft_core.formats.options import HeadOptions
    from regraft_core.formats.stored_artifacts import keep
    from regraft_core.runtime.step_reports import run_step
    from regraft_core.training.feature_store import feature_folders

    with run_step("train_head"):
        checked = select_options(HeadOptions, options)
        manifest = run(feature_folders(features.path), model.path, checked)
        model.metadata.update(
            digest=manifest.digest, validation_accuracy=manifest.validation_accuracy
        )
        name = f"head-{manifest.digest[:32]}"
        keep(model, checked.work_dir, name, manifest.file_name, "*.keras")
