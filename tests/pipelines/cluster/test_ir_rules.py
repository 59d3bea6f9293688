"""The rules find each pattern that the backend cannot run, and none in our pipeline."""

# kfp 2.17 cannot read postponed annotations, so they are not postponed here.
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import compiler, dsl, kubernetes
from kfp.dsl import Artifact, Input, Output

from pipelines.cluster.compilation import compile_pipeline, prepare_recipe
from pipelines.cluster.kfp_api import OLDEST_SERVER
from pipelines.cluster.node_presets import PRESETS
from tests.pipelines.cluster import ir_rules


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def make(out: Output[Artifact], number: int = 0, numbers: list[int] = [0]) -> None:  # noqa: B006
    pass


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def use(parts: Input[list[Artifact]]) -> None:
    pass


def compiled(pipeline: Any, tmp_path: Path) -> list[dict[str, Any]]:
    file = tmp_path / "pipeline.yaml"
    compiler.Compiler().compile(pipeline, str(file))
    return list(yaml.safe_load_all(file.read_text()))


def test_a_body_that_uses_its_list_is_found(tmp_path: Path) -> None:
    @dsl.pipeline
    def wrong(numbers: list[int] = [0, 1]) -> None:  # noqa: B006
        with dsl.ParallelFor(numbers) as number:
            make(number=number, numbers=numbers)

    @dsl.pipeline
    def right(numbers: list[int] = [0, 1]) -> None:  # noqa: B006
        with dsl.ParallelFor(numbers) as number:
            make(number=number)

    assert len(list(ir_rules.iterated_lists(compiled(wrong, tmp_path)))) == 1
    assert not list(ir_rules.iterated_lists(compiled(right, tmp_path)))


@pytest.mark.parametrize("kind", ["condition", "pipeline"])
def test_a_list_of_artifacts_into_a_graph_is_found(kind: str, tmp_path: Path) -> None:
    @dsl.pipeline
    def inner(parts: Input[list[Artifact]]) -> None:
        use(parts=parts)

    @dsl.pipeline
    def several() -> list[Artifact]:
        with dsl.ParallelFor([0, 1]) as number:
            made = make(number=number)
        return dsl.Collected(made.outputs["out"])

    @dsl.pipeline
    def wrong(wanted: bool = True) -> None:
        parts = several().output
        if kind == "pipeline":
            inner(parts=parts)
        else:
            # kfp 2.17 does not compile a Collected in a condition, but compiles this.
            with dsl.If(wanted == True):  # noqa: E712
                use(parts=parts)

    @dsl.pipeline
    def right() -> None:
        with dsl.ParallelFor([0, 1]) as number:
            made = make(number=number)
        use(parts=dsl.Collected(made.outputs["out"]))

    assert list(ir_rules.artifact_lists_into_graphs(compiled(wrong, tmp_path)))
    assert not list(ir_rules.artifact_lists_into_graphs(compiled(right, tmp_path)))


@pytest.mark.parametrize(("limit", "count"), [("600s", 1), ("3690s", 0)])
def test_retries_that_are_cut_short_are_found(limit: str, count: int, tmp_path: Path) -> None:
    @dsl.pipeline
    def retried() -> None:
        task = make()
        task.set_retry(2, "30s", 2.0, limit)
        kubernetes.set_timeout(task, 1200)

    assert len(list(ir_rules.retries_cut_short(compiled(retried, tmp_path)))) == count


def test_a_placeholder_of_a_later_server_is_found(tmp_path: Path) -> None:
    @dsl.component(base_image="python:3.11", install_kfp_package=False)
    def show(time: str) -> None:
        pass

    @dsl.pipeline
    def timed() -> None:
        show(time=dsl.PIPELINE_JOB_CREATE_TIME_UTC_PLACEHOLDER)

    documents = compiled(timed, tmp_path)
    assert list(ir_rules.placeholders(documents, (2, 15)))
    assert not list(ir_rules.placeholders(documents, (2, 16)))


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[dict[str, Any]]]:
    """Return our pipeline, compiled for a number of workers and a kind of nodes."""

    def documents(workers: int = 1, hardware: str = "") -> list[dict[str, Any]]:
        file = tmp_path_factory.mktemp("ir") / "pipeline.yaml"
        preset = PRESETS[hardware] if hardware else None
        options = {"workers": workers, "destination": "s3://bucket/models"}
        recipe = prepare_recipe({"sources": ("sample:digits",), **options}, preset)
        compile_pipeline(recipe, file, preset)
        return list(yaml.safe_load_all(file.read_text()))

    return documents


@pytest.mark.parametrize("hardware", ["", "nvidia"])
@pytest.mark.parametrize("workers", [1, 8])
def test_our_pipeline_keeps_the_rules(
    ours: Callable[..., list[dict[str, Any]]], workers: int, hardware: str
) -> None:
    documents = ours(workers, hardware)
    broken = [line for rule in ir_rules.RULES for line in rule(documents)]
    broken += ir_rules.placeholders(documents, OLDEST_SERVER)
    broken += ir_rules.large_nodes(documents, workers)
    assert not broken


def test_large_nodes_are_found(ours: Callable[..., list[dict[str, Any]]]) -> None:
    documents = ours(8)
    assert list(ir_rules.large_nodes(documents, 1000))
    assert ir_rules.nodes_bytes(documents, 8) > ir_rules.nodes_bytes(documents, 2)


def test_one_worker_needs_no_loop_and_no_list(ours: Callable[..., list[dict[str, Any]]]) -> None:
    spec = ours()[0]
    tasks = [task for _, task in ir_rules._tasks([spec])]
    assert not [task for task in tasks if "parameterIterator" in task]
    assert "isArtifactList" not in str(spec)
    assert "merge-features" not in str([task["taskInfo"] for task in tasks])
