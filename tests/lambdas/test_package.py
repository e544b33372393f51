"""The package for AWS Lambda: its content, and both functions run from the zip without a virtual environment."""

import os
import platform
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import certifi
import pytest
import pytest_asyncio
from msgspec import json

from scripts import package_edge
from scripts.package_edge import CERTIFICATES, PLATFORMS, PackageError
from tests.edge.stack import PLAN, TOKENS, SimulatedWorker
from tests.lambdas.conftest import ROOT, Start
from tests.lambdas.environment import Environment
from tests.lambdas.events import function_url_event, http_api_event, load_balancer_event, rest_event

ARCHITECTURE = "arm64" if platform.machine() == "aarch64" else "x86_64"
# The interpreter behind the virtual environment, so that what is installed there cannot fill gaps of the package.
PYTHON = str(Path(sys.executable).resolve())
RUNTIME = ("awslambdaric", "simplejson", "snapshot-restore-py")
"""Distributions that Lambda's own runtime brings."""
SERVERS_ONLY = (
    "aiohttp",
    "httptools",
    "redis",
    "hiredis",
    "rich",
    "swissbrain",
    "typer",
    "uvicorn",
    "uvloop",
    "worker",
)
HEADERS = {"authorization": f"Bearer {TOKENS['ada']}", "content-type": "application/json"}
NOT_AT_THE_START = (
    *SERVERS_ONLY,
    "boto3",
    "botocore",
    "cronsim",
    "jwt",
    "kubernetes",
    "opentelemetry",
    "prometheus_client",
    "pydantic",
    "qstash",
    "s3transfer",
    "tarfile",
    "urllib3",
    "zoneinfo",
    "edge_api.http.event_schema",
    "edge_api.http.openapi",
    "infra.address_guard",
    "infra.checked_http",
    "infra.cron",
    "infra.webhook_http",
    "infra.workspace.run_files",
)
"""What a cold start must not import: only some requests need it, or none at all."""
START = """
import asyncio, json, os, sys
import edge_api.handler, edge_api.lambda_stream.__main__
from infra.contract.files import FileEntry
from infra.settings import Env, S3Settings
from infra.workspace import Workspaces

answer = edge_api.handler.handler(json.loads(os.environ["EVENT"]), None)
entry = FileEntry(key="files/1/x", size_bytes=1, modified_ms=0)
link = asyncio.run(Workspaces(S3Settings.from_env(Env(os.environ))).presign_get("ada", "run_1", "x", entry, 60))
unwanted = [name for name in os.environ["UNWANTED"].split() if name in sys.modules]
print(json.dumps([answer["statusCode"], "X-Amz-Signature=" in link, unwanted]))
"""
IMPORTS = """
import sys
import edge_api.handler, edge_api.lambda_stream.__main__, boto3.session, botocore.auth, infra.workspace.connections
print(*(file for module in [*sys.modules.values()] if (file := getattr(module, "__file__", None))), sep="\\n")
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the package for this machine."""
    return package_edge.build(ARCHITECTURE, tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="module")
