"""The KFP component `verify`. It is cached: an unchanged export keeps its measured parity.

The export, the test images and the container image with its server are all part of the cache key.
"""

from typing import Dict

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Markdown, Model, Output

from regraft_core.runtime.container_image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def verify(
    options: Dict,
    saved_model: Input[Model],
    model: Input[Model],
    evaluation: Input[Artifact],
    dataset: Input[Dataset],
    parity: Output[Artifact],
    table: Output[Markdown],
) -> None:
    """Serve the exported model and compare its predictions with the trained model's.

    Args:
        options: `VerifyOptions`.
        saved_model: Exported model.
        model: Candidate that was exported.
        evaluation: Evaluation with the temperature.
        dataset: Dataset with the test images.
        parity: Parity report.
        table: Parity report as a table for the KFP UI.
    """
    from components.verify.kfp_step import run

    run(options, saved_model, model, evaluation, dataset, parity, table)
