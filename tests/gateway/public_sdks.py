"""Run documented uses of Upstash's public clients against the gateway: `python -m tests.gateway.public_sdks`.

Installs the newest clients by name from PyPI and npm into a temporary folder, so that a change in them is noticed. Not
part of the tests, because it needs the network. Without node and npm only the Python clients run. Exit code 0 if all
uses work.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from tests.gateway.support import TOKEN, Valkey, serve

HERE = Path(__file__).parent / "sdk_uses"
PYTHON_PACKAGES = ("upstash-redis", "upstash-ratelimit")
NPM_PACKAGES = ("@upstash/redis", "@upstash/ratelimit", "@upstash/lock")
TIMEOUT_S = 300


def run(command: list[str], folder: Path, environment: dict[str, str]) -> bool:
    """Run a command with its output on ours; return True if it succeeded."""
    done = subprocess.run(command, cwd=folder, env={**os.environ, **environment}, timeout=TIMEOUT_S, check=False)
    return done.returncode == 0


def python_clients(folder: Path, environment: dict[str, str]) -> bool:
    """Install the Python clients and run their uses."""
    venv.create(folder / "venv", with_pip=True)
    python = str(folder / "venv" / "bin" / "python")
    script = str(HERE / "uses.py")
    return run([python, "-m", "pip", "install", "-q", *PYTHON_PACKAGES], folder, {}) and run(
        [python, script], folder, environment
    )


def javascript_clients(folder: Path, environment: dict[str, str]) -> bool:
    """Install the JavaScript clients and run their uses."""
    shutil.copy(HERE / "uses.mjs", folder)
    install = ["npm", "install", "--no-audit", "--no-fund", "--silent", "--prefix", str(folder), *NPM_PACKAGES]
    return run(install, folder, {}) and run(["node", "uses.mjs"], folder, environment)


def main() -> int:
    """Run all clients that can be installed here; return the exit code."""
    with tempfile.TemporaryDirectory(prefix="public-sdks-") as temporary:
        folder = Path(temporary)
        valkey = Valkey(folder).start()
        try:
            with serve(valkey.url) as served:
                environment = {"UPSTASH_REDIS_REST_URL": served.url, "UPSTASH_REDIS_REST_TOKEN": TOKEN}
                results = [python_clients(folder, environment)]
                if shutil.which("npm") and shutil.which("node"):
                    results.append(javascript_clients(folder, environment))
                else:
                    sys.stdout.write("skipped: the JavaScript clients need node and npm\n")
        finally:
            valkey.kill()
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
