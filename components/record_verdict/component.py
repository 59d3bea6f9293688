"""The KFP component `record_verdict`. Never cache it: each run has its own record."""

from typing import Dict

from kfp import dsl
from kfp.dsl import Artifact, Input

from regraft_core.runtime.container_image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def record_verdict(options: Dict, evaluation: Input[Artifact]) -> bool:
    """Record the gate's verdict at the destination, before an accepted model is exported.

    Args:
        options: `destination`, `model_name` and `run_id`.
        evaluation: Evaluation with the verdict and the failed checks.

    Returns:
        Whether the gate accepted the model.
    """
    from components.record_verdict.kfp_step import run

    return run(options, evaluation)
