"""The pages of exit codes and of environment variables."""

from __future__ import annotations

import inspect

from regraft_client import errors as client_errors
from regraft_core.runtime import errors

# Name: what it sets.
VARIABLES = {
    "NO_COLOR": "If not empty, output has no colors. Output to a file has none, either.",
    "COLUMNS": "Width of help and tables, instead of that of the terminal.",
    "REGRAFT_EVENTS": "Internal: the file to which a step writes its events.",
    "REGRAFT_RAY": "Internal: the Ray cluster that the steps of a run use; set it with `--ray`.",
    "CUDA_VISIBLE_DEVICES": "GPUs that are used, by number; `-1` hides all.",
    "TF_CPP_MIN_LOG_LEVEL": "Log of TensorFlow: `0` shows all; commands set `3` and steps `2` by "
    "default.",
    "TF_FORCE_GPU_ALLOW_GROWTH": "`false` lets a server take all memory of the GPU at its start.",
    "TF_NUM_INTEROP_THREADS": "Operations that TensorFlow runs at once; by default twice the cores "
    "in an extraction without a GPU.",
    "NVIDIA_TF32_OVERRIDE": "`1` computes in TF32 although Regraft turns it off for parity.",
    "TF_CONFIG": "The machines of a training on several ones, as TensorFlow defines it.",
    "REGRAFT_RAY_RUN": "Internal: the run whose Ray cluster a step on Kubeflow connects to.",
    "REGRAFT_POD": "Internal: the pod of a step on Kubeflow that starts a Ray cluster.",
    "KUBERNETES_SERVICE_HOST": "The API of the cluster in which a step runs; Kubernetes sets it.",
    "KUBERNETES_SERVICE_PORT": "Its port.",
    "OMP_NUM_THREADS": "Threads of a worker on a node of Ray; Ray sets it.",
    "RAY_TMPDIR": "Set for the cluster that `--ray local` starts: its folder.",
    "KERAS_HOME": "Folder of downloaded weights; by default `~/.keras`.",
    "KAGGLEHUB_CACHE": "Folder of downloaded presets of KerasHub; by default `~/.cache/kagglehub`.",
    "MLFLOW_TRACKING_URI": "On Kubeflow, the MLflow server to which a run is logged if `--mlflow` "
    "is empty.",
    "MLFLOW_EXPERIMENT_ID": "On Kubeflow, the experiment of this server, set by its MLflow plugin.",
    "MLFLOW_RUN_ID": "On Kubeflow, the run of this server, set by its MLflow plugin.",
    "PYTHONPATH": "Folders of packages. Regraft removes the current folder from it, so that a "
    "folder of yours is never imported.",
    "PYTHONSAFEPATH": "Set to `1` for the processes of steps, for the same reason.",
    "TMPDIR": "Folder of temporary files; each step gets its own below it.",
}
PASSED_ON = """
Libraries read their usual variables, too: `HTTPS_PROXY`, `NO_PROXY` and `REQUESTS_CA_BUNDLE` for
downloads, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_ENDPOINT_URL` and
`GOOGLE_APPLICATION_CREDENTIALS` for object stores. A URL with `?${NAME}` is read with the variable
`NAME` of your own choice as its query ([kubeflow](../kubeflow.md)).
"""
CODES = """
| exit code | meaning |
|---|---|
| 0 | done; for a run: the gate accepted the model |
| 2 | bad input or usage: the line on stderr shows what was expected and what was received |
| 3 | the gate rejected the model, or `regraft drift` found a drift |
| 1 | anything else |
"""
CODES_TEXT = """
They do not change between versions. With `regraft submit --wait`, they are those of the run on the
cluster. In Python, the same errors are exceptions; each is a subclass of `RegraftError`
(`regraft_core.runtime.errors`), those of the clients of `RegraftClientError`
(`regraft_client.errors`):
"""
CLIENT_INPUT = client_errors.InvalidInputError


def exit_codes_page(note: str) -> str:
    """Return the page of the exit codes, and of the errors that end with them."""
    lines = [note, "# Exit codes", *CODES.splitlines(), *CODES_TEXT.splitlines(), ""]
    lines += ["| error | exit code | meaning |", "|---|---|---|"]
    bases = {errors: errors.RegraftError, client_errors: client_errors.RegraftClientError}
    for module, base in bases.items():
        for name, kind in vars(module).items():
            if inspect.isclass(kind) and issubclass(kind, base):
                code = getattr(kind, "exit_code", 2 if kind is CLIENT_INPUT else 1)
                meaning = inspect.getdoc(kind) or ""
                lines.append(f"| `{name}` | {code} | {meaning.splitlines()[0]} |")
    lines += ["", "[Error messages](messages.md) has the messages of each."]
    return "\n".join(lines) + "\n"


def environment_page(note: str) -> str:
    """Return the page of the environment variables."""
    lines = [note, "# Environment variables", "", "| variable | meaning |", "|---|---|"]
    lines += [f"| `{name}` | {meaning} |" for name, meaning in VARIABLES.items()]
    return "\n".join([*lines, *PASSED_ON.splitlines()]) + "\n"
