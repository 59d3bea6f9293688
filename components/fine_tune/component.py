"""The KFP face of `fine_tune`."""

from typing import List

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Model, Output

from regraft_core.runtime.container_image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def fine_tune(
    dataset: Input[Dataset],
    features: Input[Artifact],
    head: Input[Model],
    candidates: Output[Artifact],
    strategies: List[str] = ["head", "top"],  # noqa: B006
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
    """Make one complete candidate per strategy, all from the same head.

    Args:
        dataset: The ingested dataset.
        features: The features of the dataset.
        head: The trained head.
        candidates: A folder with one complete candidate per strategy.
        strategies: `head` (trains nothing more), `top` (trains above the cut), `full` or `auto`.
        fine_tune_epochs: Passes over the training images.
        learning_rate: Adam's highest learning rate, after a warm-up and before a cosine decay.
        batch_size: Images in one step.
        batch_norm: `frozen`, or `adapt` to let the trained part's statistics follow the data.
        seed: Seed of the order.
        require_gpu: Fail at once where no GPU is seen.
        precision: `float32`, `mixed` (float16), or `auto`: mixed on GPUs that gain from it.
        lowest_lr_ratio: Share of the rate for the lowest trained layer, rising to the head.
        ema_momentum: Momentum of the weights' moving average that is kept; 0 is off.
        work_dir: Folder or bucket for finished work and for resuming; empty disables it.
    """
    values = locals()
    from regraft_core.formats.option_parsing import select_options
    from regraft_core.formats.options import FineTuneOptions
    from regraft_core.formats.stored_artifacts import keep
    from regraft_core.runtime.gpu_check import check_gpu
    from regraft_core.runtime.step import run_step

    with run_step("fine_tune"):
        options = [
            select_options(FineTuneOptions, values | {"strategy": strategy})
            for strategy in strategies
        ]
        check_gpu(require_gpu)
        from components.fine_tune.candidates import fine_tune_all

        manifest = fine_tune_all(dataset.path, features.path, head.path, candidates.path, options)
        candidates.metadata.update(digest=manifest.digest)
        name = f"candidates-{manifest.digest[:32]}"
        keep(candidates, work_dir, name, manifest.file_name, "*.keras")
