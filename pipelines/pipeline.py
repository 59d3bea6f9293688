"""The pipeline: wiring and defaults, nothing else."""

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
from pipelines.parameters import accepted_by, with_parameters
from pipelines.recipes.recipe import DEFAULTS, FINE_TUNE_FIELDS, PARAMETER_FIELDS

Options = dict[str, Any]
Configure = Callable[[Any, str], None]
Step = Callable[..., Any]


def no_op(task: Any, step: str) -> None:
    """Configure nothing, as a run on this machine needs."""


class Outputs(NamedTuple):
    """What a run leaves whatever its verdict."""

    dataset: Dataset
    evaluation: Artifact


def make_pipeline(configure: Configure = no_op, *, concluded: bool = False) -> Any:
    """Return the pipeline; `configure` gets each task with the name of its step.

    With `concluded`, a last step says how the run ended, whatever happened.
    """

    def step(face: Any, options: Options, **inputs: Any) -> Any:
        task = face(**inputs, **accepted_by(face, options))
        configure(task, face.python_func.__name__)
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
        """One complete model a strategy, all from the same head.

        A pipeline of its own, as kfp 2.17 cannot hand collected artifacts to a loop beside their
        own.
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
        """From labeled images to a published classifier that is proven, by transfer learning."""
        data = step(ingest, options)
        data.set_caching_options(False)  # what stands behind a link may change
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
        judged = step(evaluate, options, candidates=models, dataset=dataset)
        judged.set_caching_options(False)  # and so may the champion
        evaluation = judged.outputs["evaluation"]
        with dsl.If(judged.outputs["Output"] == True):  # noqa: E712 - a kfp condition
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

    Not by `dsl.ExitHandler`, in which the backend fails on a `ParallelFor` (kubeflow/pipelines
    #12390).
    """

    @dsl.pipeline(name="regraft")
    @with_parameters(PARAMETER_FIELDS, DEFAULTS)
    def whole(options: Options) -> Outputs:
        """From labeled images to a published classifier that is proven, by transfer learning."""
        work = pipeline(**options)
        started = dsl.PIPELINE_JOB_CREATE_TIME_UTC_PLACEHOLDER
        last = step(conclude, options, started=started)
        last.after(work).ignore_upstream_failure().set_caching_options(False)
        return Outputs(dataset=work.outputs["dataset"], evaluation=work.outputs["evaluation"])

    return whole


pipeline = make_pipeline()
