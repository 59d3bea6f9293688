"""The commands for a cluster: a run on Kubeflow Pipelines."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regraft.cli.option_groups import with_groups
from regraft.cli.recipe_options import RecipeArgument, with_recipe_options
from regraft_core.runtime.container_image import GPU_IMAGE, IMAGE
from regraft_core.runtime.errors import InputError

if TYPE_CHECKING:
    from pipelines.cluster.kfp_api import Connection
    from pipelines.cluster.node_presets import Hardware
    from pipelines.cluster.pods import Pods
    from pipelines.cluster.submit import Settings, Submission

_IMAGES = f"(default: {IMAGE}, or {GPU_IMAGE} where the nodes have a GPU)"


@dataclass(frozen=True)
class Server:
    """The API of Kubeflow Pipelines, and how to get in."""

    host: Annotated[
        str, typer.Option(envvar="KF_PIPELINES_ENDPOINT", help="Address of the KFP API.")
    ] = ""
    namespace: Annotated[str, typer.Option(help="Kubernetes namespace of the run.")] = ""
    token_file: Annotated[
        Path | None, typer.Option(help="File with a bearer token, read anew for each request.")
    ] = None
    existing_token: Annotated[
        str, typer.Option(help="The token itself; others may see it in the list of processes.")
    ] = field(default="", repr=False)
    ca_cert: Annotated[Path | None, typer.Option(help="PEM of the server's authority.")] = None

    def connection(self) -> Connection:
        """Return it as the client takes it, checked where there is an address."""
        from pipelines.cluster.kfp_api import Connection, check_connection

        connection = Connection(
            self.host, self.namespace, self.existing_token, self.token_file, self.ca_cert
        )
        if self.host:
            check_connection(connection)
        return connection


@dataclass(frozen=True)
class PodOptions:
    """What each step's pod is: node, image, secrets, volumes."""

    hardware: Annotated[
        str, typer.Option(help="Nodes to ask for: cpu, nvidia, gke or eks; any if empty.")
    ] = ""
    image: Annotated[
        str, typer.Option(help=f"Image of all steps, as the nodes pull it. {_IMAGES}")
    ] = ""
    secret_env: Annotated[
        list[str] | None, typer.Option(help="SECRET:KEY=VARIABLE of Kubernetes; may be repeated.")
    ] = None
    secret_volume: Annotated[
        list[str] | None, typer.Option(help="SECRET=/path of Kubernetes; may be repeated.")
    ] = None
    pvc: Annotated[
        list[str] | None, typer.Option(help="PVC=/path, a PersistentVolumeClaim; may be repeated.")
    ] = None

    def profile(self) -> Hardware | None:
        """Return the preset that is asked for."""
        from pipelines.cluster.node_presets import find_preset

        return find_preset(self.hardware) if self.hardware else None

    def pods(self) -> Pods:
        """Return the rest as the pipeline takes it."""
        from pipelines.cluster.pods import make_pods

        lists = (self.secret_env, self.secret_volume, self.pvc)
        return make_pods(self.image, *(tuple(given or ()) for given in lists))


@dataclass(frozen=True)
class RunSettings:
    """Where a run is filed, when it runs, and what it takes over."""

    experiment: Annotated[str, typer.Option(help="Experiment to file the run under.")] = "regraft"
    run_name: Annotated[str, typer.Option(help="Name of the run; generated if empty.")] = ""
    service_account: Annotated[str, typer.Option(help="Account that the steps run as.")] = ""
    pipeline_root: Annotated[
        str, typer.Option(help="Bucket path of artifacts; the server's own if empty.")
    ] = ""
    use_cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Take steps that were done before.")
    ] = True
    schedule: Annotated[
        str, typer.Option(help="Cron of five or six fields, for a recurring run.")
    ] = ""

    def settings(self, pods: PodOptions) -> Settings:
        """Return it as a submission takes it."""
        from pipelines.cluster.submit import Settings

        return Settings(
            experiment=self.experiment,
            run_name=self.run_name,
            service_account=self.service_account,
            pipeline_root=self.pipeline_root,
            schedule=self.schedule,
            cache=self.use_cache,
            hardware=pods.profile(),
            pods=pods.pods(),
        )


@dataclass(frozen=True)
class Watch:
    """Whether and how long the verdict is waited for."""

    wait: Annotated[bool, typer.Option("--wait", help="Wait, and end as the verdict says.")] = False
    wait_timeout_s: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for the run at most.")
    ] = 86_400.0
    poll_s: Annotated[float, typer.Option(min=0.01, help="Seconds between two looks.")] = 5.0


@with_groups
@with_recipe_options
def compile_(
    values: dict[str, Any],
    output: Annotated[Path, typer.Option("-o", "--output", help="The IR file to write.")],
    pods: PodOptions,
    recipe: RecipeArgument = None,
) -> None:
    """Write the pipeline's intermediate representation for Kubeflow.

    The recipe and the options that are given become the defaults of the pipeline's parameters.

    Example: regraft compile digits -o pipeline.yaml --hardware gke
    """
    from pipelines.cluster.compilation import compile_pipeline
    from pipelines.recipes.recipe_file import with_recipe

    values = with_recipe(recipe, values)
    compile_pipeline(values, output, pods.profile(), pods.pods())
    print(output)
    if not values.get("destination"):
        print("destination has no default: give it when a run is created", file=sys.stderr)


@with_groups
@with_recipe_options(without=("cache",))
def submit(
    values: dict[str, Any],
    server: Server,
    pods: PodOptions,
    place: RunSettings,
    watch: Watch,
    recipe: RecipeArgument = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be sent.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False,
) -> None:
    """Run the pipeline on Kubeflow Pipelines, now or on a schedule.

    Example: regraft submit digits --host https://kubeflow.example.com/pipeline
    --token-file token --destination s3://bucket/models --hardware gke --wait
    """
    from pipelines.cluster.submit import described, prepare
    from pipelines.preflight import check_backbone
    from pipelines.recipes.recipe_file import with_recipe
    from regraft.cli.console_output import print_json, print_yaml

    if not (server.host or dry_run):
        raise InputError("host: expected --host, the address of the KFP API, got none")
    if watch.wait and place.schedule:
        raise InputError("expected one of --wait and --schedule, got both")
    connection = server.connection()
    submission, whole = prepare(with_recipe(recipe, values), place.settings(pods))
    check_backbone(whole)
    if dry_run:
        (print_json if json else print_yaml)(described(submission, connection))
    else:
        _send(connection, submission, watch, json)


def _send(connection: Connection, submission: Submission, watch: Watch, json: bool) -> None:
    """Send a submission, and wait for its verdict where that is asked for."""
    from pipelines.cluster.kfp_api import Client
    from pipelines.cluster.submit import send
    from pipelines.cluster.watch import Waiting, raise_if_rejected, wait
    from regraft.cli.console_output import print_json, watching

    client = Client(connection)
    sent = send(client, connection, submission)
    result = {"id": sent.id, "name": sent.name, "page": sent.page, "version": submission.version}
    if not json:
        print(f"{'recurring run' if sent.recurring else 'run'} {sent.name}: {sent.page}")
    if not watch.wait:
        if json:
            print_json(result)
        return
    with watching() as listener:
        verdict = wait(client, sent.id, listener, Waiting(watch.wait_timeout_s, watch.poll_s))
    if json:
        print_json(result | {"verdict": verdict})
    else:
        print(verdict)
    raise_if_rejected(verdict, sent.page)
