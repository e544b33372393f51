"""Receive webhooks: start a run whose end is posted to this program, and check the signature of the call.

Start the stack with `EDGE_WEBHOOK_PRIVATE_HOSTS=127.0.0.1:9000 swissbrain dev`: otherwise it calls no private address.
"""

import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

from swissbrain import Client, WebhookRejected, message
from swissbrain.webhooks import verify

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 9000
MAX_BODY_BYTES = 64 * 1024


class Receiver(BaseHTTPRequestHandler):
    """Receiver of events. An event can come again: a real one remembers its id where it keeps its data."""

    secret = ""
    seen: ClassVar[set[str]] = set()
    arrived = threading.Event()

    def do_POST(self) -> None:
        """Answer one call: 204 if it is an event of ours, also if it has come before."""
        body = self.rfile.read(min(int(self.headers["Content-Length"] or 0), MAX_BODY_BYTES))
        try:
            event = verify(body, dict(self.headers), self.secret)
        except WebhookRejected as exc:
            self.send_error(401, str(exc))
            return
        if event.event_id not in self.seen:
            self.seen.add(event.event_id)
            print(f"{event.type}: the run has {event.data.status}, for order {event.data.metadata['order']}")
        self.send_response(204)
        self.end_headers()
        self.arrived.set()

    def log_message(self, *_: object) -> None:
        """Print nothing for a request."""


def main() -> None:
    """Receive the end of one run."""
    with Client.from_env() as client, HTTPServer(("127.0.0.1", PORT), Receiver) as server:
        Receiver.secret = client.webhook_secret()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{PORT}/hook"
        run = client.create_run(message("Done"), webhook_url=url, metadata={"order": "17"})
        if not Receiver.arrived.wait(60):
            raise SystemExit("no call within a minute; see: swissbrain webhook list " + run.run_id)
        server.shutdown()
        for event in client.webhook_deliveries(run.run_id):
            print(f"in the log of deliveries: {event.event}")


if __name__ == "__main__":
    main()
