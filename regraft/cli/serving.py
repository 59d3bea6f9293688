"""The commands for published models: serve, predict, publish and roll back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regraft.cli.options.json_flag import JsonFlag
from regraft.cli.options.ray_option import RayOption
from regraft_core.runtime.errors import InputError

if TYPE_CHECKING:
    from regraft.bulk.prediction import Predictions
    from regraft_client.predict_files import FilePrediction, PredictOptions

Progress = Callable[[int, int | None], None] | None
"""What moves a progress bar; None without a terminal."""


def serve(
    base_dir: Annotated[
        Path,
        typer.Argument(
            help="Folder of published models, all of which are served, or folder of a run."
        ),
    ],
    engine: Annotated[
        str,
        typer.Option(
            help="Server: embedded, tensorflow_model_server or docker; auto uses "
            "tensorflow_model_server if it is installed and --bind is 0.0.0.0, otherwise embedded."
        ),
    ] = "auto",
    bind: Annotated[
        str, typer.Option(help="Network interface to listen on, by host name or IP.")
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(help="Port of gRPC; 0 chooses a free one."),
    ] = 8500,
    rest_api_port: Annotated[
        int,
        typer.Option(help="Port of REST; 0 chooses a free one."),
    ] = 8501,
    batching: Annotated[bool, typer.Option(help="Batch concurrent requests.")] = True,
    gpu_memory_mb: Annotated[
        int,
        typer.Option(help="Maximum MB of each GPU that a process takes; 0 takes what it needs."),
    ] = 0,
    mixed_precision: Annotated[
        str,
        typer.Option(
            help="Precision of the server: bfloat16 is faster on processors that have it, for "
            "models that were run with --serving-precision bfloat16. Empty: float32."
        ),
    ] = "",
    serving_engine: Annotated[
        str,
        typer.Option(
            help="Engine of the embedded server: auto, tf or openvino; openvino is for models that "
            "were run with --serving-engine openvino, and auto uses the faster for them."
        ),
    ] = "auto",
    page: Annotated[
        bool, typer.Option("--page", help="Serve a web page to try the model.")
    ] = False,
    request_log: Annotated[
        str,
        typer.Option(help="Folder to log a sample of the requests in; empty logs none."),
    ] = "",
    sample: Annotated[float, typer.Option(help="Fraction of the requests to log.")] = 0.01,
    log_images: Annotated[
        bool, typer.Option("--log-images", help="Log the bytes of the images, too.")
    ] = False,
    log_max_mb: Annotated[
        int, typer.Option(help="Maximum MB of the request log; the oldest files are deleted.")
    ] = 1024,
    shadow_label: Annotated[
        str,
        typer.Option(
            help="Label of a version that predicts a copy of each logged request; empty: none."
        ),
    ] = "",
) -> None:
    """Serve published models over gRPC and REST, as TensorFlow Serving does.

    The server runs until it is interrupted.

    Example: regraft serve runs/digits/models --page
    """
    from regraft.model_folder import find_served_folder
    from serving.request_log_options import RequestLogOptions
    from serving.running.runner import ServeOptions
    from serving.running.serve import serve as run_server

    for name, number in (("port", port), ("rest_api_port", rest_api_port)):
        if not 0 <= number <= 65535:
            raise InputError(f"{name}: expected 0 to 65535, got {number}")
    if gpu_memory_mb < 0:
        raise InputError(f"gpu-memory-mb: expected 0 or more, got {gpu_memory_mb}")
    options = ServeOptions(
        host=bind, port=port, rest_api_port=rest_api_port, gpu_memory_mb=gpu_memory_mb
    )
    folder = find_served_folder(base_dir)
    recording = RequestLogOptions(request_log, sample, log_images, log_max_mb, shadow_label)
    code = run_server(
        folder, engine, options, batching=batching, page=page, request_log=recording,
        mixed_precision=mixed_precision, serving_engine=serving_engine,
    )  # fmt: skip
    raise typer.Exit(code)


def predict(
    images: Annotated[
        list[str],
        typer.Argument(
            help="Image files, or folders of them; with --model-dir also URIs of buckets."
        ),
    ],
    server: Annotated[
        str | None, typer.Option(help="URL of the server: grpc://HOST:PORT or http://HOST:PORT.")
    ] = None,
    model_dir: Annotated[
        str | None,
        typer.Option(
            help="Folder of a run or a model, or URI of a published model, to predict with on this "
            "machine, without a server."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Name of the model on the server (default: regraft).")
    ] = None,
    version: Annotated[
        int | None, typer.Option(help="Model version on the server (default: latest).")
    ] = None,
    version_label: Annotated[
        str | None, typer.Option(help="Version on the server with this label: stable or canary.")
    ] = None,
    serving_engine: Annotated[
        str,
        typer.Option(
            help="Engine of --model-dir: tf, or openvino for models that were run with "
            "--serving-engine openvino; auto uses the faster for them, from 500 images on."
        ),
    ] = "auto",
    ray: RayOption = "",
    concurrency: Annotated[int, typer.Option(help="Number of concurrent requests.")] = 16,
    timeout_s: Annotated[
        float, typer.Option(help="Time limit of each request, in seconds.")
    ] = 60.0,
    json: JsonFlag = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of a table.")] = False,
    output: Annotated[
        str,
        typer.Option(
            help="Parquet file (.parquet), or folder of Parquet files, to write the predictions of "
            "any number of images to; a path or a bucket's URI. A folder is resumed after an "
            "interruption."
        ),
    ] = "",
) -> None:
    """Predict images with a served or a local model.

    Give either --server or --model-dir.

    Example: regraft predict ./images --server grpc://127.0.0.1:8500 --model digits
    """
    from pipelines.local.ray_runs import check_ray_address
    from regraft.cli.console_output import progress_bar
    from regraft_client.predict_files import PredictOptions

    if (server is None) == (model_dir is None):
        raise InputError(f"expected --server or --model-dir, got {'both' if server else 'neither'}")
    check_ray_address(ray)
    if (ray or output) and server is not None:
        option = "ray" if ray else "output"
        raise InputError(f"--{option}: expected --model-dir with it, got --server")
    if output and (json or csv):
        raise InputError("--output: expected no --json and no --csv with it; it writes Parquet")
    if server is None and (model or version is not None or version_label):
        raise InputError("--model, --version and --version-label: expected only with --server; "
                         "--model-dir may be the folder of a version")  # fmt: skip
    if output:
        _predict_into(output, images, str(model_dir), serving_engine, ray)
        return
    options = PredictOptions(
        concurrency=concurrency, timeout_s=timeout_s, version=version, label=version_label
    )
    with progress_bar("images") as progress:
        if server is not None:
            name = model or "regraft"
            classes, results = _predict_on(server, images, name, options, progress, named=json)
        else:
            classes, results = _predict_here(images, str(model_dir), serving_engine, ray, progress)
    _print_results(results, classes, json=json, csv=csv)


def _predict_into(
    output: str, images: Sequence[str], model_dir: str, engine: str, ray: str
) -> None:
    """Predict images with a local model into Parquet files.

    Raises:
        InputError: images were refused; the others are in the files.
    """
    from pipelines.local.ray_runs import using_ray
    from regraft.bulk.parquet_output import predict_into
    from regraft.bulk.prediction import PredictionSetup
    from regraft.cli.console_output import print_line, progress_bar, progress_on_stderr

    setup = PredictionSetup(model_dir, engine)
    with progress_bar("images") as progress, using_ray(ray), progress_on_stderr():
        written = predict_into(images, setup, output, progress)
    kept = f"; {written.kept_parts} parts were there already" * bool(written.kept_parts)
    print_line(f"{written.images} images predicted to {output}{kept}")
    if written.errors:
        raise InputError(f"{written.errors} of {written.images} images were refused; the "
                         f"column error of {output} has the reasons")  # fmt: skip


def _predict_here(
    images: Sequence[str], model_dir: str, engine: str, ray: str, progress: Progress
) -> Predictions:
    """Return the classes and the predictions of a local model."""
    from pipelines.local.ray_runs import using_ray
    from regraft.bulk.prediction import predict_here
    from regraft.cli.console_output import progress_on_stderr

    with using_ray(ray), progress_on_stderr():
        return predict_here(images, model_dir, engine, progress)


def _predict_on(
    server: str, images: Sequence[str], model: str, options: PredictOptions, progress: Progress,
    *, named: bool,
) -> Predictions:  # fmt: skip
    """Return the classes, empty if nothing but `named` needs them, and a server's predictions.

    Raises:
        InputError: the server has no such model or version.
    """
    from regraft_client.errors import ModelNotFoundError, NotFoundError
    from regraft_client.predict_files import decision_columns, predict_files, read_class_names

    try:
        results = predict_files(images, server, model, options, progress)
        named = named or bool({"label_set", "selected"} & {*decision_columns(results)})
        classes = read_class_names(server, model, options, results) if named else ()
    except ModelNotFoundError as error:
        raise InputError(f"--model {model}: not found on the server: {error.message}") from error
    except NotFoundError as error:
        option = _target_option(model, options.version, options.label)
        raise InputError(f"{option}: not found on the server: {error.message}") from error
    return classes, results


def _print_results(
    results: Sequence[FilePrediction], classes: Sequence[str], *, json: bool, csv: bool
) -> None:
    """Print predictions.

    Raises:
        InputError: images were refused.
    """
    from regraft.cli.console_output import print_predictions
    from regraft_client.predict_files import as_csv, as_json

    if json or csv:
        text = as_json(results, classes) if json else as_csv(results, classes)
        print(text, end="" if csv else "\n")
    else:
        print_predictions(results, classes)
    refused = [result for result in results if result.prediction is None]
    if refused:
        raise InputError(f"{len(refused)} of {len(results)} images were refused; the first is "
                         f"{refused[0].path}: {refused[0].error}")  # fmt: skip


def _target_option(model: str, version: int | None, label: str | None) -> str:
    """Return the option that selects what was not found."""
    if label is not None:
        return f"--version-label {label}"
    return f"--model {model}" if version is None else f"--version {version}"


def publish(
    destination: Annotated[str, typer.Argument(help="Folder or bucket URI of published models.")],
    model: Annotated[str, typer.Option(help="Name of the published model.")],
    saved_model: Annotated[
        Path | None, typer.Option(help="Folder of the exported model to publish.")
    ] = None,
    version_label: Annotated[
        str, typer.Option(help="Label of the new version, or of --version: stable or canary.")
    ] = "",
    version: Annotated[
        int | None,
        typer.Option(
            help="Version to label (default: latest) or to roll back to (default: the one before)."
        ),
    ] = None,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Withdraw the latest version.")
    ] = False,
    keep_last: Annotated[
        int, typer.Option(help="Number of versions to keep; 0 keeps all of them.")
    ] = 0,
) -> None:
    """Publish an exported model, label a version, or roll back.

    Example: regraft publish runs/digits/models --model digits --version-label stable --version 1
    """
    from regraft.cli.console_output import print_line, progress_on_stderr
    from serving.publishing import publish as publishing

    if rollback and (saved_model is not None or version_label):
        raise InputError("--rollback: expected no --saved-model and no --version-label with it")
    if saved_model is not None:
        with progress_on_stderr():
            done = publishing.publish_saved_model(
                saved_model, destination, model, label=version_label, keep_last=keep_last
            )
    elif rollback:
        done = publishing.rollback(destination, model, version)
    elif version_label:
        done = publishing.set_label(destination, model, version_label, version)
    else:
        raise InputError("expected --saved-model, --version-label or --rollback")
    print_line(f"{model} version {done.number} at {done.path}")
