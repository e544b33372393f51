"""Cold start of the API on AWS Lambda: processor time of import and first request, from the unpacked package.

Beside it the same function that also imports pydantic, all of boto3 and the client of Kubernetes, as an API does that
talks to them by their SDKs. Every sample is a fresh process; the two kinds take turns, so that other load on the
machine meets both alike. The first request is `GET /ready`, which asks Redis.
"""

import json
import platform
import re
import statistics
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

from bench.lab import Lab, table
from infra.devstack import processes
from scripts import package_edge

SAMPLES = 15
TIMEOUT_S = 120
LARGEST = 12
"""Modules of the table of imports."""
ARCHITECTURE = "arm64" if platform.machine() == "aarch64" else "x86_64"
LIBRARIES = "import starlette.applications, mangum, upstash_redis.asyncio, msgspec\n"
"""What this API is built on, without a line of its own."""
HEAVY = f"""
import sys
sys.path.append({sysconfig.get_path("purelib")!r})
sys.modules["click"] = None  # else httpx would import its own command
import pydantic, boto3, kubernetes
boto3.client("s3", region_name="eu-central-2"), kubernetes.client.BatchV1Api(), kubernetes.client.V1Job()
"""
PROGRAM = """
import json, os, time
begin, cpu = time.perf_counter(), time.process_time()
exec(os.environ["BENCH_BEFORE"])
libraries = time.process_time()
from edge_api.handler import handler
imported = time.process_time()
event = {
    "version": "2.0", "rawPath": "/ready", "rawQueryString": "", "headers": {"host": "api.example"},
    "isBase64Encoded": False,
    "requestContext": {"domainName": "api.example", "stage": "$default",
                       "http": {"method": "GET", "path": "/ready", "sourceIp": "127.0.0.1", "protocol": "HTTP/1.1"}},
}
class Context:
    aws_request_id = "bench"
    def get_remaining_time_in_millis(self):
        return 20_000
answer = handler(event, Context())
ended, wall = time.process_time(), time.perf_counter()
assert answer["statusCode"] == 200, answer
import sys
seconds = [libraries - cpu, imported - cpu, ended - cpu, wall - begin]
print(json.dumps([*(1000 * each for each in seconds), len(sys.modules)]))
"""
_IMPORT = re.compile(r"import time: +(\d+) \| +(\d+) \| *([\w.]+)")


async def run(lab: Lab) -> None:
    """Measure and print, on a stack without workers."""
    with unpacked() as task:
        variables = environment(task, processes.api(lab.stack.config, {}).environment)
        kinds = {"this API": LIBRARIES, "with pydantic, boto3 and kubernetes": LIBRARIES + HEAVY}
        samples: dict[str, list[list[float]]] = {name: [] for name in kinds}
        for _ in range(SAMPLES):
            for name, before in kinds.items():
                samples[name].append(sample(variables, before))
        largest = largest_imports(variables)
    rows = [[name, *_summary(measured)] for name, measured in samples.items()]
    columns = ["CPU ms", "libraries alone", "whole import", "with a request", "its wall ms", "modules"]
    table(f"Cold start from the unpacked package, median (least) of {SAMPLES} processes", columns, rows)
    title = "Largest imports of this API, each without the modules that it imports"
    table(title, ["module", "ms"], [[name, f"{own_us / 1000:.1f}"] for name, own_us in largest])


@contextmanager
def unpacked() -> Iterator[Path]:
    """Build the package for this machine and unpack it, as Lambda does."""
    with TemporaryDirectory() as folder:
        task = Path(folder) / "task"
        with ZipFile(package_edge.build(ARCHITECTURE, Path(folder))) as archive:
            archive.extractall(task)
        yield task


def environment(task: Path, api: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a function with the settings of an API."""
    return {
        **api,
        "EDGE_LOG_MODE": "longpoll",
        "SSL_CERT_DIR": str(task / package_edge.CERTIFICATES),
        "PYTHONPATH": str(task),
    }


def sample(variables: Mapping[str, str], before: str) -> list[float]:
    """Start a function; return CPU ms of its libraries, with its own code, and with a request; wall ms; modules.

    `before` is code that runs before the function is imported. Raises RuntimeError if the function fails.
    """
    ended = _python(["-c", PROGRAM], {**variables, "BENCH_BEFORE": before})
    measured: list[float] = json.loads(ended.stdout.splitlines()[-1])
    return measured


def largest_imports(variables: Mapping[str, str]) -> list[tuple[str, int]]:
    """Return the modules with the largest time of their own, and it in µs: the least of five starts."""
    least: dict[str, int] = {}
    for _ in range(5):
        ended = _python(["-X", "importtime", "-c", "import edge_api.handler"], variables)
        for own_us, _, name in _IMPORT.findall(ended.stderr):
            least[name] = min(int(own_us), least.get(name, int(own_us)))
    return sorted(least.items(), key=lambda item: -item[1])[:LARGEST]


def _python(arguments: list[str], variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    # The interpreter behind the virtual environment, and without `site`: only the package and PYTHONPATH are searched.
    command = [str(Path(sys.executable).resolve()), "-S", *arguments]
    ended = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if ended.returncode:
        raise RuntimeError(f"the function failed: {ended.stderr[-2000:]}")
    return ended


def _summary(measured: list[list[float]]) -> list[str]:
    *times, modules = zip(*measured, strict=True)
    return [*(f"{statistics.median(values):.0f} ({min(values):.0f})" for values in times), f"{modules[0]:.0f}"]
