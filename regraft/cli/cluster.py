"""The commands for a cluster: compile the pipeline, and run it on Kubeflow Pipelines."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regraft.cli.options.json_flag import JsonFlag
from regraft.cli.options.option_groups import with_groups
from regraft.cli.options.recipe_options import RecipeArgument, with_recipe_options
from regraft_core.runtime.addresses import redact_all
from regraft_core.runtime.container_image import GPU_IMAGE, IMAGE
from regraft_core.runtime.errors import InputError, RegraftError

if TYPE_CHECKING:
    from pipelines.cluster.kfp_api import Client, Connection
    from pipelines.cluster.node_presets import Hardware
    from pipelines.cluster.pod_settings import Pods
    from pipelines.cluster.submit import Settings, Submission, SubmittedRun
    from pipelines.cluster.watch import Verdict, Waiting
    from regraft_core.formats.run_outcome import RunOutcome

MIN_POLL_S = 0.01
_IMAGES = f"(default: {IMAGE}, or {GPU_IMAGE} for GPU nodes)"


@dataclass(frozen=True)
class Server:
    """The API of Kubeflow Pipelines and its credentials."""

    host: Annotated[
        str, typer.Option(envvar="KF_PIPELINES_ENDPOINT", help="URL of the KFP API.")
    ] = ""
    namespace: Annotated[
        str,
        typer.Option(
            help="Kubernetes namespace of the run; needed if the server has several users."
        ),
    ] = ""
    token_file: Annotated[
        Path | None, typer.Option(help="File with a bearer token; it is read for each request.")
    ] = None
    existing_token: Annotated[
        str,
        typer.Option(help="The bearer token itself; other users may see it in the process list."),
    ] = field(default="", repr=False)
    ca_cert: Annotated[
        Path | None, typer.Option(help="PEM file of the certificate authority of the server.")
    ] = None

    def connection(self) -> Connection:
        """Return the client's settings, checked if there is a host."""
        from pipelines.cluster.kfp_api import Connection, check_connection

        connection = Connection(
            self.host, self.namespace, self.existing_token, self.token_file, self.ca_cert
        )
        if self.host:
            check_connection(connection)
        return connection


@dataclass(frozen=True)
class PodOptions:
    """The pod of each step: node, container image, secrets and volumes."""

    hardware: Annotated[
        str,
        typer.Option(
            help="Preset of nodes to request: cpu, nvidia, nvidia-mig, nvidia-shared, gke, "
            "gke-shared or eks; empty requests none."
        ),
    ] = ""
    image: Annotated[
        str, typer.Option(help=f"Container image of all steps, as the nodes pull it. {_IMAGES}")
    ] = ""
    secret_env: Annotated[
        list[str] | None,
        typer.Option(
            help="SECRET:KEY=VARIABLE: a Kubernetes secret as an environment variable; "
            "may be repeated."
        ),
    ] = None
    secret_volume: Annotated[
        list[str] | None,
        typer.Option(help="SECRET=/path: a Kubernetes secret as files; may be repeated."),
    ] = None
    pvc: Annotated[
        list[str] | None,
        typer.Option(help="PVC=/path: a PersistentVolumeClaim as a folder; may be repeated."),
    ] = None

    ray_nodes: Annotated[
        int,
        typer.Option(
            help="Worker nodes of a Ray cluster that KubeRay makes for the run; 0 makes none."
        ),
    ] = 0
    ray: Annotated[
        str,
        typer.Option(
            help="URI of an existing Ray cluster, such as ray://host:10001; pass its token by "
            "--secret-env."
        ),
    ] = ""

    def profile(self) -> Hardware | None:
        """Return the preset of nodes, if one is given."""
        from pipelines.cluster.node_presets import find_preset

        return find_preset(self.hardware) if self.hardware else None

    def pods(self) -> Pods:
        """Return the other settings of the pods."""
        from pipelines.cluster.pod_settings import make_pods

        lists = (self.secret_env, self.secret_volume, self.pvc)
        variables, volumes, pvcs = (tuple(texts or ()) for texts in lists)
        return make_pods(self.image, variables, volumes, pvcs, self.ray_nodes, self.ray)


