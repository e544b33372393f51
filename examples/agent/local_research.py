"""Let a model find an answer on a web site, here one of this machine: its pages are served while the run works.

The worker may fetch only from hosts that its operator lists. Start it with HTTP_FETCH_PRIVATE_HOSTS=127.0.0.1:8092, the
address of this site; sites in the Internet belong into HTTP_FETCH_HOSTS.
"""

import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

from swissbrain import Client, ClientError

SITE = Path(__file__).parent / "site"
PORT = 8092
PROMPT = """The pages at http://127.0.0.1:{port}/index.html describe lakes. Which lake had the warmest water in July, on
average, and how warm was it? Read the page of each lake. Write answer.md: the lakes from the warmest to the coldest,
each with its temperature in July and the address of its page."""
OUTPUT = {
    "type": "object",
    "properties": {"lake": {"type": "string"}, "temperature_c": {"type": "number"}},
    "required": ["lake", "temperature_c"],
    "additionalProperties": False,
}


class Pages(SimpleHTTPRequestHandler):
    """Handler for the pages of the site; it notes what is fetched."""

    fetched: ClassVar[set[str]] = set()

    def do_GET(self) -> None:
        """Send a page."""
        print(f"fetched: {self.path}")
        self.fetched.add(self.path)
        super().do_GET()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def main(port: int) -> None:
    """Print the answer."""
    with ThreadingHTTPServer(("127.0.0.1", port), partial(Pages, directory=str(SITE))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with Client.from_env(notify=print) as client:
            run = client.run(
                prompt=PROMPT.format(port=server.server_port),
                output_schema=OUTPUT,
                tools=["http_fetch", "file_write", "file_read"],
                limits={"turns": 40},
                wait_s=1800,
                metadata={"example": "local_research"},
            )
            # A model may answer without having read anything.
            if unread := {f"/{page.name}" for page in SITE.iterdir()} - Pages.fetched:
                raise SystemExit(f"the model has not read {', '.join(sorted(unread))}; its answer: {run.result}")
            print(client.read_text(run.run_id, "answer.md"))
            print((run.result or {})["output"])
        server.shutdown()


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else PORT)
    except (ClientError, OSError, OverflowError, ValueError) as exc:
        raise SystemExit(str(exc)) from None
