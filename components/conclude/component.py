"""The KFP face of `conclude`. It runs when all else has ended, and after a failure too."""

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
    """Say how the run ended: published, rejected, failed or cancelled.

    Args:
        status: What kfp says of the run.
        outcome: The end in words, for the KFP UI.
        started: When the run was created.
        destination: Folder or address (`s3://`, `gs://`) that holds models.
        model_name: The model's name there.
    """
    from pathlib import Path

    from components.conclude.conclude import RunStatus
    from components.conclude.conclude import conclude as run
    from regraft_core.runtime.step import log_progress, run_step

    with run_step("conclude"):
        ending = RunStatus(status.state, status.error_message or "")
        text = run(ending, destination, model_name, started)
        Path(outcome.path).write_text(text, encoding="utf-8")
        log_progress(" ".join(text.split()))