@dataclass(frozen=True)
class RunSettings:
    """The experiment, name, schedule and cache of a run."""

    experiment: Annotated[str, typer.Option(help="Experiment of the run.")] = "regraft"
    run_name: Annotated[str, typer.Option(help="Name of the run; generated if empty.")] = ""
    service_account: Annotated[
        str,
        typer.Option(
            help="Kubernetes service account of the steps; empty uses the server's default."
        ),
    ] = ""
    pipeline_root: Annotated[
        str, typer.Option(help="Bucket URI for artifacts; empty uses the server's default.")
    ] = ""
    use_cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Reuse the results of steps that ran before.")
    ] = True
    schedule: Annotated[
        str, typer.Option(help="Cron expression of five or six fields; makes a recurring run.")
    ] = ""

    def settings(self, pods: PodOptions) -> Settings:
        """Return the settings of a submission."""
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
class WaitOptions:
    """Whether and how long to wait for the verdict."""

    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the run; exit 0 if accepted, 3 if rejected.")
    ] = False
    wait_timeout_s: Annotated[
        float, typer.Option(help="Longest time to wait for the run, in seconds.")
    ] = 86_400.0
    poll_s: Annotated[float, typer.Option(help="Seconds between two status requests.")] = 5.0

    def waiting(self) -> Waiting:
        """Return the settings of the wait.

        Raises:
            InputError: a time is negative or too short.
        """
        from pipelines.cluster.watch import Waiting

        if not self.wait_timeout_s >= 0:
            raise InputError(f"wait_timeout_s: expected 0 or more, got {self.wait_timeout_s:g}")
        if not self.poll_s >= MIN_POLL_S:
            raise InputError(f"poll_s: expected {MIN_POLL_S:g} or more, got {self.poll_s:g}")
        return Waiting(self.wait_timeout_s, self.poll_s)


@with_groups
@with_recipe_options
def compile_(
    values: dict[str, Any],
    output: Annotated[Path, typer.Option("-o", "--output", help="YAML file to write.")],
    pods: PodOptions,
    recipe: RecipeArgument = None,
) -> None:
    """Compile the pipeline into a file for Kubeflow Pipelines.

    The recipe and the options become the defaults of the pipeline's parameters.

    Example: regraft compile digits -o pipeline.yaml --hardware gke
    """
    from pipelines.cluster.compilation import compile_pipeline, prepare_recipe
    from pipelines.recipes.recipe_file import with_recipe
    from regraft.cli.console_output import print_line

    settings = (pods.profile(), pods.pods())
    options = {"sources": ("sample:digits",), **with_recipe(recipe, values)}
    prepared = prepare_recipe(options, *settings)
    compile_pipeline(prepared, output, *settings)
    print_line(output)
    if not prepared.destination:
        print("destination has no default: set it when you create a run", file=sys.stderr)


