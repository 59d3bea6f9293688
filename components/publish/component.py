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
        options: `PublishOptions`, and `destination`, `model_name` and `run_id` (for the record at
            the destination; empty writes none).
        saved_model: Exported model.
        parity: Parity report of `verify`.
        published: Record of version, path and parity.
    """
    from components.publish.publish import publish as run
    from regraft_core.formats.option_parsing import select_options
    from regraft_core.formats.options import PublishOptions
    from regraft_core.formats.stored_artifacts import content_folder
    from regraft_core.runtime.step_reports import run_step

    with run_step("publish"):
        checked = select_options(PublishOptions, options)
        manifest = run(
            content_folder(saved_model.path), parity.path, published.path, options["destination"],
            options["model_name"], checked, options.get("run_id", ""),
        )  # fmt: skip
    published.metadata.update(version=manifest.version, path=manifest.path)
