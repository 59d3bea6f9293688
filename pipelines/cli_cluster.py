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


def plan(
    pictures: Annotated[float, typer.Option(help="Pictures, also as 1e8.")] = 1e6,
    nodes: Annotated[
        list[int] | None, typer.Option(help="Nodes for extraction; may be repeated.")
    ] = None,
    node_mb_s: Annotated[float, typer.Option(help="Network of a node, MB a second.")] = 100.0,
    storage_mb_s: Annotated[float, typer.Option(help="All that the storage gives.")] = 1000.0,
    cache_gb: Annotated[float, typer.Option(help="Activations that may be kept.")] = 20.0,
    start_s: Annotated[float | None, typer.Option(help="Start of each step, seconds.")] = None,
    ingest_rate: Annotated[float | None, typer.Option(help="Pictures a second, ingest.")] = None,
    extract_rate: Annotated[
        float | None, typer.Option(help="Pictures a second and node, extraction.")
    ] = None,
    head_rate: Annotated[float | None, typer.Option(help="The same for the head.")] = None,
    top_rate: Annotated[float | None, typer.Option(help="The same for the top, cached.")] = None,
    picture_kb: Annotated[float | None, typer.Option(help="Size of a picture.")] = None,
    cut_kb: Annotated[float | None, typer.Option(help="Activations of a picture.")] = None,
    head_epochs: Annotated[int, typer.Option(help="Epochs of the head.")] = 20,
    top_epochs: Annotated[int, typer.Option(help="Epochs of the top.")] = 10,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False,
) -> None:
    """Estimate a run's time for more pictures and nodes, from measured rates.

    The rates' defaults are of two CPU cores; `regraft bench scale_out` and the timings in a run's
    summary.json give those of your machines.

    Example: regraft plan --pictures 1e8 --nodes 1 --nodes 16 --extract-rate 2000
    """
    from pipelines.cost import Plan, Rates, estimate
    from pipelines.presentation import print_estimates, print_json

    if not 1 <= pictures <= 1e12:
        raise InputError(f"pictures: expected 1 to 1e12, got {pictures:g}")
    measured = {
        "start_s": start_s, "ingest": ingest_rate, "extract": extract_rate, "head": head_rate,
        "top": top_rate, "picture_bytes": picture_kb and picture_kb * 1e3,
        "cut_bytes": cut_kb and cut_kb * 1e3,
    }  # fmt: skip
    rates = Rates(**{name: value for name, value in measured.items() if value is not None})
    found = [
        estimate(
            Plan(int(pictures), count, node_mb_s, storage_mb_s, cache_gb,
                 head_epochs=head_epochs, top_epochs=top_epochs), rates,
        )
        for count in nodes or [1, 2, 4, 8, 16]
    ]  # fmt: skip
    if json:
        print_json([one.as_json() for one in found])
    else:
        print_estimates(found)
