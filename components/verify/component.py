"""The KFP component `verify`. Never cache it: it tests the current server."""

from typing import List

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Markdown, Model, Output

from regraft_core.runtime.container_image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def verify(
    saved_model: Input[Model],
    candidates: Input[List[Model]],
    evaluation: Input[Artifact],
    dataset: Input[Dataset],
    parity: Output[Artifact],
    table: Output[Markdown],
    engine: str = "auto",
    verify_images: int = 32,
    parity_tolerance: float = 1e-4,
) -> None:
    """Serve the exported model and compare its predictions with the trained model's.

    Args:
        saved_model: Exported model.
        candidates: Complete candidates, including the exported one.
        evaluation: Evaluation with the temperature.
        dataset: Dataset with the test images.
        parity: Parity report.
        table: Parity report as a table for the KFP UI.
        engine: Server: `auto`, `embedded`, `tensorflow_model_server` or `docker`.
        verify_images: Number of test images sent by each protocol.
        parity_tolerance: Maximum difference between served and trained probabilities.
    """
    import shutil

    from components.verify.verify import TABLE_FILE
    from components.verify.verify import verify as run
    from regraft_core.formats.option_parsing import parse_options
    from regraft_core.formats.options import VerifyOptions
    from regraft_core.runtime.step_reports import run_step

    with run_step("verify"):
        options = parse_options(
            VerifyOptions,
            engine=engine,
            verify_images=verify_images,
            parity_tolerance=parity_tolerance,
        )
        report = run(saved_model.path, [item.path for item in candidates], evaluation.path,
                     dataset.path, parity.path, options)  # fmt: skip
        shutil.copyfile(f"{parity.path}/{TABLE_FILE}", table.path)
    parity.metadata.update(engine=report.engine, **report.max_abs_diff)
