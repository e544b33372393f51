"""Readiness checks: each makes one attempt of at most two seconds."""

import http.client
import socket
from contextlib import suppress
from pathlib import Path

import msgspec

from infra.devstack.errors import StackError
from infra.devstack.port_numbers import HOST

TIMEOUT_S = 1.0


class _Logged(msgspec.Struct):
    """Fields of a log line of a worker."""

    action: str = ""
    part: str = ""
    reason: str = ""


def redis_answers(port: int, password: str) -> bool:
    """Return True if Valkey has loaded its data and accepts the password."""
    try:
        with socket.create_connection((HOST, port), timeout=TIMEOUT_S) as connection:
            connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            answer = b""
            while answer.count(b"\r\n") < 2:
                received = connection.recv(256)
                if not received:
                    return False
                answer += received
            return answer == b"+OK\r\n+PONG\r\n"
    except OSError:
        return False


def http_ok(port: int, path: str, token: str | None = None) -> bool:
    """Return True if a GET request is answered with status 200."""
    connection = http.client.HTTPConnection(HOST, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def worker_fit(log: Path, begin: int) -> bool:
    """Return True if a worker has logged, after the first `begin` bytes of its log, that it takes runs.

    Raises StackError if it has no sandbox: its further checks would fail in the same way.
    """
    try:
        with log.open("rb") as file:
            file.seek(begin)
            lines = file.read().splitlines()
    except OSError:
        return False
    for line in lines:
        with suppress(msgspec.MsgspecError):
            logged = msgspec.json.decode(line, type=_Logged)
            if logged.action == "worker.fit":
                return True
            if logged.action == "worker.unfit" and logged.part == "sandbox":
                raise StackError(f"programs cannot be isolated on this host: {logged.reason}")
    return False
