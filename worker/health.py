"""Whether this worker is alive and not deaf, for whoever restarts it; answered by a thread, even if the loop hangs."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from infra.settings import SettingsError


class Pulse:
    """Beats with every turn of the worker that Redis has answered: a claim, or a renewal of the leases."""

    def __init__(self) -> None:
        self._at = time.monotonic()

    def beat(self) -> None:
        """Redis has just answered."""
        self._at = time.monotonic()

    def age_s(self) -> float:
        """Seconds since the last beat."""
        return time.monotonic() - self._at


@contextmanager
def served(pulse: Pulse, host: str, port: int, max_age_s: float) -> Iterator[int]:
    """`GET /health` answers 200, or 503 if the last beat is older than `max_age_s`; yields the port.

    Raises SettingsError if the port cannot be had.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/health":
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            age_s = pulse.age_s()
            body = json.dumps({"status": "ok" if age_s <= max_age_s else "deaf", "age_s": round(age_s, 1)}).encode()
            self.send_response(HTTPStatus.OK if age_s <= max_age_s else HTTPStatus.SERVICE_UNAVAILABLE)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
            """Probes are not news."""

    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except OSError as exc:
        raise SettingsError(f"WORKER_HEALTH_PORT {port} cannot be had on {host}: {exc.strerror}") from None
    thread = Thread(target=server.serve_forever, name="health", daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
