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
    from regraft_core.formats.manifests import EvaluationManifest
    from regraft_core.formats.run_outcome import RunOutcome, write_outcome
    from regraft_core.runtime.step_reports import log_progress, run_step

    with run_step("record_rejection"):
        verdict = EvaluationManifest.read(evaluation.path)
        outcome = RunOutcome(verdict=verdict.verdict, strategy=verdict.strategy,
                             metrics=verdict.metrics, checks=verdict.checks)  # fmt: skip
        write_outcome(options["destination"], options["model_name"], options["run_id"], outcome)
        failed = ", ".join(check.name for check in verdict.checks if not check.passed)
        log_progress(f"record_rejection: rejected by {failed}")
