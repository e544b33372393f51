"""Targets of requests to the proxy: host and port, in their one spelling, and the path of a plain HTTP request."""

import re
from dataclasses import dataclass

from infra.address_guard import InvalidHost, read_host
from infra.host_patterns import host_port

HTTP_PORT = 80
_AUTHORITY = re.compile(rb"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:/@?#\\]+)(?::(?P<port>[0-9]{1,5}))?")
_SCHEME = b"http://"


class BadTarget(Exception):
    """Target of a request that names no host in a way that all programs read alike."""


@dataclass(frozen=True)
class EgressTarget:
    """Host, as `read_host` returns it, and port; `path` with the query, for a plain HTTP request."""

    host: str
    port: int
    path: bytes = b""

    @property
    def name(self) -> str:
        """Host and port as text."""
        return host_port(self.host, self.port)

    @property
    def host_header(self) -> str:
        """Value of the header Host."""
        return self.name.removesuffix(f":{HTTP_PORT}") if self.port == HTTP_PORT else self.name


def connect_target(target: bytes) -> EgressTarget:
    """Return the target of a CONNECT request, `host:port`. Raises BadTarget."""
    return EgressTarget(*_endpoint(target, None))


def plain_target(target: bytes) -> EgressTarget:
    """Return the target of a request with an absolute URL, `http://host/path`. Raises BadTarget."""
    if target[: len(_SCHEME)].lower() != _SCHEME:
        raise BadTarget("a request needs a URL that begins with http://; https goes through CONNECT")
    rest, fragment, _ = target[len(_SCHEME) :].partition(b"#")
    if fragment:
        raise BadTarget("the URL has a fragment")
    end = min(at for at in (rest.find(b"/"), rest.find(b"?"), len(rest)) if at >= 0)
    path = rest[end:]
    host, port = _endpoint(rest[:end], HTTP_PORT)
    return EgressTarget(host, port, path if path.startswith(b"/") else b"/" + path)


def _endpoint(authority: bytes, default_port: int | None) -> tuple[str, int]:
    if b"@" in authority:
        raise BadTarget("the URL holds credentials; send them in the header Authorization")
    found = _AUTHORITY.fullmatch(authority)
    port = default_port if found is None or found["port"] is None else int(found["port"])
    if found is None or port is None:
        raise BadTarget("the target is not a host with a port, such as 'example.org:443'")
    if not 0 < port < 65536:
        raise BadTarget("the port is not between 1 and 65535")
    try:
        return read_host(found["host"].decode("latin-1")), port
    except InvalidHost as exc:
        raise BadTarget(str(exc)) from None
