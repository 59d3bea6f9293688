"""The KFP component `conclude`. It runs when all else has ended, also after a failure."""

from kfp import dsl
from kfp.dsl import Markdown, Output

from regraft_core.runtime.container_image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def conclude(
    outcome: Output[Markdown], run_id: str, destination: str, model_name: str = "regraft"
) -> None:
    """Report how the run ended: published, rejected, or without a verdict.

    Args:
        outcome: The end in words, for the KFP UI.
        run_id: ID of the run.
        destination: Folder or bucket that holds models.
        model_name: The model's name there.
    """
    from pathlib import Path

    from components.conclude.conclude import conclude as run
    from regraft_core.runtime.step import log_progress, run_step

    with run_step("conclude"):
        text = run(run_id, destination, model_name)
        Path(outcome.path).write_text(text, encoding="utf-8")
        log_progress(" ".join(text.split()))
