"""`swissbrain verify` against a dev stack: everything is right, and each of ten faults is named by the right line.

And the deployments that it verifies, of a cluster behind kubectl whose pods do not run: the stack stands for them.
"""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from typer.testing import Result

from infra.commands.deploy import deploy
from infra.commands.verify import verify
from infra.devstack import processes as parts
from infra.devstack.stack import DevStack
from swissbrain import Client
from tests.support.commands import invoke
from tests.support.deploy_site import SECRET, Site, deploy_site, image, marks, needs_kubectl, whole_overlay
from tests.support.faulty_s3 import Exchange, faulty_s3, passed, refused

API = ("SWISSBRAIN_API_URL", "SWISSBRAIN_TOKEN")
REDIS = ("UPSTASH_REDIS_REST_URL", "UPSTASH_REDIS_REST_TOKEN", "REDIS_URL")
S3 = ("S3_ENDPOINT_URL", "S3_BUCKET", "S3_REGION", "S3_ACCESS_KEY", "S3_SECRET_KEY")

NAMES = (
    *("API", "API ready", "clock", "token", "Redis by REST", "Redis by TCP", "object store", "CORS of bucket"),
    *("workers", "run created", "run picked up", "log followed", "run isolated", "file read back", "queue"),
    "cleaned up",
)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with deploy_site(tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
def settings(dev_stack: DevStack, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    """Variables of the stack; none of them is in the environment."""
    for name in (*API, *REDIS, *S3):
        monkeypatch.delenv(name, raising=False)
    return dict(dev_stack.env)


def checked(settings: Mapping[str, str], *names: str, options: tuple[str, ...] = (), **changed: str) -> Result:
    """Verify with these variables of the stack, and with changed ones."""
    app = typer.Typer()
    app.command()(verify)
    variables = {name: settings[name] for name in (*API, *names)} | changed
    return invoke(app, options, env=variables)


def failed_lines(result: Result) -> list[str]:
    """Return the lines of the checks that failed. Each check has one line."""
    lines = result.stdout.splitlines()
    assert all(line[0] in "✓✗–" for line in lines), result.stdout
    failed = [line for line in lines if line.startswith("✗")]
    assert result.exit_code == (1 if failed else 0)
    return failed


def test_a_complete_stack_passes_every_check_and_nothing_is_left(
    settings: Mapping[str, str], dev_stack: DevStack
) -> None:
    with Client(settings["SWISSBRAIN_API_URL"], settings["SWISSBRAIN_TOKEN"]) as client:
        before = {run.run_id for run in client.runs()}
    result = checked(settings, *REDIS, *S3)
    assert failed_lines(result) == []
    assert [line.split("  ")[0] for line in result.stdout.splitlines()] == [
        f"{'–' if name == 'CORS of bucket' else '✓'} {name}" for name in NAMES
    ]
    with Client(settings["SWISSBRAIN_API_URL"], settings["SWISSBRAIN_TOKEN"]) as client:
        assert {run.run_id for run in client.runs()} == before
    assert settings["SWISSBRAIN_TOKEN"] not in result.output


def test_a_bad_token(settings: Mapping[str, str]) -> None:
    (line,) = failed_lines(checked(settings, SWISSBRAIN_TOKEN="wrong"))
    assert line.startswith("✗ token")
    assert "SWISSBRAIN_TOKEN" in line


def test_a_missing_bucket(settings: Mapping[str, str]) -> None:
    (line,) = failed_lines(checked(settings, *S3, S3_BUCKET="missing"))
    assert line.startswith("✗ object store")
    assert "missing" in line


def test_a_bucket_without_rules_for_pages(settings: Mapping[str, str], dev_stack: DevStack) -> None:
    def without_rules(exchange: Exchange) -> None:
        (refused(HTTPStatus.FORBIDDEN, "AccessForbidden") if exchange.method == "OPTIONS" else passed)(exchange)

    with faulty_s3(dev_stack.config.s3) as proxy:
        proxy.always = without_rules
        address = str(proxy.settings.endpoint_url)
        origin = ("--origin", "https://console.example")
        (line,) = failed_lines(checked(settings, *S3, options=origin, S3_ENDPOINT_URL=address))
    assert line.startswith("✗ CORS of bucket")
    assert "https://console.example" in line


def test_a_bucket_that_cannot_be_written(settings: Mapping[str, str], dev_stack: DevStack) -> None:
    def read_only(exchange: Exchange) -> None:
        (refused(HTTPStatus.FORBIDDEN, "AccessDenied") if exchange.method == "PUT" else passed)(exchange)

    with faulty_s3(dev_stack.config.s3) as proxy:
        proxy.always = read_only
        (line,) = failed_lines(checked(settings, *S3, S3_ENDPOINT_URL=str(proxy.settings.endpoint_url)))
    assert line.startswith("✗ object store")
    assert "AccessDenied" in line


def test_a_wrong_password_of_redis(settings: Mapping[str, str], dev_stack: DevStack) -> None:
    url = f"redis://:wrong@127.0.0.1:{dev_stack.config.ports.redis}/0"
    (line,) = failed_lines(checked(settings, *REDIS, REDIS_URL=url))
    assert line.startswith("✗ Redis by TCP")


def test_a_gateway_that_is_down(settings: Mapping[str, str]) -> None:
    (line,) = failed_lines(checked(settings, *REDIS, UPSTASH_REDIS_REST_URL="http://127.0.0.1:1"))
    assert line.startswith("✗ Redis by REST")


def test_a_clock_that_is_wrong(settings: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    skewed = SimpleNamespace(time=lambda: time.time() - 300, monotonic=time.monotonic)
    monkeypatch.setattr("swissbrain.cli.checks.time", skewed)
    (line,) = failed_lines(checked(settings))
    assert line.startswith("✗ clock")
    difference = re.search(r" (\d+) s ahead ", line)
    assert difference
    assert 240 < int(difference[1]) < 360  # the header Date has whole seconds, and a busy machine is late


def test_an_api_of_another_release(settings: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swissbrain.cli.checks.version", lambda _: "9.9.9")
    (line,) = failed_lines(checked(settings))
    assert line.startswith("✗ API ")
    assert "9.9.9" in line


@contextmanager
def stopped_workers(stack: DevStack) -> Iterator[None]:
    """Suspend the workers of the stack."""
    pids = [pid for name, pid in stack.pids.items() if name.startswith("worker-")]
    assert len(pids) == 2
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_workers_that_take_no_runs(settings: Mapping[str, str], dev_stack: DevStack) -> None:
    with stopped_workers(dev_stack):
        (line,) = failed_lines(checked(settings, options=("--timeout", "1")))
    assert line.startswith("✗ run picked up")


def test_a_worker_without_a_sandbox(settings: Mapping[str, str], dev_stack: DevStack) -> None:
    spec = parts.worker(dev_stack.config, parts.base_environment(os.environ), 9, unsafe=True)
    with stopped_workers(dev_stack):
        worker = subprocess.Popen(spec.command, env=dict(spec.environment), stderr=subprocess.DEVNULL)
        try:
            (line,) = failed_lines(checked(settings))
        finally:
            worker.terminate()
            worker.wait(30)
    assert line.startswith("✗ run isolated")
    assert "--unsafe-no-sandbox" in line


def test_bad_options_are_refused(settings: Mapping[str, str]) -> None:
    for options, named in ((("--origin", "notaurl"), "https://console.example.org"), (("--timeout", "soon"), "5m")):
        result = checked(settings, options=options)
        assert (result.exit_code, result.stdout) == (2, "")
        assert named in " ".join(result.stderr.replace("│", " ").split())


@needs_kubectl
def test_everything_in_the_cluster_is_checked_applied_waited_for_and_verified(
    site: Site, settings: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(site.folder)
    images = {name: image(name, "1") for name in ("worker", "api", "tools", "valkey")}
    given = "".join(f'{name} = "{value}"\n' for name, value in images.items())
    overlay = whole_overlay(site.folder)
    (site.folder / "deploy.toml").write_text(f'context = "test"\noverlay = "{overlay.name}"\n[images]\n{given}')
    app = typer.Typer()
    app.command()(deploy)
    variables = {name: settings[name] for name in (*API, *REDIS, *S3)}
    result = invoke(app, env=variables)
    assert result.exit_code == 0, result.output
    assert set(marks(result).values()) <= {"✓", "–"}
    names = ("manifests", "cluster", "rights", "namespaces", "secrets", "release", "clock", "Redis by TCP")
    assert all(marks(result)[name] == "✓" for name in (*names, "log followed", "cleaned up"))
    assert result.stdout.splitlines()[-1].startswith("deployed: release ")
    assert site.images() == "111"
    stateful = site.server.objects("statefulsets", "agents")[0]
    assert stateful["spec"]["template"]["spec"]["containers"][0]["image"] == images["valkey"]
    secrets = (SECRET, settings["SWISSBRAIN_TOKEN"], settings["S3_SECRET_KEY"])
    assert not any(secret in result.output for secret in secrets)
    assert site.server.objects("leases") == []

    shown = invoke(app, ["--status"])
    assert f"agent-api: {images['api']}" in shown.stdout
    assert re.search(r"^last +deploy by .*, done$", shown.stdout, re.MULTILINE)


@needs_kubectl
def test_a_deployment_whose_verification_fails_is_rolled_back_and_both_are_said(
    site: Site, settings: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = site.install("1")
    monkeypatch.setattr("infra.commands.deploy.version", lambda _: "9.9.9")
    monkeypatch.setattr("swissbrain.cli.checks.version", lambda _: "9.9.9")
    monkeypatch.setattr("infra.commands.deploying.APPEAR_S", 0.1)
    app = typer.Typer()
    app.command()(deploy)
    options = ["--context=test", f"--overlay={site.overlay('2')}", "--rollback-on-failure"]
    result = invoke(app, options, env={name: settings[name] for name in API})
    assert result.exit_code == 1
    assert "✗ API " in result.stdout
    assert "✓ cleaned up" in result.stdout
    assert f"the deployment failed and was rolled back; {first} runs" in result.stderr
    assert site.images() == "111"
