"""The KFP component `fine_tune`."""

from typing import Dict

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Model, Output

from regraft_core.runtime.container_image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def fine_tune(
    options: Dict,
    dataset: Input[Dataset],
    features: Input[Artifact],
    head: Input[Model],
    candidates: Output[Artifact],
) -> None:
    """Train one complete candidate per strategy, all from the same head.

    Args:
        options: `FineTuneOptions`, and `strategies`.
        dataset: Ingested dataset.
        features: Features of the dataset.
        head: Trained head.
        candidates: Complete candidates, in one folder.
    """
    from regraft_core.formats.option_parsing import select_options
    from regraft_core.formats.options import FineTuneOptions
    from regraft_core.formats.stored_artifacts import keep
    from regraft_core.runtime.gpu_check import check_gpu
    from regraft_core.runtime.step_reports import run_step

    with run_step("fine_tune"):
        checked = [
            select_options(FineTuneOptions, {**options, "strategy": strategy})
            for strategy in options["strategies"]
        ]
        check_gpu(checked[0].require_gpu)
        from components.fine_tune.candidates import fine_tune_all

        manifest = fine_tune_all(dataset.path, features.path, head.path, candidates.path, checked)
        candidates.metadata.update(digest=manifest.digest)
        name = f"candidates-{manifest.digest[:32]}"
        keep(candidates, checked[0].work_dir, name, manifest.file_name, "*.keras")
