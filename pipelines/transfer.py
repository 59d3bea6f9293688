"""The pipeline: wiring and defaults, nothing else."""

from typing import Any, List, NamedTuple

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
from pipelines.parameters import accepted_by, with_parameters
from pipelines.recipe import DEFAULTS, FINE_TUNE_FIELDS, PARAMETER_FIELDS


class Outputs(NamedTuple):
    """What a run leaves whatever its verdict."""

    dataset: Dataset
    evaluation: Artifact


@dsl.pipeline(name="candidates")
@with_parameters(FINE_TUNE_FIELDS, {})
def candidates(
    dataset: Input[Dataset],
    features: Input[List[Artifact]],
    head: Input[Model],
    strategies: List[str],
    options: dict[str, Any],
) -> List[Model]:
    """One complete model a strategy, all from the same head.

    A pipeline of its own, as kfp 2.17 cannot hand collected artifacts to a loop beside their own.
    """
    with dsl.ParallelFor(strategies) as strategy:
        candidate = fine_tune(
            dataset=dataset, features=features, head=head, strategy=strategy, **options
        )
    return dsl.Collected(candidate.outputs["model"])


@dsl.pipeline(name="regraft")
@with_parameters(PARAMETER_FIELDS, DEFAULTS)
def transfer(options: dict[str, Any]) -> Outputs:
    """From labelled pictures to a published classifier that is proven, by transfer learning."""
    data = ingest(**accepted_by(ingest, options))
    data.set_caching_options(False)  # what stands behind a link may change
    dataset = data.outputs["dataset"]
    with dsl.ParallelFor(options["shards"]) as shard:
        extracted = extract_features(
            dataset=dataset, shard=shard, **accepted_by(extract_features, options)
        )
    head = train_head(
        features=dsl.Collected(extracted.outputs["features"]), **accepted_by(train_head, options)
    )
    models = candidates(
        dataset=dataset,
        features=dsl.Collected(extracted.outputs["features"]),
        head=head.outputs["model"],
        strategies=options["strategies"],
        **{name: options[name] for name in FINE_TUNE_FIELDS},
    ).output
    judged = evaluate(candidates=models, dataset=dataset, **accepted_by(evaluate, options))
    judged.set_caching_options(False)  # and so may the champion
    evaluation = judged.outputs["evaluation"]
    with dsl.If(judged.outputs["Output"] == True):  # noqa: E712 - a kfp condition
        exported = export(
            candidates=models,
            evaluation=evaluation,
            dataset=dataset,
            **accepted_by(export, options),
        )
        saved_model = exported.outputs["saved_model"]
        verified = verify(
            saved_model=saved_model,
            candidates=models,
            evaluation=evaluation,
            dataset=dataset,
            **accepted_by(verify, options),
        )
        published = publish(
            saved_model=saved_model,
            parity=verified.outputs["parity"],
            **accepted_by(publish, options),
        )
        published.set_caching_options(False)
    return Outputs(dataset=dataset, evaluation=evaluation)
