"""The pipeline: wiring and defaults, nothing else.

A straight line with single artifacts between the steps. Kubeflow's backend passes only the last of
a list of artifacts into a loop, a condition or a nested pipeline
(`GetInputArtifactsByExecutionID` in backend/src/v2/metadata/client.go, KFP 2.17.0), and fails at a
loop whose body uses the list that it iterates over (backend/src/v2/driver/resolve.go).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input
from pydantic.fields import FieldInfo

from components.conclude.component import conclude
from components.evaluate.component import evaluate
from components.export.component import export
from components.extract_features.component import extract_features
from components.fine_tune.component import fine_tune
from components.ingest.component import ingest
from components.merge_features.component import merge_features
from components.publish.component import publish
from components.record_verdict.component import record_verdict
from components.resolve.component import resolve
from components.start_ray.component import start_ray
from components.train_head.component import train_head
from components.verify.component import verify
from pipelines.pipeline_parameters import with_parameters
from pipelines.recipes.default_arguments import DEFAULTS
from pipelines.recipes.recipe import OPTION_FIELDS, WORKER_FIELDS
from regraft_core.kuberay.ray_cluster import RayPod

Options = dict[str, Any]
Configure = Callable[[Any, str], None]
Step = Callable[..., Any]
RayPods = tuple[RayPod, RayPod]  # of the head and of each worker node
_RUN_ID = {"run_id": FieldInfo(annotation=str, description="ID of the run.")}
_RAY_FIELDS = {
    "ray_nodes": FieldInfo(annotation=int, description="Number of worker nodes of the Ray cluster.")
}
_DEFAULTS = DEFAULTS | {"ray_nodes": 1}


def no_op(task: Any, step: str) -> None:
    """Configure nothing, for a run on this machine."""


class Outputs(NamedTuple):
    """The artifacts of a run, whatever its verdict."""

    dataset: Dataset
    evaluation: Artifact


def make_pipeline(
    configure: Configure = no_op,
    *,
    fan_out: bool = False,
    cluster: bool = False,
    ray: RayPods | None = None,
) -> Any:
    """Return the pipeline.

    Args:
        configure: gets each task with the name of its step.
        fan_out: several workers share feature extraction.
        cluster: the run records its verdict at the destination, and a last step reports how it
            ended, also after a failure.
        ray: on a cluster, the pods of a Ray cluster that is made for the run.
    """

    def step(component: Any, **inputs: Any) -> Any:
        task = component(**inputs)
        configure(task, component.python_func.__name__)
        return task

    fields = {
        **OPTION_FIELDS,
        **(WORKER_FIELDS if fan_out else {}),
        **(_RAY_FIELDS if ray else {}),
    }
    steps = _steps(step, fields, fan_out=fan_out, cluster=cluster, ray=ray)
    return _concluded(step, steps, fields) if cluster else steps


def _features(step: Step, shards: Any, **inputs: Any) -> Any:
    """Extract features, in a loop over the workers if there are several."""
    if shards is None:
        return step(extract_features, **inputs).outputs["features"]
    with dsl.ParallelFor(shards) as shard:
        extracted = step(extract_features, shard=shard, **inputs)
    return step(merge_features, parts=dsl.Collected(extracted.outputs["features"])).output


def _features_in_a_graph(step: Step) -> Step:
    """Return `_features` as a graph of its own, for kfp's local runner.

    In a loop, it replaces the outputs of other tasks by the item of the loop, but not the inputs of
    a graph (`create_parameter_loop_iteration_task_spec` in kfp/local/orchestrator, kfp 2.17.0).
    """

    @dsl.pipeline(name="features")
    def features(shards: list[int], options: dict, dataset: Input[Dataset]) -> Artifact:
        return _features(step, shards, options=options, dataset=dataset)

    return lambda _, shards, **inputs: features(shards=shards, **inputs).output


def _steps(
    step: Step,
    fields: dict[str, FieldInfo],
    *,
    fan_out: bool,
    cluster: bool,
    ray: RayPods | None,
) -> Any:
    fields = (_RUN_ID if cluster else {}) | fields  # it has no default, so it is first
    extract = _features_in_a_graph(step) if fan_out and not cluster else _features

    @dsl.pipeline(name="steps" if cluster else "regraft")
    @with_parameters(fields, _DEFAULTS)
    def pipeline(options: Options) -> Outputs:
        """Train, verify and publish an image classifier by transfer learning."""
        shards, nodes = options.pop("shards", None), options.pop("ray_nodes", None)
        resolved = step(resolve, **options)
        resolved.set_caching_options(False)  # it finds changes of the inputs
        of = resolved.outputs  # the options of each step
        ingested = step(ingest, options=of["ingest"])
        if ray is not None:
            started = _start_ray(step, ray, run_id=options["run_id"], nodes=nodes).after(resolved)
            ingested.after(started)
        dataset = ingested.outputs["dataset"]
        features = extract(step, shards=shards, options=of["extract_features"], dataset=dataset)
        head = step(train_head, options=of["train_head"], features=features).outputs["model"]
        tuned = step(
            fine_tune, options=of["fine_tune"], dataset=dataset, features=features, head=head
        )
        evaluated = step(
            evaluate, options=of["evaluate"], candidates=tuned.outputs["candidates"],
            dataset=dataset,
        )  # fmt: skip
        evaluation, model = evaluated.outputs["evaluation"], evaluated.outputs["model"]
        accepted = evaluated.outputs["Output"]
        if cluster:
            recorded = step(record_verdict, options=of["record_verdict"], evaluation=evaluation)
            recorded.set_caching_options(False)  # each run leaves its own record
            accepted = recorded.output
        with dsl.If(accepted == True, name="accepted"):  # noqa: E712
            saved_model = step(
                export, options=of["export"], model=model, evaluation=evaluation, dataset=dataset
            ).outputs["saved_model"]
            verified = step(
                verify, options=of["verify"], saved_model=saved_model, model=model,
                evaluation=evaluation, dataset=dataset,
            )  # fmt: skip
            published = step(
                publish, options=of["publish"], saved_model=saved_model,
                parity=verified.outputs["parity"],
            )  # fmt: skip
            published.set_caching_options(False)  # the destination is not among its inputs
        return Outputs(dataset=dataset, evaluation=evaluation)

    return pipeline


def _start_ray(step: Step, ray: RayPods, **inputs: Any) -> Any:
    """Start the Ray cluster of the run."""
    head, worker = (pod.manifest() for pod in ray)
    started = step(start_ray, head=head, worker=worker, **inputs)
    return started.set_caching_options(False)  # each run has its own


def _concluded(step: Step, steps: Any, fields: dict[str, FieldInfo]) -> Any:
    """Wrap all steps as one task, so that a last step can follow, also after a failure.

    `dsl.ExitHandler` is not used, because the backend fails on a `ParallelFor` in it
    (kubeflow/pipelines#12390).
    """

    @dsl.pipeline(name="regraft")
    @with_parameters(fields, _DEFAULTS)
    def pipeline(options: Options) -> Outputs:
        """Train, verify and publish an image classifier by transfer learning."""
        run_id = dsl.PIPELINE_JOB_ID_PLACEHOLDER
        work = steps(**options | {"run_id": run_id})
        where = {name: options[name] for name in ("destination", "model_name", "mlflow")}
        nodes = options.get("ray_nodes", 0)
        last = step(conclude, run_id=run_id, **where, ray_nodes=nodes)
        last.after(work).ignore_upstream_failure().set_caching_options(False)
        return Outputs(dataset=work.outputs["dataset"], evaluation=work.outputs["evaluation"])

    return pipeline
