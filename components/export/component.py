"""The KFP component `export`."""

from typing import Dict

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Model, Output

from regraft_core.runtime.container_image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def export(
    options: Dict,
    model: Input[Model],
    evaluation: Input[Artifact],
    dataset: Input[Dataset],
    saved_model: Output[Model],
) -> None:
    """Export the accepted candidate as a SavedModel that accepts encoded images.

    Args:
        options: `ExportOptions`, and `work_dir`.
        model: Accepted candidate.
        evaluation: Evaluation with the verdict.
        dataset: Dataset with the images of the warm-up.
        saved_model: Exported model.
    """
    from components.export.kfp_step import run

    run(options, model, evaluation, dataset, saved_model)
