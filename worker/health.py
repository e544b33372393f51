"""HTTP endpoints of the worker for its operator: `/health`, and `/metrics` for Prometheus (`infra.metrics`).

`/health` is the liveness endpoint: 503 once Redis has not replied for `max_age_s`.

An unfit worker (see worker.fitness) is alive, and a restart would not cure it: the answer is 200 and names the problem.
Threads beside the event loop serve both, so they answer even while it hangs.
"""

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlsplit

from infra import metrics
from infra.logging import log
from infra.settings import SettingsError
from worker.fitness import Fitness

CLIENT_TIMEOUT_S = 10
"""Time that a client may take to send its request, or to take the answer."""


class Heartbeat:
    """Time of the last reply of Redis to a claim or to a renewal of the leases.

    These two calls prove that the event loop, the connection and Redis work. An idle worker makes one at least every
    `loop.MAX_BLOCK_S`, a busy one every third of the lease.
    """

    def __init__(self) -> None:
        self._replied_at = time.monotonic()

    def record(self) -> None:
        """Record that Redis has just replied."""
        self._replied_at = time.monotonic()

    def age_s(self) -> float:
        """Return the seconds since the last reply."""
        return time.monotonic() - self._replied_at


class _HealthServer(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Log nothing for a client that has left, and one line for anything else."""
        if not isinstance(error := sys.exception(), OSError):
            log("health.broken", level=logging.ERROR, error=error)


@contextmanager
def serve_health(
    heartbeat: Heartbeat,
    fitness: Fitness,
    host: str,
    port: int,
    max_age_s: float,
    cluster_age_s: Callable[[], float] | None = None,
) -> Iterator[int]:
    """Serve `GET /health` and `GET /metrics` within the context; yield the port.

    The answer to `/health` is 503 with status `unresponsive` if the last reply of Redis is older than `max_age_s`, 200
    with status `unfit` and the `problem` if the worker claims nothing because a check failed, else with status `ok`.
    `cluster_age_s` returns the age of what is known of the pods of programs, which does not change the status. Raises
    SettingsError if the worker cannot listen on the port.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = CLIENT_TIMEOUT_S

        def do_GET(self) -> None:
            match urlsplit(self.path).path:  # a scraper may be given a query
                case "/health":
                    self._answer(*self._health())
                case "/metrics":
                    self._answer(HTTPStatus.OK, metrics.CONTENT_TYPE, metrics.page())
                case _:
                    self.send_error(HTTPStatus.NOT_FOUND)

        do_HEAD = do_GET  # noqa: N815

        def _health(self) -> tuple[HTTPStatus, str, bytes]:
            age_s = heartbeat.age_s()
            alive = age_s <= max_age_s
            problem = fitness.problem
            status = "unresponsive" if not alive else "unfit" if problem else "ok"
            answer = {"status": status, "age_s": round(age_s, 1), **({"problem": problem} if problem else {})}
            if cluster_age_s:
                answer["cluster_age_s"] = round(cluster_age_s(), 1)
            code = HTTPStatus.OK if alive else HTTPStatus.SERVICE_UNAVAILABLE
            return code, "application/json", json.dumps(answer).encode()

        def _answer(self, status: HTTPStatus, media_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
            """Log nothing: probes arrive every few seconds."""

    try:
        server = _HealthServer((host, port), Handler)
    except OSError as exc:
        raise SettingsError(f"WORKER_HEALTH_PORT: cannot listen on {host}:{port}: {exc.strerror}") from None
    thread = Thread(target=server.serve_forever, name="health", daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
