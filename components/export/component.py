"""The KFP component `export`."""

from typing import Dict

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Model, Output

from regraft_core.runtime.container_image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def export(
    options: Dict,
    model: Input[Model],
    evaluation: Input[Artifact],
    dataset: Input[Dataset],
    saved_model: Output[Model],
) -> None:
    """Export the accepted candidate as a SavedModel that accepts encoded images.

    Args:
        options: `ExportOptions`, and `work_dir`.
        model: Accepted candidate.
        evaluation: Evaluation with the verdict.
        dataset: Dataset with the images of the warm-up.
        saved_model: Exported model.
    """
    from components.export.export import export as run
    from regraft_core.formats.option_parsing import select_options
    from regraft_core.formats.options import ExportOptions
    from regraft_core.formats.stored_artifacts import keep
    from regraft_core.runtime.step_reports import run_step

    with run_step("export"):
        checked = select_options(ExportOptions, options)
        manifest = run(model.path, evaluation.path, dataset.path, saved_model.path, checked)
        saved_model.metadata.update(digest=manifest.digest, strategy=manifest.strategy)
        name = f"saved_model-{manifest.digest[:32]}"
        keep(saved_model, options.get("work_dir", ""), name, manifest.file_name, "*")
