"""A model's own warm-up requests, replayed before its version becomes available."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from serving.server.models.catalog import Catalog
from serving.server.models.servable import Servable
from serving.server.protocol.status import Code, ServingError
from serving.server.requests import api_methods

WARMUP_FILE = Path("assets.extra") / "tf_serving_warmup_requests"
MAX_RECORDS = 1000
_READ_TOGETHER = 20


def warm_up(servable: Servable, name: str, version: int, folder: Path, at_once: int = 1) -> int:
    """Replay the records of `folder`'s warm-up file; return their number.

    TensorFlow optimizes the graph of each signature at its first request, with one thread. So
    replaying `at_once` records together is faster where other cores have nothing to do.

    Raises:
        ServingError: a record fails or cannot be parsed, or there are more than 1000.
    """
    path = folder / WARMUP_FILE
    if not path.exists():
        return 0
    catalog = Catalog()
    catalog.loading(name, version)
    catalog.loaded(name, version, servable)
    count = 0
    try:
        records = _read(path)
        with ThreadPoolExecutor(at_once) as pool:
            while together := list(islice(records, _READ_TOGETHER)):
                for _ in pool.map(lambda record: _replay(catalog, name, record), together):
                    count += 1
    except tf.errors.OpError as error:
        raise ServingError(
            Code.DATA_LOSS, f"damaged warm-up file {path}: {error.message}"
        ) from error
    except ServingError as error:
        raise ServingError(error.code, f"warm-up record {count}: {error.message}") from error
    except Exception as error:
        raise ServingError(
            Code.INVALID_ARGUMENT, f"Failed to parse warmup record {count} of {path}: {error}"
        ) from error
    return count


def _read(path: Path) -> Iterator[bytes]:
    for count, record in enumerate(tf.compat.v1.io.tf_record_iterator(str(path))):
        if count == MAX_RECORDS:
            raise ServingError(
                Code.INVALID_ARGUMENT,
                f"Number of warmup records exceeeds the maximum ({MAX_RECORDS}) at {path}",
            )
        yield record


def _replay(catalog: Catalog, name: str, record: bytes) -> None:
    log = prediction_log_pb2.PredictionLog.FromString(record)
    kind = log.WhichOneof("log_type")
    calls = {
        "predict_log": api_methods.predict,
        "classify_log": api_methods.classify,
        "regress_log": api_methods.regress,
        "multi_inference_log": api_methods.multi_inference,
    }
    if kind not in calls:
        raise ServingError(Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind}")
    request = getattr(log, kind).request
    specs = [request.model_spec] if kind != "multi_inference_log" else [
        task.model_spec for task in request.tasks
    ]  # fmt: skip
    for spec in specs:
        spec.name = name
        spec.ClearField("version")
        spec.ClearField("version_label")
    calls[kind](catalog, request)
