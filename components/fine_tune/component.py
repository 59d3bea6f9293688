"""The KFP face of `fine_tune`."""

from typing import List

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Model, Output

from regraft_core.runtime.container_image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def fine_tune(
    dataset: Input[Dataset],
    features: Input[List[Artifact]],
    head: Input[Model],
    model: Output[Model],
    strategy: str = "top",
    fine_tune_epochs: int = 10,
    learning_rate: float = 1e-5,
    batch_size: int = 32,
    batch_norm: str = "frozen",
    seed: int = 0,
    require_gpu: bool = False,
    precision: str = "auto",
    lowest_lr_ratio: float = 1.0,
    ema_momentum: float = 0.0,
    work_dir: str = "",
) -> None:
    """Make one complete candidate from the head by one strategy.

    Args:
        dataset: The ingested dataset.
        features: The features of all workers.
        head: The trained head.
        model: The complete candidate.
        strategy: `head` (nothing more is trained), `top` (from the cut), `full`, or `auto`.
        fine_tune_epochs: Passes over the training images.
        learning_rate: Adam's highest learning rate, after a warm-up and before a cosine decay.
        batch_size: Images in one step.
        batch_norm: `frozen`, or `adapt` to let the trained part's statistics follow the data.
        seed: Seed of the order.
        require_gpu: Fail at once where no GPU is seen.
        precision: `float32`, `mixed` (float16), or `auto`: mixed on GPUs that gain from it.
        lowest_lr_ratio: Share of the rate for the lowest trained layer, rising to the head.
        ema_momentum: Momentum of the weights' moving average that is kept; 0 is off.
        work_dir: Folder in which a killed step finds what it had done; empty keeps nothing.
    """
    values = locals()
    from regraft_core.formats.option_parsing import select_options
    from regraft_core.formats.options import FineTuneOptions
    from regraft_core.runtime.gpu_check import check_gpu
    from regraft_core.runtime.step import run_step

    with run_step("fine_tune"):
        options = select_options(FineTuneOptions, values)
        check_gpu(options.require_gpu)
        from components.fine_tune.fine_tune import fine_tune as run

        shards = [item.path for item in features]
        manifest = run(dataset.path, shards, head.path, model.path, options)
    model.metadata.update(
        digest=manifest.digest, strategy=manifest.strategy,
        validation_accuracy=manifest.validation_accuracy,
    )  # fmt: skip
