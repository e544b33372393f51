"""The loopback ports of the parts: those of the last start where they are free, so that an old `dev.env` stays true."""

import random
import socket
from dataclasses import astuple
from pathlib import Path

import msgspec

from infra.devstack import s3_server
from infra.devstack.errors import StackError

HOST = "127.0.0.1"

# Below the range that Linux takes outgoing connections from, so that none sits on a port between pick and start.
_LOWEST, _HIGHEST = 15_000, 32_000


class Ports(msgspec.Struct, frozen=True, kw_only=True):
    """One for each part, and all those of the S3 server."""

    redis: int
    gateway: int
    api: int
    s3: s3_server.Ports

    def all(self) -> set[int]:
        """Every port."""
        return {self.redis, self.gateway, self.api, *astuple(self.s3)}


def is_free(port: int) -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError):
            return False
    return True


def remembered(path: Path) -> Ports | None:
    """The ports of the last start; None if there are none, or the file is damaged."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Ports)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def choose(last: Ports | None, api: int) -> Ports:
    """Ports to start with. `api` 0: any port will do for the API. Raises StackError if `api` is taken."""
    if api and not is_free(api):
        raise StackError(f"port {api} is taken; choose another one with --port")
    taken = {api}
    s3 = last.s3 if last and all(is_free(port) for port in astuple(last.s3)) else s3_server.pick_ports()
    taken.update(astuple(s3))
    return Ports(
        redis=_keep_or_pick(last.redis if last else 0, taken),
        gateway=_keep_or_pick(last.gateway if last else 0, taken),
        api=api or _keep_or_pick(last.api if last else 0, taken),
        s3=s3,
    )


def _keep_or_pick(last: int, taken: set[int]) -> int:
    port = last
    while port == 0 or port in taken or not is_free(port):
        port = random.randint(_LOWEST, _HIGHEST)  # noqa: S311 - no secret
    taken.add(port)
    return port
