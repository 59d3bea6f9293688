"""Checks the health of a Ray node: `python -P -m regraft_core.kuberay.health_probe URL ...`.

KubeRay's default probes of some versions call `wget`, which a slim container image does not have.
"""

from __future__ import annotations

import sys
import urllib.request

TIMEOUT_S = 4.0
WORKER_URLS = ("http://127.0.0.1:52365/api/local_raylet_healthz",)
HEAD_URLS = (*WORKER_URLS, "http://127.0.0.1:8265/api/gcs_healthz")


def check_health(urls: list[str]) -> str:
    """Return what is not healthy, in one line, or an empty text."""
    # A proxy of the environment is for other hosts.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for url in urls:
        try:
            with opener.open(url, timeout=TIMEOUT_S) as response:
                text = response.read(1000)
        except OSError as error:
            return f"{url}: {error}"
        if b"success" not in text:
            return f"{url}: expected success, got {text[:100]!r}"
    return ""


if __name__ == "__main__":
    sys.exit(check_health(sys.argv[1:]) or 0)
