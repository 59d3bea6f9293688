"""The KFP face of `train_head`."""

from typing import List

from kfp import dsl
from kfp.dsl import Artifact, Input, Model, Output

from components.core.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train_head(
    features: Input[List[Artifact]],
    model: Output[Model],
    head: str,
    dense_width: int,
    dropout: float,
    head_epochs: int,
    head_learning_rate: float,
    batch_size: int,
    class_weights: str,
    seed: int,
) -> None:
    """Train the head on cached features: feature-extraction training.

    Args:
        features: The features of all workers.
        model: The trained head.
        head: The head's pooling: `gap`, `gmp` or `flatten`.
        dense_width: Width of a hidden layer; 0 is none.
        dropout: Share of inputs dropped in training.
        head_epochs: Passes over the features.
        head_learning_rate: Adam's learning rate.
        batch_size: Pictures in one step.
        class_weights: `balanced` makes each class weigh the same; `off`.
        seed: Seed of initial weights and order.
    """
    from components.core.options import HeadOptions, checked
    from components.core.step import running
    from components.train_head.train_head import train_head as run

    with running("train_head"):
        options = checked(HeadOptions, head=head, dense_width=dense_width, dropout=dropout,
                          head_epochs=head_epochs, head_learning_rate=head_learning_rate,
                          batch_size=batch_size, class_weights=class_weights,
                          seed=seed)  # fmt: skip
        manifest = run([item.path for item in features], model.path, options)
    model.metadata.update(digest=manifest.digest, validation_accuracy=manifest.validation_accuracy)
