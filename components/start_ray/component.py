"""The KFP component `start_ray`. Never cache it: each run has its own Ray cluster."""

from typing import Dict

from kfp import dsl

from regraft_core.runtime.container_image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def start_ray(run_id: str, nodes: int, head: Dict, worker: Dict) -> None:
    """Create the Ray cluster of the run with KubeRay, and wait until its nodes are ready.

    Args:
        run_id: ID of the run.
        nodes: Number of worker nodes.
        head: `RayPod` of the head node.
        worker: `RayPod` of each worker node.
    """
    from components.start_ray.kfp_step import run

    run(run_id, nodes, head, worker)
