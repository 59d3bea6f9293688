"""The KFP face of `publish`. Never cache it: the destination is not among its inputs."""

from typing import List, Optional

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Model, Output

from components.core.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def publish(
    saved_model: Input[Model],
    parity: Input[Artifact],
    published: Output[Artifact],
    destination: str,
    model_name: str,
    label: str = "",
    keep_last: int = 0,
    dataset: Optional[Input[Dataset]] = None,
    features: Optional[Input[List[Artifact]]] = None,
    head: Optional[Input[Model]] = None,
    candidates: Optional[Input[List[Model]]] = None,
    evaluation: Optional[Input[Artifact]] = None,
):
    """Publish a proven model as the next version at its destination.

    Args:
        saved_model: The exported model.
        parity: The proof that `verify` wrote.
        published: The record of version, place, parity and timings.
        destination: Folder or address (`s3://`, `gs://`) that holds models.
        model_name: The model's name there.
        label: `stable`, `canary`, or empty for none.
        keep_last: How many versions stay; 0 keeps all.
        dataset: The dataset, if its timing shall go on record; so the others below.
        features: The features.
        head: The head.
        candidates: The candidates.
        evaluation: The verdict.
    """
    from components.core.step import running
    from components.publish.publish import gather_timings
    from components.publish.publish import publish as run

    with running("publish"):
        made = [dataset, *(features or []), head, *(candidates or []), evaluation,
                saved_model, parity]  # fmt: skip
        timings = gather_timings(item.path for item in made if item)
        manifest = run(saved_model.path, parity.path, published.path, destination, model_name,
                       timings, label=label, keep_last=keep_last)  # fmt: skip
    published.metadata.update(version=manifest.version, path=manifest.path)
