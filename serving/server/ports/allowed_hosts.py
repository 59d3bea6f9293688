"""Which browsers may use a server on this machine: those on its own pages.

A page of another site can send requests to a loopback address, and by its own DNS even read the
responses (DNS rebinding). A browser's Host and Origin headers show it.
"""

from __future__ import annotations

import ipaddress
import urllib.parse
from collections.abc import Iterable


class AllowedHosts:
    """The names by which a server on a loopback address is reached; others allow all."""

    def __init__(self, bound: str, allowed: Iterable[str] = ()) -> None:
        self._checked = _is_loopback(bound)
        self._allowed = {name.strip().lower() for name in allowed if name.strip()}

    def refusal(self, hosts: Iterable[str], origins: Iterable[str]) -> str:
        """Return why a request with these headers is refused, "" if it is not."""
        if not self._checked:
            return ""
        for host in hosts:
            if not self._is_allowed(f"//{host}"):
                return (
                    f"Host: expected a loopback address, got {host!a}; "
                    "--allowed_host=NAME accepts another name"
                )
        for origin in origins:
            if not self._is_allowed(origin):
                return f"Origin: expected a page of this server, got {origin!a}"
        return ""

    def _is_allowed(self, url: str) -> bool:
        try:
            name = urllib.parse.urlsplit(url).hostname or ""
        except ValueError:
            return False
        return name in self._allowed or _is_loopback(name)


def _is_loopback(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
