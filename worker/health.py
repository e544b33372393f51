"""HTTP endpoints of the worker for its operator: `/health`, `/ready`, and `/metrics` for Prometheus (`infra.metrics`).

`/health` is the liveness endpoint: 503 once Redis has not replied for `max_age_s`.

An unfit worker (see worker.fitness) is alive, and a restart would not cure it: the answer is 200 and names the problem.
`/ready` has the same body, and 503 for an unfit worker, too: a rollout of workers that can do no run stops.
Threads beside the event loop serve both, so they answer even while it hangs.
"""

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import ClassVar
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


@dataclass(frozen=True)
class _Report:
    """What the answers say; the arguments of `serve_health`."""

    heartbeat: Heartbeat
    fitness: Fitness
    max_age_s: float
    cluster_age_s: Callable[[], float] | None

    def answer(self, *, ready: bool) -> tuple[HTTPStatus, bytes]:
        """Return status and body; `ready`: an unfit worker is not enough."""
        age_s, problem = self.heartbeat.age_s(), self.fitness.problem
        alive = age_s <= self.max_age_s
        status = "unresponsive" if not alive else "unfit" if problem else "ok"
        answer = {"status": status, "age_s": round(age_s, 1), **({"problem": problem} if problem else {})}
        if self.cluster_age_s:
            answer["cluster_age_s"] = round(self.cluster_age_s(), 1)
        good = alive and (self.fitness.is_fit or not ready)
        return HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE, json.dumps(answer).encode()


class _HealthHandler(BaseHTTPRequestHandler):
    timeout = CLIENT_TIMEOUT_S
    report: ClassVar[_Report]

    def do_GET(self) -> None:
        path = urlsplit(self.path).path  # a scraper may be given a query
        if path == "/metrics":
            self._answer(HTTPStatus.OK, metrics.page(), metrics.CONTENT_TYPE)
        elif path in {"/health", "/ready"}:
            self._answer(*self.report.answer(ready=path == "/ready"))
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    do_HEAD = do_GET  # noqa: N815

    def _answer(self, status: HTTPStatus, body: bytes, media_type: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
        """Log nothing: probes arrive every few seconds."""


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
    """Serve `GET /health`, `GET /ready` and `GET /metrics` within the context; yield the port.

    The answer to `/health` is 503 with status `unresponsive` if the last reply of Redis is older than `max_age_s`, 200
    with status `unfit` and the `problem` if the worker claims nothing because a check failed, else with status `ok`.
    `cluster_age_s` returns the age of what is known of the pods of programs, which does not change the status. Raises
    SettingsError if the worker cannot listen on the port.
    """

    handler = type("Handler", (_HealthHandler,), {"report": _Report(heartbeat, fitness, max_age_s, cluster_age_s)})
    try:
        server = _HealthServer((host, port), handler)
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
