"""Virtual environments of releases, without a registry: links to what is installed here, or small programs."""

import sys
from collections.abc import Callable
from pathlib import Path

SERVER = """#!{python} -IS
import http.server, os

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{{"status": "{name}"}}')

    def log_message(self, *_):
        pass

http.server.HTTPServer(("127.0.0.1", int(os.environ["{port}"])), Handler).serve_forever()
"""
SLEEPER = "#!/bin/sh\nexec sleep 1000\n"


def working(folder: Path, _source: Path, _wheels: Path | None) -> None:
    """Make the environment that these tests run in that of a release."""
    folder.symlink_to(sys.prefix)


def small(name: str, verify: str) -> Callable[[Path, Path, Path | None], None]:
    """Return how to make an environment whose servers only say its name. `verify`: script of `swissbrain verify`."""

    def make(folder: Path, _source: Path, _wheels: Path | None) -> None:
        (folder / "bin").mkdir(parents=True)
        (folder / "lib").symlink_to(Path(sys.prefix) / "lib")
        scripts = {
            "swissbrain-api": SERVER.format(python=sys.executable, name=name, port="EDGE_PORT"),
            "swissbrain-worker": SERVER.format(python=sys.executable, name=name, port="WORKER_HEALTH_PORT"),
            "swissbrain": f'#!/bin/sh\n[ "$1" = verify ] || exit 0\n{verify}\n',
            "swissbrain-gateway": SLEEPER,
            "swissbrain-qstash": SLEEPER,
            "caddy": SLEEPER,
        }
        for program, text in scripts.items():
            path = folder / "bin" / program
            path.write_text(text)
            path.chmod(0o755)

    return make
