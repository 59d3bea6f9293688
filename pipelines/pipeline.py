"""The pipeline: the wiring of the steps, and nothing else."""

from collections.abc import Callable
from typing import Any, List, NamedTuple

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Model

from components.conclude.component import conclude
from components.evaluate.component import evaluate
from components.export.component import export
from components.extract_features.component import extract_features
from components.fine_tune.component import fine_tune
from components.ingest.component import ingest
from components.publish.component import publish
from components.train_head.component import train_head
from components.verify.component import verify
from pipelines.pipeline_parameters import inputs_of, with_parameters
from pipelines.recipes.recipe import DEFAULTS, FINE_TUNE_FIELDS, PARAMETER_FIELDS

Options = dict[str, Any]
Configure = Callable[[Any, str], None]
Step = Callable[..., Any]


def no_op(task: Any, step: str) -> None:
    """Configure nothing, for a run on this machine."""


class Outputs(NamedTuple):
    """The artifacts of a run, whatever its verdict."""

    dataset: Dataset
    evaluation: Artifact


def make_pipeline(configure: Configure = no_op, *, concluded: bool = False) -> Any:
    """Return the pipeline.

    Args:
        configure: is called with each task and the name of its step.
        concluded: whether a last step reports how the run ended, also after a failure.
    """

    def step(component: Any, options: Options, **inputs: Any) -> Any:
        task = component(**inputs, **inputs_of(component, options))
        configure(task, component.python_func.__name__)
        return task

    pipeline = _transfer(step, _candidates(step), "transfer" if concluded else "regraft")
    return _concluded(step, pipeline) if concluded else pipeline


def _candidates(step: Step) -> Any:
    @dsl.pipeline(name="candidates")
    @with_parameters(FINE_TUNE_FIELDS, {})
    def candidates(
        dataset: Input[Dataset],
        features: Input[List[Artifact]],
        head: Input[Model],
        strategies: List[str],
        options: Options,
    ) -> List[Model]:
        """Train one complete model per strategy, all from the same head.

        This is its own pipeline, because kfp 2.17 cannot pass artifacts that one loop collected to
        another loop of the same pipeline.
        """
        with dsl.ParallelFor(strategies) as strategy:
            candidate = step(
                fine_tune, options, dataset=dataset, features=features, head=head,
                strategy=strategy,
            )  # fmt: skip
        return dsl.Collected(candidate.outputs["model"])

    return candidates


def _transfer(step: Step, candidates: Any, name: str) -> Any:
    @dsl.pipeline(name=name)
    @with_parameters(PARAMETER_FIELDS, DEFAULTS)
    def pipeline(options: Options) -> Outputs:
        """Train, verify and publish an image classifier by transfer learning."""
        data = step(ingest, options)
        data.set_caching_options(False)  # the data behind a URL may change
        dataset = data.outputs["dataset"]
        with dsl.ParallelFor(options["shards"]) as shard:
            extracted = step(extract_features, options, dataset=dataset, shard=shard)
        features = dsl.Collected(extracted.outputs["features"])
        head = step(train_head, options, features=features)
        models = candidates(
            dataset=dataset,
            features=dsl.Collected(extracted.outputs["features"]),
            head=head.outputs["model"],
            strategies=options["strategies"],
            **{name: options[name] for name in FINE_TUNE_FIELDS},
        ).output
        evaluated = step(evaluate, options, candidates=models, dataset=dataset)
        evaluated.set_caching_options(False)  # the champion may change
        evaluation = evaluated.outputs["evaluation"]
        with dsl.If(evaluated.outputs["Output"] == True):  # noqa: E712 - a kfp condition
            exported = step(
                export, options, candidates=models, evaluation=evaluation, dataset=dataset
            )
            saved_model = exported.outputs["saved_model"]
            verified = step(
                verify, options, saved_model=saved_model, candidates=models,
                evaluation=evaluation, dataset=dataset,
            )  # fmt: skip
            published = step(
                publish, options, saved_model=saved_model, parity=verified.outputs["parity"]
            )
            published.set_caching_options(False)
        return Outputs(dataset=dataset, evaluation=evaluation)

    return pipeline


def _concluded(step: Step, pipeline: Any) -> Any:
    """Wrap the pipeline as one task, so that the last step can follow all of it.

    `dsl.ExitHandler` is not used, because the backend fails on a `ParallelFor` in it
    (kubeflow/pipelines#12390).
    """

    @dsl.pipeline(name="regraft")
    @with_parameters(PARAMETER_FIELDS, DEFAULTS)
    def whole(options: Options) -> Outputs:
        """Train, verify and publish an image classifier by transfer learning."""
        main = pipeline(**options)
        started = dsl.PIPELINE_JOB_CREATE_TIME_UTC_PLACEHOLDER
        last = step(conclude, options, started=started)
        last.after(main).ignore_upstream_failure().set_caching_options(False)
        return Outputs(dataset=main.outputs["dataset"], evaluation=main.outputs["evaluation"])

    return whole


pipeline = make_pipeline()
