"""The KFP component `fine_tune`."""

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
    """Train one complete candidate per strategy, all from the same head.

    Args:
        dataset: Ingested dataset.
        features: Features of the dataset.
        head: Trained head.
        candidates: Complete candidates, in one folder.
        strategies: `head` (trains nothing more), `top` (above the cut), `full`, or `auto`.
        fine_tune_epochs: Number of epochs.
        learning_rate: Peak learning rate, after warm-up and before cosine decay.
        batch_size: Images per batch.
        batch_norm: BatchNormalization above the cut: keep or update (`adapt`) its statistics.
        seed: Random seed of the order of images.
        require_gpu: Stop at once if TensorFlow finds no GPU.
        precision: `float32`, `mixed` (float16), or `auto`: mixed on GPUs with tensor cores.
        lowest_lr_ratio: Earliest trained layer's learning rate relative to the head's; 1 is equal.
        ema_momentum: Momentum of the moving average of the weights; 0 disables it.
        work_dir: Folder or bucket URI for finished work and resuming; empty disables it.
    """
    values = locals()
    from regraft_core.formats.option_parsing import select_options
    from regraft_core.formats.options import FineTuneOptions
    from regraft_core.formats.stored_artifacts import keep
    from regraft_core.runtime.gpu_check import check_gpu
    from regraft_core.runtime.step_reports import run_step

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
