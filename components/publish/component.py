"""The KFP component `publish`. Never cache it: the destination may have changed."""

from kfp import dsl
from kfp.dsl import Artifact, Input, Model, Output

from regraft_core.runtime.container_image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def publish(
    saved_model: Input[Model],
    parity: Input[Artifact],
    published: Output[Artifact],
    destination: str,
    model_name: str,
    version_label: str = "",
    keep_last: int = 0,
    model_registry: str = "",
    run_id: str = "",
) -> None:
    """Publish a verified model as the next version at its destination.

    Args:
        saved_model: Exported model.
        parity: Parity report of `verify`.
        published: Record of version, path and parity.
        destination: Folder or URI (`s3://`, `gs://`) of published models.
        model_name: Name of the model at the destination.
        version_label: Label of the new version: `stable`, `canary`; empty sets none.
        keep_last: Number of versions to keep; 0 keeps all of them.
        model_registry: URL of a Kubeflow Model Registry to register the version in; may be empty.
        run_id: ID of the run, for the record at the destination; empty writes none.
    """
    from components.publish.publish import publish as run
    from regraft_core.formats.option_parsing import parse_options
    from regraft_core.formats.options import PublishOptions
    from regraft_core.formats.stored_artifacts import content_folder
    from regraft_core.runtime.step_reports import run_step

    with run_step("publish"):
        options = parse_options(PublishOptions, version_label=version_label, keep_last=keep_last,
                                model_registry=model_registry)  # fmt: skip
        manifest = run(
            content_folder(saved_model.path), parity.path, published.path, destination, model_name,
            options, run_id,
        )  # fmt: skip
    published.metadata.update(version=manifest.version, path=manifest.path)
