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
    from components.train_head.kfp_step import run

    run(options, features, model)