def task(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack the package as Lambda does, with its permissions."""
    folder = tmp_path_factory.mktemp("task")
    with ZipFile(package) as archive:
        archive.extractall(folder)
        for entry in archive.infolist():
            (folder / entry.filename).chmod(entry.external_attr >> 16 & 0o777)
    return folder


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Link Lambda's own runtime into a folder."""
    folder = tmp_path_factory.mktemp("runtime")
    for name in RUNTIME:
        package = distribution(name)
        for top in {Path(str(file)).parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
            (folder / top).symlink_to(str(package.locate_file(top)))
    return folder


@pytest.fixture(scope="module")
def isolated(task: Path, runtime: Path) -> dict[str, str]:
    """The variables of a function that has the package and Lambda's runtime alone."""
    paths = os.pathsep.join([str(task), str(runtime)])
    return {"PYTHONPATH": paths, "PYTHONNOUSERSITE": "1", "LAMBDA_TASK_ROOT": str(task)}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def api(start: Start, isolated: dict[str, str]) -> AsyncIterator[Environment]:
    # Lambda starts its runtime in the folder of the package.
    command = ["sh", "-c", f'cd "$LAMBDA_TASK_ROOT" && exec {PYTHON} -m awslambdaric edge_api.handler.handler']
    async with start(command, 60, EDGE_LOG_MODE="longpoll", EDGE_BASE_PATH="/v1", **isolated) as function:
        yield function


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stream(start: Start, isolated: dict[str, str], task: Path) -> AsyncIterator[Environment]:
    command = [str(task / "edge_api" / "stream-wrapper"), PYTHON, "/var/runtime/bootstrap.py"]
    async with start(command, 60, EDGE_LOG_MODE="stream", EDGE_BASE_PATH="/v1", **isolated) as function:
        yield function


async def ask(function: Environment, event: object) -> tuple[int, Any]:
    """Return the status and the decoded body of a complete response."""
    answer = await (await function.invoke(event)).head()
    return answer["statusCode"], json.decode(answer["body"])


def names(package: Path) -> Iterator[str]:
    with ZipFile(package) as archive:
        yield from archive.namelist()


def test_the_package_is_small_compiled_and_without_the_other_servers(package: Path) -> None:
    content = set(names(package))
    assert package.stat().st_size <= 5_000_000
    assert [name for name in content if name.endswith(".py") or name.partition("/")[0] in SERVERS_ONLY] == []
    assert not any(name.startswith(("infra/redis_tcp", "infra/gateway/", "infra/devstack/")) for name in content)
    services = {name.split("/")[2] for name in content if name.startswith("botocore/data/") and name.count("/") > 2}
    assert services == {"s3"}
    scripts = ROOT / "infra" / "contract" / "redis_store" / "scripts"
    assert {path.relative_to(ROOT).as_posix() for path in scripts.glob("*.lua")} < content
    described = json.decode((package.parent / "package.json").read_bytes())
    version = ".".join(platform.python_version_tuple()[:2])
    assert described == {"runtime": f"python{version}", "architecture": ARCHITECTURE}


def test_everything_that_the_functions_import_is_in_the_package(task: Path) -> None:
    # -S: without any site-packages. Lambda's folder is on the path as the current one is here.
    command = [PYTHON, "-S", "-c", IMPORTS]
    ended = subprocess.run(command, cwd=task, capture_output=True, text=True, timeout=60, check=False, env={})
    assert (ended.returncode, ended.stderr) == (0, "")
    assert [path for path in ended.stdout.split() if "site-packages" in path or str(ROOT) in path] == []


def test_a_cold_start_imports_nothing_that_only_some_requests_need(task: Path) -> None:
    variables = {
        "EVENT": json.encode(http_api_event("GET", "/health", {})).decode(),
        "UNWANTED": " ".join(NOT_AT_THE_START),
        "S3_ACCESS_KEY": "key",
        "S3_SECRET_KEY": "secret",
        "SWISSBRAIN_API_KEYS": json.encode([{"user": "ada", "scopes": ["runs:read"], "sha256": "0" * 64}]).decode(),
        "UPSTASH_REDIS_REST_URL": "https://redis.example",
        "UPSTASH_REDIS_REST_TOKEN": "token",
        "QSTASH_TOKEN": "token",
        "QSTASH_CURRENT_SIGNING_KEY": "key",
        "QSTASH_NEXT_SIGNING_KEY": "key",
        "EDGE_PUBLIC_URL": "https://api.example",
        "EDGE_WEBHOOK_KEY": "key-of-the-test-" + "k" * 20,
        "SSL_CERT_DIR": str(task / CERTIFICATES),
    }
    command = [PYTHON, "-S", "-c", START]
    ended = subprocess.run(command, cwd=task, capture_output=True, text=True, timeout=60, check=False, env=variables)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.decode(ended.stdout) == [200, True, []]


def test_openssl_finds_each_root_certificate_of_the_package(task: Path) -> None:
    folder = task / CERTIFICATES
    files = sorted(str(path) for path in folder.iterdir())
    assert len(files) == Path(certifi.where()).read_text().count("-----BEGIN CERTIFICATE-----")
    # A root that is looked up by its name is the only one that OpenSSL trusts here.
    command = ["openssl", "verify", "-no-CAfile", "-no-CAstore", "-no_check_time", "-CApath", str(folder), *files]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout.count(": OK\n")) == (0, len(files)), ended.stderr


async def test_the_function_serves_requests_of_every_service(api: Environment, worker: SimulatedWorker) -> None:
    body = json.encode({**PLAN, "start": False})
    status, run = await ask(api, rest_event("POST", "/v1/agent/runs", HEADERS, body))
    assert status == 201
    path = f"/agent/runs/{run['run_id']}"
    for event in (
        rest_event("GET", path, HEADERS),
        http_api_event("GET", path, HEADERS),
        http_api_event("GET", f"/v1{path}", HEADERS, "prod"),
        function_url_event("GET", f"/v1{path}", HEADERS),
        load_balancer_event("GET", path, HEADERS),
    ):
        status, found = await ask(api, event)
        assert (status, found["run_id"], found["status"]) == (200, run["run_id"], "created")
    # boto3 with the cut data of botocore signs the upload; every Lua script before it came from the zip.
    announced = json.encode({"size_bytes": 3, "sha256": "0" * 64})
    status, file = await ask(api, rest_event("PUT", f"{path}/files/a%20b.txt", HEADERS, announced))
    assert (status, file.get("path")) == (200, "a b.txt"), file
    assert "X-Amz-Signature=" in file["upload"]["url"]
    for path_of in ("%FF", "a%FFb"):
        status, problem = await ask(api, rest_event("PUT", f"{path}/files/{path_of}", HEADERS, announced))
        assert (status, problem["detail"]) == (422, "the path is not UTF-8")
    assert api.starts == 1


async def test_the_streaming_function_sends_a_log_while_it_is_written(
    api: Environment, stream: Environment, worker: SimulatedWorker
) -> None:
    _, run = await ask(api, rest_event("POST", "/agent/runs", HEADERS, json.encode(PLAN)))
    call = await stream.invoke(rest_event("GET", f"/agent/logs/{run['run_id']}/stream", HEADERS))
    head = await call.head()
    assert (head["statusCode"], head["headers"]["content-type"]) == (200, "text/event-stream; charset=utf-8")
    lease = await worker.claim()
    await call.until(lambda: b"id: 1\n" in call.body, "the first event arrives while the run still runs")
    await worker.finish(lease)
    _, body = await call.complete()
    assert (call.outcome, stream.starts) == ("answered", 1)
    assert [body.count(part) for part in (b"id: 1\n", b"event: end\n")] == [1, 1]


def test_a_dependency_that_cannot_be_fetched_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    other = next(name for name in PLATFORMS if name != ARCHITECTURE)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(sys, "argv", ["package_edge", "--architecture", other])
    assert package_edge.main() == 1
    shown = capfd.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert shown.err.startswith("pip cannot fetch msgspec ")


def test_a_package_that_is_too_large_does_not_replace_a_good_one(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = package.read_bytes()
    monkeypatch.setattr(package_edge, "MAX_BYTES", 1000)
    monkeypatch.setattr(package_edge, "dependencies", list)
    with pytest.raises(PackageError, match=r"at most 1,000"):
        package_edge.build(ARCHITECTURE, package.parent)
    assert package.read_bytes() == before
