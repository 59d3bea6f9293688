"""The KFP component `conclude`. It runs after all other steps have ended, also after a failure."""

from kfp import dsl
from kfp.dsl import Markdown, Output, PipelineTaskFinalStatus

from regraft_core.runtime.container_image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def conclude(
    status: PipelineTaskFinalStatus,
    outcome: Output[Markdown],
    started: str,
    destination: str = "",
    model_name: str = "regraft",
) -> None:
    """Report how the run ended: published, rejected, failed or canceled.

    Args:
        status: Status of the run.
        outcome: How the run ended, for the KFP UI.
        started: Time at which the run was created.
        destination: Folder or URI (`s3://`, `gs://`) of published models.
        model_name: Name of the model at the destination.
    """
    from pathlib import Path

    from components.conclude.conclude import RunStatus
    from components.conclude.conclude import conclude as run
    from regraft_core.runtime.step_reports import log_progress, run_step

    with run_step("conclude"):
        run_status = RunStatus(status.state, status.error_message or "")
        text = run(run_status, destination, model_name, started)
        Path(outcome.path).write_text(text, encoding="utf-8")
        log_progress(" ".join(text.split()))
