"""The KFP face of `train_head`."""

from typing import List

from kfp import dsl
from kfp.dsl import Artifact, Input, Model, Output

from regraft_core.runtime.container_image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train_head(
    features: Input[List[Artifact]],
    model: Output[Model],
    pooling: str = "gap",
    dense_width: int = 0,
    dropout: float = 0.2,
    l2: float = 1e-5,
    label_smoothing: float = 0.0,
    class_weights: str = "off",
    head_epochs: int = 20,
    head_learning_rate: float = 1e-3,
    batch_size: int = 32,
    patience: int = 5,
    head_search: bool = False,
    seed: int = 0,
    work_dir: str = "",
) -> None:
    """Train the head on cached features: feature-extraction training.

    Args:
        features: The features of all workers.
        model: The trained head.
        pooling: The head's pooling: `gap`, `gmp` or `flatten`.
        dense_width: Width of a hidden layer; 0 is none.
        dropout: Share of inputs dropped in training.
        l2: L2 penalty on the head's weights.
        label_smoothing: Share of each target spread over all classes.
        class_weights: `balanced` makes each class weigh the same; `off`.
        head_epochs: Passes over the features.
        head_learning_rate: Adam's learning rate.
        batch_size: Images in one step.
        patience: Epochs without a better validation loss before training stops.
        head_search: Train a grid of heads together and keep the best on validation.
        seed: Seed of initial weights and order.
        work_dir: Folder in which a killed step finds what it had done; empty keeps nothing.
    """
    values = locals()
    from components.train_head.train_head import train_head as run
    from regraft_core.formats.option_parsing import select_options
    from regraft_core.formats.options import HeadOptions
    from regraft_core.runtime.step import run_step

    with run_step("train_head"):
        options = select_options(HeadOptions, values)
        manifest = run([item.path for item in features], model.path, options)
    model.metadata.update(digest=manifest.digest, validation_accuracy=manifest.validation_accuracy)
