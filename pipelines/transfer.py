"""The pipeline: wiring and defaults, nothing else."""

from typing import Dict, List, NamedTuple

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Model

from components.evaluate.component import evaluate
from components.export.component import export
from components.extract_features.component import extract_features
from components.fine_tune.component import fine_tune
from components.ingest.component import ingest
from components.publish.component import publish
from components.train_head.component import train_head
from components.verify.component import verify
from pipelines.recipe import Recipe

_DEFAULT = Recipe(sources=("sample:digits",))
Outputs = NamedTuple("Outputs", [("dataset", Dataset), ("evaluation", Artifact)])


@dsl.pipeline(name="candidates", description="One complete model a strategy, from one head.")
def candidates(
    dataset: Input[Dataset],
    features: Input[List[Artifact]],
    head: Input[Model],
    strategies: List[str],
    fine_tune_epochs: int,
    learning_rate: float,
    batch_size: int,
    batch_norm: str,
    seed: int,
    require_gpu: bool,
) -> List[Model]:
    # A pipeline of its own, as kfp 2.17 cannot pass collected artifacts into a loop beside it.
    with dsl.ParallelFor(strategies, name="strategy") as strategy:
        candidate = fine_tune(
            dataset=dataset,
            features=features,
            head=head,
            strategy=strategy,
            fine_tune_epochs=fine_tune_epochs,
            learning_rate=learning_rate,
            batch_size=batch_size,
            batch_norm=batch_norm,
            seed=seed,
            require_gpu=require_gpu,
        )
    return dsl.Collected(candidate.outputs["model"])


@dsl.pipeline(
    name="regraft",
    description="Labelled pictures to a served classifier that is proven, by transfer learning.",
)
def transfer(
    sources: List[str] = list(_DEFAULT.sources),
) -> Outputs:
    pass
