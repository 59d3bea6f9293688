"""Connects a step to the Ray cluster of its run, by environment variables.

The address and the token differ in each run. As options, they would change what the server's cache
compares, and the token would be stored with the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from regraft_core.kuberay.kubernetes_api import ACCOUNT, api_of_pod
from regraft_core.kuberay.lifecycle import client_variables
from regraft_core.parallel.ray_executor import RAY_VARIABLE

RUN_VARIABLE = "REGRAFT_RAY_RUN"
"""Is set, to the run's ID, in pods of steps that use the Ray cluster of the run."""


def ray_variables(environ: Mapping[str, str], account: Path = ACCOUNT) -> dict[str, str]:
    """Return the variables for Ray's client; none without a Ray cluster, or if they are set.

    Raises:
        InputError: the token cannot be read.
        UnavailableError: the API server does not respond.
    """
    run_id = environ.get(RUN_VARIABLE, "")
    if not run_id or environ.get(RAY_VARIABLE):
        return {}
    return client_variables(api_of_pod(environ, account), run_id)
