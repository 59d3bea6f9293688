"""The KFP component `record_rejection`: the end of a run whose model the gate rejected."""

from typing import Dict

from kfp import dsl
from kfp.dsl import Artifact, Input

from regraft_core.runtime.container_image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def record_rejection(options: Dict, evaluation: Input[Artifact]) -> None:
    """Record the verdict `rejected` at the destination.

    Args:
        options: `destination`, `model_name` and `run_id`.
        evaluation: Evaluation with the verdict and the failed checks.
    """
    from components.record_rejection.kfp_step import run

    run(options, evaluation)
