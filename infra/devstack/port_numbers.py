"""Loopback ports of the services. Ports of the last start are reused if free, so that an old `dev.env` stays valid."""

import random
import socket
from dataclasses import astuple
from pathlib import Path

import msgspec

from infra.devstack.errors import StackError
from infra.devstack.s3_server import ADMIN_GRPC_OFFSET, S3Ports

HOST = "127.0.0.1"

# Below the range of Linux for outgoing connections, so that none takes a port between choice and start.
_LOWEST, _HIGHEST = 15_000, 32_000


class Ports(msgspec.Struct, frozen=True, kw_only=True):
    """Ports of all services."""

    redis: int
    gateway: int
    api: int
    s3: S3Ports
    qstash: int = 0
    """0 in the file of an earlier release."""

    def all(self) -> set[int]:
        """Return every port."""
        return {self.redis, self.gateway, self.api, self.qstash, *astuple(self.s3)}


class PortReservations:
    """Ports that no other stack on this machine chooses until they are released, or until this process has ended.

    That a port is free does not protect it: two stacks that start at the same time find the same ports free, and the
    port of a part that has crashed is free until the part is started again.

    A reservation is a bound abstract socket with the port in its name. It has the scope of the port itself, the network
    namespace, leaves nothing behind, and unlike a bound TCP socket it is not in the way of connections in TIME_WAIT.
    """

    def __init__(self) -> None:
        self._held: dict[int, socket.socket] = {}

    def take(self, port: int) -> bool:
        """Reserve the port. Returns False if it is reserved already, here or elsewhere, or if it is in use."""
        if port in self._held or not 0 < port <= 65535:
            return False
        reservation = socket.socket(socket.AF_UNIX)
        try:
            reservation.bind(f"\0swissbrain-port-{port}")
        except OSError:
            reservation.close()
            return False
        if not _is_free(port):
            reservation.close()
            return False
        self._held[port] = reservation
        return True

    def pick(self) -> int:
        """Reserve any port."""
        while not self.take(port := random.randint(_LOWEST, _HIGHEST)):  # noqa: S311 - no secret
            pass
        return port

    def pick_s3(self) -> S3Ports:
        """Reserve ports for an S3 server."""
        picked = [self.pick() for _ in range(8)]
        while True:
            admin = random.randint(_LOWEST, _HIGHEST - ADMIN_GRPC_OFFSET)  # noqa: S311 - no secret
            if self.take_all([admin, admin + ADMIN_GRPC_OFFSET]):
                return S3Ports(*[*picked, admin, admin + ADMIN_GRPC_OFFSET])

    def take_all(self, ports: list[int]) -> bool:
        """Reserve all of the ports; or none, and return False."""
        taken: list[int] = []
        for port in ports:
            if not self.take(port):
                for other in taken:
                    self._held.pop(other).close()
                return False
            taken.append(port)
        return True

    def release(self) -> None:
        """Give all ports to others."""
        while self._held:
            self._held.popitem()[1].close()


def _is_free(port: int) -> bool:
    """Return True if a server could listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def load_last(path: Path) -> Ports | None:
    """Return the ports of the last start; None if the file is missing or damaged."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Ports)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def choose(last: Ports | None, api: int, reservations: PortReservations) -> Ports:
    """Reserve ports. `api` is the wanted port of the API; 0: any. Raises StackError if the wanted port is taken."""
    if api and not reservations.take(api):
        raise StackError(f"port {api} is taken; choose another one with --port")

    def reuse(port: int) -> int:
        return port if reservations.take(port) else reservations.pick()

    return Ports(
        redis=reuse(last.redis if last else 0),
        gateway=reuse(last.gateway if last else 0),
        api=api or reuse(last.api if last else 0),
        s3=last.s3 if last and reservations.take_all([*astuple(last.s3)]) else reservations.pick_s3(),
        qstash=reuse(last.qstash if last else 0),
    )
