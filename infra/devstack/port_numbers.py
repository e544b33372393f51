"""Loopback ports of the services. Ports of the last start are reused if free, so that an old `dev.env` stays valid."""

import random
import socket
from dataclasses import astuple
from pathlib import Path

import msgspec

from infra.devstack import s3_server
from infra.devstack.errors import StackError

HOST = "127.0.0.1"

# Below the range of Linux for outgoing connections, so that none takes a port between choice and start.
_LOWEST, _HIGHEST = 15_000, 32_000


class Ports(msgspec.Struct, frozen=True, kw_only=True):
    """Ports of all services."""

    redis: int
    gateway: int
    api: int
    s3: s3_server.S3Ports
    qstash: int = 0
    """0 in the file of an earlier release."""

    def all(self) -> set[int]:
        """Return every port."""
        return {self.redis, self.gateway, self.api, self.qstash, *astuple(self.s3)}


def is_free(port: int) -> bool:
    """Return True if a server could listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError):
            return False
    return True


def load_last(path: Path) -> Ports | None:
    """Return the ports of the last start; None if the file is missing or damaged."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Ports)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def choose(last: Ports | None, api: int) -> Ports:
    """Return free ports. `api` is the wanted port of the API; 0: any. Raises StackError if the wanted port is taken."""
    if api and not is_free(api):
        raise StackError(f"port {api} is taken; choose another one with --port")
    taken = {api}
    s3 = last.s3 if last and all(is_free(port) for port in astuple(last.s3)) else s3_server.pick_ports()
    taken.update(astuple(s3))
    return Ports(
        redis=_reuse_or_pick(last.redis if last else 0, taken),
        gateway=_reuse_or_pick(last.gateway if last else 0, taken),
        api=api or _reuse_or_pick(last.api if last else 0, taken),
        s3=s3,
        qstash=_reuse_or_pick(last.qstash if last else 0, taken),
    )


def _reuse_or_pick(last: int, taken: set[int]) -> int:
    port = last
    while port == 0 or port in taken or not is_free(port):
        port = random.randint(_LOWEST, _HIGHEST)  # noqa: S311 - no secret
    taken.add(port)
    return port
