"""Checks that a SavedModel serves: it is loaded as in TF Serving and runs its warm-up requests.

TensorFlow runs in a process of its own, so the caller does not import it and survives its crashes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from regraft_core.formats.fingerprint import WARMUP_FILE
from regraft_core.runtime.errors import RegraftError
from regraft_core.runtime.gpu_setup import GpuSetup, session_options, set_up_gpus
from serving.batching_file import check_warmup_size
from serving.module_process import module_command, module_environment

_REASON = "probe: "


def probe(folder: str | os.PathLike[str], timeout_s: float = 600.0) -> int:
    """Load the SavedModel in a new process and replay its warm-up requests; return their number.

    Raises:
        RegraftError: it does not load, fails or returns values that are not finite, has no warm-up
            requests or one that is too large for the batching file, or takes longer than
            `timeout_s`.
    """
    try:
        done = subprocess.run(
            module_command("serving.publishing.servable_check", str(folder)),
            capture_output=True, text=True, timeout=timeout_s, check=False,
            env={"TF_CPP_MIN_LOG_LEVEL": "2", **module_environment()},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise RegraftError(f"{folder}: not loaded and warmed up within {timeout_s:.0f} s") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        reason = next((x for x in lines if x.startswith(_REASON)), lines[-1] if lines else "")
        raise RegraftError(
            f"{folder} does not serve: {reason.removeprefix(_REASON)[:500]} "
            f"(exit code {done.returncode})"
        )
    return int(done.stdout.split()[-1])


def replay(folder: str | os.PathLike[str]) -> int:
    """Load the SavedModel in a session and run its warm-up requests; return their number.

    Raises:
        RegraftError: as `probe`.
    """
    if not (Path(folder) / WARMUP_FILE).is_file():
        raise RegraftError(f"expected warm-up requests in {WARMUP_FILE}, found none")
    import numpy as np
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    set_up_gpus(GpuSetup(tf32=False))  # before any operation
    records = tf.data.TFRecordDataset(str(Path(folder) / WARMUP_FILE)).as_numpy_iterator()
    logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records]
    config = tf.compat.v1.ConfigProto(gpu_options=session_options())
    with tf.Graph().as_default(), tf.compat.v1.Session(config=config) as session:
        signatures = tf.compat.v1.saved_model.load(session, ["serve"], str(folder)).signature_def
        for log in logs:
            request = log.predict_log.request
            signature = signatures[request.model_spec.signature_name]
            feed = {
                signature.inputs[name].name: tf.make_ndarray(tensor)
                for name, tensor in request.inputs.items()
            }
            rows = max((value.shape[0] for value in feed.values() if value.ndim), default=0)
            check_warmup_size(rows, request.model_spec.signature_name)
            names = {name: info.name for name, info in signature.outputs.items()}
            for name, value in session.run(names, feed).items():
                if value.dtype.kind == "f" and not np.isfinite(value).all():
                    raise RegraftError(f"{request.model_spec.signature_name}: {name} is not finite")
    return len(logs)


def main() -> None:
    """Replay the model given as the only argument; print the number of its requests."""
    try:
        print(replay(sys.argv[1]))
    except Exception as error:  # whatever the failure, the model does not serve
        line = " ".join(str(error).split())
        print(f"{_REASON}{type(error).__name__}: {line}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
