"""Readiness checks: each makes one attempt of at most two seconds and never raises."""

import http.client
import socket
from pathlib import Path

from infra.devstack.port_numbers import HOST

TIMEOUT_S = 1.0


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


def log_contains(log: Path, begin: int, text: str) -> bool:
    """Return True if the log contains the text after its first `begin` bytes."""
    try:
        with log.open("rb") as file:
            file.seek(begin)
            return text.encode() in file.read()
    except OSError:
        return False
