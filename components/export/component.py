"""The KFP component `export`."""

from typing import List

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Model, Output

from regraft_core.runtime.container_image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def export(
    model: Input[Model],
    evaluation: Input[Artifact],
    dataset: Input[Dataset],
    saved_model: Output[Model],
    warmup_batch_size: int = 32,
    formats: List[str] = [],  # noqa: B006 - kfp stores it as a constant
    work_dir: str = "",
) -> None:
    """Export the accepted candidate as a SavedModel that accepts encoded images.

    Args:
        model: Accepted candidate.
        evaluation: Evaluation with the verdict.
        dataset: Dataset with the images of the warm-up.
        saved_model: Exported model.
        warmup_batch_size: Images in the larger warm-up request of each signature.
        formats: Additional export formats: `litert`, `onnx`.
        work_dir: Folder or bucket URI for finished work and resuming; empty disables it.
    """
    from components.export.export import export as run
    from regraft_core.formats.option_parsing import parse_options
    from regraft_core.formats.options import ExportOptions
    from regraft_core.formats.stored_artifacts import keep
    from regraft_core.runtime.step_reports import run_step

    with run_step("export"):
        options = parse_options(ExportOptions, warmup_batch_size=warmup_batch_size,
                                formats=tuple(formats))  # fmt: skip
        manifest = run(model.path, evaluation.path, dataset.path, saved_model.path, options)
        saved_model.metadata.update(digest=manifest.digest, strategy=manifest.strategy)
        name = f"saved_model-{manifest.digest[:32]}"
        keep(saved_model, work_dir, name, manifest.file_name, "*")
