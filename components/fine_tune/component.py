"""The KFP face of `fine_tune`."""

from typing import List

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Model, Output

from components.core.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def fine_tune(
    dataset: Input[Dataset],
    features: Input[List[Artifact]],
    head: Input[Model],
    model: Output[Model],
    strategy: str,
    fine_tune_epochs: int,
    learning_rate: float,
    batch_size: int,
    batch_norm: str,
    seed: int,
    require_gpu: bool,
) -> None:
    """Make one complete candidate from the head by one strategy.

    Args:
        dataset: The ingested dataset.
        features: The features of all workers.
        head: The trained head.
        model: The complete candidate.
        strategy: `head` (nothing more is trained), `top` (from the cut), `full`, or `auto`.
        fine_tune_epochs: Passes over the training pictures.
        learning_rate: Adam's highest learning rate, after a warm-up and before a cosine decay.
        batch_size: Pictures in one step.
        batch_norm: `frozen`, or `adapt` to let the trained part's statistics follow the data.
        seed: Seed of the order.
        require_gpu: Fail at once where no GPU is seen.
    """
    from components.core.options import FineTuneOptions, checked
    from components.core.step import running
    from components.fine_tune.fine_tune import fine_tune as run

    with running("fine_tune"):
        options = checked(FineTuneOptions, strategy=strategy, fine_tune_epochs=fine_tune_epochs,
                          learning_rate=learning_rate, batch_size=batch_size,
                          batch_norm=batch_norm, seed=seed, require_gpu=require_gpu)  # fmt: skip
        shards = [item.path for item in features]
        manifest = run(dataset.path, shards, head.path, model.path, options)
    model.metadata.update(
        digest=manifest.digest, strategy=manifest.strategy,
        validation_accuracy=manifest.validation_accuracy,
    )  # fmt: skip