@with_groups
@with_recipe_options
def submit(
    values: dict[str, Any],
    context: typer.Context,
    server: Server,
    pods: PodOptions,
    run_settings: RunSettings,
    wait_options: WaitOptions,
    recipe: RecipeArgument = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="RUN_ID",
            help="Repeat a run that has ended, with its own recipe and settings; finished steps "
            "come from the server's cache.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be sent, and send nothing.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Run the pipeline on Kubeflow, now or on a schedule.

    Example: regraft submit digits --host https://kubeflow.example.com/pipeline
    --token-file token --destination s3://bucket/models --hardware gke --wait
    """
    from pipelines.cluster.submit import describe, prepare
    from pipelines.recipes.recipe_file import with_recipe
    from regraft.cli.console_output import print_json, print_yaml

    if not server.host and (resume is not None or not dry_run):
        raise InputError("host: expected --host, the URL of the KFP API, got none")
    if resume is not None:
        _check_resume(context)
        _resume(server.connection(), resume, run_settings.run_name, wait_options,
                dry_run=dry_run, json=json)  # fmt: skip
        return
    if wait_options.wait and run_settings.schedule:
        raise InputError("expected one of --wait and --schedule, got both")
    connection = server.connection()
    submission = prepare(with_recipe(recipe, values), run_settings.settings(pods))
    if dry_run:
        (print_json if json else print_yaml)(redact_all(describe(submission, connection)))
    else:
        _send(connection, submission, wait_options, json)


def _send(connection: Connection, submission: Submission, options: WaitOptions, json: bool) -> None:
    """Send a submission, and wait for its verdict if requested."""
    from pipelines.cluster.kfp_api import Client
    from pipelines.cluster.submit import send

    options.waiting()
    client = Client(connection)
    _follow(client, connection, send(client, connection, submission), options, json)


def _check_resume(context: typer.Context) -> None:
    """Refuse options that a resumed run would ignore.

    Raises:
        InputError: there is at least one.
    """
    used = {one.name for group in (Server, WaitOptions) for one in fields(group)}
    used |= {"resume", "run_name", "dry_run", "json"}
    ignored = [
        _flag(one)
        for one in context.command.params
        if one.name not in used
        and getattr(context.get_parameter_source(one.name or ""), "name", "") == "COMMANDLINE"
    ]
    if ignored:
        raise InputError(f"resume: expected no {', '.join(ignored)}, because the new run has the "
                         "recipe and the settings of the resumed run")  # fmt: skip


def _flag(parameter: Any) -> str:
    """Return an option as it is written on the command line, or the name of an argument."""
    first = (*parameter.opts[:1], *parameter.secondary_opts[:1])
    return "/".join(first) if first[0].startswith("--") else str(parameter.name).upper()


def _resume(
    connection: Connection,
    run_id: str,
    run_name: str,
    options: WaitOptions,
    *,
    dry_run: bool,
    json: bool,
) -> None:
    """Repeat a run, and wait for its verdict if requested."""
    from pipelines.cluster.kfp_api import Client
    from pipelines.cluster.resume import describe_resumption, prepare_resumption, send_resumption
    from regraft.cli.console_output import print_json, print_yaml

    options.waiting()
    client = Client(connection)
    resumption = prepare_resumption(client, connection, run_id, run_name)
    if dry_run:
        shown = redact_all(describe_resumption(resumption, connection))
        (print_json if json else print_yaml)(shown)
        return
    run = send_resumption(client, connection, resumption)
    _follow(client, connection, run, options, json)


def _follow(
    client: Client, connection: Connection, run: SubmittedRun, options: WaitOptions, json: bool
) -> None:
    """Print the run that was created, and wait for its verdict if requested."""
    from pipelines.cluster.watch import raise_if_rejected
    from regraft.cli.console_output import print_json, print_line

    result = {"id": run.id, "name": run.name, "page": run.page, "version": run.version}
    if not json:
        print_line(f"{'recurring run' if run.recurring else 'run'} {run.name}: {run.page}")
    if not options.wait:
        if json:
            print_json(result)
        return
    verdict = _wait(client, connection, run, options.waiting())
    if json:
        print_json(result | {"verdict": verdict})
    else:
        print(verdict)
    raise_if_rejected(verdict, run.page)


def _wait(client: Client, connection: Connection, run: SubmittedRun, waiting: Waiting) -> Verdict:
    """Show the steps of a run until its end, and return its verdict."""
    from pipelines.cluster.watch import Listener, WatchedRun, wait
    from pipelines.recipes.default_arguments import DEFAULTS
    from regraft.cli.console_output import print_note, showing_steps
    from regraft_core.formats.run_outcome import outcome_location

    values = {**DEFAULTS, **run.parameters}
    record = (values["destination"], values["model_name"], run.id)
    watched = WatchedRun(run.id, run.page, connection.namespace or "kubeflow",
                         outcome_location(*record))  # fmt: skip
    with showing_steps() as show:
        return wait(
            client, watched, waiting, Listener(show, print_note, lambda: _recorded(*record))
        )


def _recorded(destination: str, model_name: str, run_id: str) -> RunOutcome | None:
    """Return the record at the destination, or None if this machine cannot read it there."""
    from regraft_core.formats.run_outcome import read_outcome

    logging.disable()  # gcsfs prints a stack trace for each attempt without access
    try:
        return read_outcome(destination, model_name, run_id)
    except RegraftError:
        return None
    finally:
        logging.disable(logging.NOTSET)
