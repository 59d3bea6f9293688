"""The commands for a cluster: a run on Kubeflow Pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from components.core.errors import InputError
from pipelines.cli_options import RecipeArgument, with_recipe_options

if TYPE_CHECKING:
    from pipelines.kfp_api import Connection
    from pipelines.submit import Submission


@with_recipe_options(without=("cache",))
def submit(
    values: dict[str, Any],
    recipe: RecipeArgument = None,
    host: Annotated[
        str, typer.Option(envvar="KF_PIPELINES_ENDPOINT", help="Address of the KFP API.")
    ] = "",
    namespace: Annotated[str, typer.Option(help="Kubernetes namespace of the run.")] = "",
    experiment: Annotated[str, typer.Option(help="Experiment to file the run under.")] = "regraft",
    run_name: Annotated[str, typer.Option(help="Name of the run; generated if empty.")] = "",
    service_account: Annotated[str, typer.Option(help="Account that the steps run as.")] = "",
    token_file: Annotated[
        Path | None, typer.Option(help="File with a bearer token, read anew for each request.")
    ] = None,
    existing_token: Annotated[
        str, typer.Option(help="The token itself; others may see it in the list of processes.")
    ] = "",
    ca_cert: Annotated[Path | None, typer.Option(help="PEM of the server's authority.")] = None,
    hardware: Annotated[str, typer.Option(help="cpu, nvidia, gke or eks; none if empty.")] = "",
    image: Annotated[str, typer.Option(help="Image of all steps; the pipeline's if empty.")] = "",
    pipeline_root: Annotated[
        str, typer.Option(help="Bucket path of artifacts; the server's own if empty.")
    ] = "",
    secret_env: Annotated[
        list[str] | None, typer.Option(help="SECRET:KEY=VARIABLE of Kubernetes; may be repeated.")
    ] = None,
    secret_folder: Annotated[
        list[str] | None, typer.Option(help="SECRET=/path of Kubernetes; may be repeated.")
    ] = None,
    claim: Annotated[
        list[str] | None, typer.Option(help="CLAIM=/path, a volume claim; may be repeated.")
    ] = None,
    use_cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Take steps that were done before.")
    ] = True,
    schedule: Annotated[
        str, typer.Option(help="Cron of five or six fields, for a recurring run.")
    ] = "",
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait, and end as the verdict says.")
    ] = False,
    wait_s: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for the run at most.")
    ] = 86_400.0,
    poll_s: Annotated[float, typer.Option(min=0.01, help="Seconds between two looks.")] = 5.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be sent.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False,
) -> None:
    """Run the pipeline on Kubeflow Pipelines, now or on a schedule.

    Example: regraft submit digits --host https://kubeflow.example.com/pipeline
    --token-file token --destination s3://bucket/models --hardware gke --wait
    """
    from pipelines.hardware import find_preset
    from pipelines.kfp_api import Connection, check_connection
    from pipelines.pods import make_pods
    from pipelines.preflight import check_backbone
    from pipelines.presentation import print_json, print_yaml
    from pipelines.recipe_file import with_recipe
    from pipelines.submit import Settings, described, prepare

    if not (host or dry_run):
        raise InputError("host: expected --host, the address of the KFP API, got none")
    if wait and schedule:
        raise InputError("expected one of --wait and --schedule, got both")
    connection = Connection(host, namespace, existing_token, token_file, ca_cert)
    if host:
        check_connection(connection)
    pods = make_pods(image, tuple(secret_env or ()), tuple(secret_folder or ()), tuple(claim or ()))
    settings = Settings(
        experiment, run_name, service_account, pipeline_root, schedule, use_cache,
        find_preset(hardware) if hardware else None, pods,
    )  # fmt: skip
    submission, whole = prepare(with_recipe(recipe, values), settings)
    check_backbone(whole)
    if dry_run:
        (print_json if json else print_yaml)(described(submission, connection))
        return
    _send(connection, submission, (wait_s, poll_s) if wait else None, json)


def _send(
    connection: Connection, submission: Submission, waiting: tuple[float, float] | None, json: bool
) -> None:
    """Send a submission; wait for its verdict if `waiting` (deadline, seconds between looks)."""
    from pipelines.kfp_api import Client
    from pipelines.presentation import print_json, watching
    from pipelines.submit import send
    from pipelines.watch import Waiting, end_with, wait

    client = Client(connection)
    sent = send(client, connection, submission)
    result = {"id": sent.id, "name": sent.name, "page": sent.page, "version": submission.version}
    if not json:
        print(f"{'recurring run' if sent.recurring else 'run'} {sent.name}: {sent.page}")
    if waiting is None:
        if json:
            print_json(result)
        return
    with watching() as listener:
        verdict = wait(client, sent.id, listener, Waiting(*waiting))
    if json:
        print_json(result | {"verdict": verdict})
    else:
        print(verdict)
    end_with(verdict, sent.page)
