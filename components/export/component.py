"""The KFP component `export`."""

from typing import List

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Model, Output

from regraft_core.runtime.container_image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def export(
    candidates: Input[List[Model]],
    evaluation: Input[Artifact],
    dataset: Input[Dataset],
    saved_model: Output[Model],
    warmup_batch_size: int = 32,
    formats: List[str] = [],  # noqa: B006 - kfp stores it as a constant
) -> None:
    """Export the accepted candidate as a SavedModel that accepts encoded images.

    Args:
        candidates: Complete candidates, including the chosen one.
        evaluation: Evaluation with the verdict.
        dataset: Dataset with the images of the warm-up.
        saved_model: Exported model.
        warmup_batch_size: Images in the larger warm-up request of each signature.
        formats: Additional export formats: `litert`, `onnx`.
    """
    from components.export.export import export as run
    from regraft_core.formats.option_parsing import parse_options
    from regraft_core.formats.options import ExportOptions
    from regraft_core.runtime.step_reports import run_step

    with run_step("export"):
        options = parse_options(ExportOptions, warmup_batch_size=warmup_batch_size,
                          formats=tuple(formats))  # fmt: skip
        folders = [item.path for item in candidates]
        manifest = run(folders, evaluation.path, dataset.path, saved_model.path, options)
    saved_model.metadata.update(digest=manifest.digest, strategy=manifest.strategy)
