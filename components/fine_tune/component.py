"""The KFP component `fine_tune`."""

from typing import Dict

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Model, Output

from regraft_core.runtime.container_image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def fine_tune(
    options: Dict,
    dataset: Input[Dataset],
    features: Input[Artifact],
    head: Input[Model],
    candidates: Output[Artifact],
) -> None:
    """Train one complete candidate per strategy, or search for one, all from the same head.

    Args:
        options: `FineTuneOptions`, and `strategies`.
        dataset: Ingested dataset.
        features: Features of the dataset.
        head: Trained head.
        candidates: Complete candidates, in one folder.
    """
    from components.fine_tune.kfp_step import run

    run(options, dataset, features, head, candidates)
