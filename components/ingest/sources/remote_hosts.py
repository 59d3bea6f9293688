"""Requests for the files of a remote table, which must not reach into this machine.

The address is checked after the connection and before the request, so that a name that resolves to
another address the second time, or a redirect, is checked as well.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any
from urllib.parse import urlsplit

import requests
import requests.adapters
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

_PORTS = {"http": 80, "https": 443}


class RefusedHostError(Exception):
    """The host of a URL is this machine or one of its links."""


def limited_session(table: str) -> requests.Session:
    """Return a session that sends no request to loopback and link-local addresses.

    Args:
        table: URL of the table; its own server is allowed, because the user has named it.
    """
    session = requests.Session()
    adapter = _Adapter(table)
    for scheme in _PORTS:
        session.mount(f"{scheme}://", adapter)
    return session


def is_inside(address: str) -> bool:
    """Return whether an IP address is this machine or one of its links."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return ip.is_loopback or ip.is_link_local or ip.is_unspecified


class _Adapter(requests.adapters.HTTPAdapter):
    def __init__(self, table: str) -> None:
        parts = urlsplit(table)
        self._own = (parts.hostname, parts.port or _PORTS.get(parts.scheme, 0))
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        own = self._own

        def checked(connection: Any, connected: socket.socket) -> socket.socket:
            if (connection.host.strip("[]"), connection.port) != own:
                address = connected.getpeername()[0]
                if is_inside(address):
                    connected.close()
                    raise RefusedHostError(f"refused: {connection.host} is {address}, which a "
                                           "table from elsewhere must not name")  # fmt: skip
            return connected

        class Http(HTTPConnection):
            def _new_conn(self) -> socket.socket:
                return checked(self, super()._new_conn())

        class Https(HTTPSConnection):
            def _new_conn(self) -> socket.socket:
                return checked(self, super()._new_conn())

        class HttpPool(HTTPConnectionPool):
            ConnectionCls = Http

        class HttpsPool(HTTPSConnectionPool):
            ConnectionCls = Https

        self.poolmanager.pool_classes_by_scheme = {"http": HttpPool, "https": HttpsPool}

    def send(self, request: Any, *arguments: Any, **options: Any) -> requests.Response:
        # A proxy connects by itself, so literal addresses are checked before.
        parts = urlsplit(request.url)
        host, own = parts.hostname or "", self._own
        if (host, parts.port or _PORTS.get(parts.scheme, 0)) != own and _is_literal_inside(host):
            raise RefusedHostError(f"refused: {host}, which a table from elsewhere must not name")
        return super().send(request, *arguments, **options)


def _is_literal_inside(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return is_inside(host)
    except ValueError:
        return False
