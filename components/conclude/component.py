"""The KFP component `conclude`. It runs after all other steps have ended, also after a failure."""

from kfp import dsl
from kfp.dsl import Markdown, Output

from regraft_core.runtime.container_image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def conclude(
    outcome: Output[Markdown],
    run_id: str,
    destination: str,
    model_name: str = "regraft",
    mlflow: str = "",
    ray_nodes: int = 0,
) -> None:
    """Report how the run ended: published, accepted only, rejected, or without a verdict.

    Before that, remove the Ray cluster of the run.

    Args:
        outcome: How the run ended, for the KFP UI.
        run_id: ID of the run.
        destination: Folder or URI (`s3://`, `gs://`) of published models.
        model_name: Name of the model at the destination.
        mlflow: URL of an MLflow tracking server; empty uses that of Kubeflow, if there is one.
        ray_nodes: Number of worker nodes of the run's Ray cluster; 0 is none.
    """
    from components.conclude.kfp_step import run

    run(outcome, run_id, destination, model_name, mlflow, ray_nodes)
