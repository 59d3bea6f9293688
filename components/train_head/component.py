"""The KFP component `train_head`."""

from kfp import dsl
from kfp.dsl import Artifact, Input, Model, Output

from regraft_core.runtime.container_image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train_head(
    features: Input[Artifact],
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
    """Train the head on cached features (feature extraction).

    Args:
        features: Features of the dataset.
        model: Trained head.
        pooling: Pooling of the feature map: `gap`, `gmp` or `flatten`.
        dense_width: Units of a hidden layer; 0 adds none.
        dropout: Dropout rate of the head's inputs; 0 disables it.
        l2: L2 penalty on the head's weights; 0 disables it.
        label_smoothing: Label smoothing of the loss; 0 disables it.
        class_weights: `balanced` weights classes inversely to frequency; `off`.
        head_epochs: Maximum number of epochs.
        head_learning_rate: Learning rate (Adam).
        batch_size: Images per batch.
        patience: Epochs without a lower validation loss after which training stops.
        head_search: Train a grid of heads together and keep the best one on validation.
        seed: Random seed of initial weights and order.
        work_dir: Folder or bucket URI for finished work and resuming; empty disables it.
    """
    values = locals()
    from components.train_head.train_head import train_head as run
    from regraft_core.formats.option_parsing import select_options
    from regraft_core.formats.options import HeadOptions
    from regraft_core.formats.stored_artifacts import keep
    from regraft_core.runtime.step_reports import run_step
    from regraft_core.training.feature_store import feature_folders

    with run_step("train_head"):
        options = select_options(HeadOptions, values)
        manifest = run(feature_folders(features.path), model.path, options)
        model.metadata.update(
            digest=manifest.digest, validation_accuracy=manifest.validation_accuracy
        )
        keep(model, work_dir, f"head-{manifest.digest[:32]}", manifest.file_name, "*.keras")
