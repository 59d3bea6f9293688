"""The KFP component `publish`. Never cache it: the destination may have changed."""

from typing import Dict

from kfp import dsl
from kfp.dsl import Artifact, Input, Model, Output

from regraft_core.runtime.container_image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def publish(
    options: Dict,
    saved_model: Input[Model],
    parity: Input[Artifact],
    published: Output[Artifact],
) -> None:
    """Publish a verified model as the next version at its destination.

    Args:
        options: `PublishOptions`, and `destination`, `model_name`, `work_dir`, `run_id` (for the
            record at the destination; empty writes none), and `inputs`, `champion` and
            `champion_digest`, as for `evaluate`.
        saved_model: Exported model.
        parity: Parity report of `verify`.
        published: Record of version, path and parity.
    """
    from components.publish.kfp_step import run

    run(options, saved_model, parity, published)
