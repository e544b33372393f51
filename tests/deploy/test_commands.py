"""`swissbrain deploy` and `swissbrain rollback` as people call them: against a cluster behind kubectl.

Deployments that are verified: tests/tour/test_verify.py, which has a stack.
"""

import os
import signal
import subprocess
import sys
from typing import Any

import pytest
import typer
from typer.testing import Result

from infra.commands.deploy import deploy
from infra.commands.rollback import rollback
from infra.deploy import lock
from infra.deploy.cluster import KubectlCluster
from swissbrain.cli.errors import CommandError
from swissbrain.errors import ClientError
from tests.docs.pages import ROOT
from tests.support.commands import invoke
from tests.support.deploy_site import REGISTRY, SECRET, Site, marks, needs_kubectl
from tests.support.kube import PodFault
from tests.support.kube.access import Rule
from tests.support.kube.worker_access import write_kubeconfig
from tests.support.waiting import wait_until

pytestmark = needs_kubectl

STORES = ("UPSTASH_REDIS_REST_URL", "REDIS_URL", "S3_ACCESS_KEY")
API = ("SWISSBRAIN_API_URL", "SWISSBRAIN_TOKEN")


@pytest.fixture(autouse=True)
def elsewhere(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder without a dev stack and without settings."""
    monkeypatch.chdir(site.folder)
    for name in (*API, *STORES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("infra.commands.deploying.APPEAR_S", 0.1)


def called(site: Site, digit: str, *options: str, command: object = deploy) -> Result:
    """Call a command for the images of a digit."""
    app = typer.Typer()
    app.command()(command)  # type: ignore[type-var]
    return invoke(app, ["--context", "test", "--overlay", str(site.overlay(digit)), *options])


def test_all_that_is_missing_is_said_at_once_and_nothing_is_changed(site: Site) -> None:
    def damage() -> None:
        store = site.server.store
        store.update("secrets", ("agents", "agent-worker"), lambda new: new["data"].pop("REDIS_URL"))
        kept = dict.fromkeys(("EDGE_WEBHOOK_KEY", "S3_ACCESS_KEY"), "Q0hBTkdFLU1F")  # the first one is optional
        store.update("secrets", ("agents", "agent-api"), lambda new: new["data"].update(kept))
        store.remove("secrets", ("agents", "agent-egress"))

    site.server.call(damage)
    site.server.access.add("", "ada", Rule(["get", "list"], ["*"]), Rule(["*"], ["deployments", "services"]))
    overlay = site.overlay("1") / "kustomization.yaml"
    overlay.write_text(overlay.read_text().replace(f"{REGISTRY}/tools@sha256:{'1' * 64}", f"{REGISTRY}/tools:latest"))
    before = site.server.call(lambda: site.server.store.version)
    result = called(site, "1")
    assert result.exit_code == 1
    assert [name for name, mark in marks(result).items() if mark == "✗"] == ["manifests", "rights", "secrets"]
    lines = {line[2:18].strip(): line for line in result.stdout.splitlines()}
    assert f"KUBERNETES_IMAGE has the image '{REGISTRY}/tools:latest'" in lines["manifests"]
    assert "create configmaps in agents" in lines["rights"]
    expected = ["agent-egress is missing", "agent-worker has no REDIS_URL"]
    expected += [f"agent-api has CHANGE-ME as {key}" for key in ("EDGE_WEBHOOK_KEY", "S3_ACCESS_KEY")]
    assert [text for text in expected if text not in lines["secrets"]] == [], lines["secrets"]
    assert result.stderr == "swissbrain: nothing was changed; failed: manifests, rights, secrets\n"
    assert site.server.call(lambda: site.server.store.version) == before
    assert SECRET not in result.output


def test_a_dry_run_prints_the_steps_even_without_a_cluster(site: Site) -> None:
    write_kubeconfig(site.folder / "kubeconfig", "http://127.0.0.1:1")
    result = called(site, "1", "--dry-run")
    assert result.exit_code == 1
    assert marks(result)["cluster"] == "✗"
    assert "kubectl failed: The connection to the server 127.0.0.1:1 was refused" in result.stdout
    overlay = site.overlay("1")
    step = f"$ kubectl kustomize {overlay} | kubectl --context=test apply --filename=- --selector="
    step += "app.kubernetes.io/name="
    assert [line.removeprefix(step) for line in result.stdout.splitlines() if line.startswith(step)] == [
        "agent-worker",
        "agent-api",
    ]


def test_a_killed_deployment_is_finished_by_the_next_one_which_does_not_pretend_to_be_verified_without_an_api(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = site.install("1")
    slow = PodFault(start_s=3600, match=lambda pod: pod["spec"]["containers"][0]["image"].endswith("2"))
    site.server.faults.add_pod(slow)
    command = [sys.executable, "-m", "swissbrain", "deploy", "--context=test", f"--overlay={site.overlay('2')}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, process_group=0) as child:
        try:
            wait_until(lambda: site.images() == "112", "the first stage is applied")
        finally:
            # With its kubectl, which may be about to renew the Lease: then the next deployment would be refused.
            os.killpg(child.pid, signal.SIGKILL)
    site.server.advance(3600)
    site.server.faults.heal()
    wait = lock._wait_for_silence

    def wait_a_second(cluster: KubectlCluster, seen: dict[str, Any]) -> None:
        """Wait for less than the Lease of the second deployment must last on a busy machine."""
        with monkeypatch.context() as short:
            short.setattr(lock, "DURATION_S", 1)
            short.setattr(lock, "LOOK_S", 0.3)
            wait(cluster, seen)

    monkeypatch.setattr(lock, "_wait_for_silence", wait_a_second)
    result = called(site, "2")
    assert result.exit_code == 1
    assert "applied, but not verified: set SWISSBRAIN_API_URL" in result.stderr
    assert site.images() == "222"
    assert site.state().running == first


def test_a_rollback_without_a_record_says_so(site: Site) -> None:
    result = called(site, "1", command=rollback)
    assert (result.exit_code, result.stderr) == (
        1,
        "swissbrain: there is no record of a deployment; 'swissbrain deploy' makes one\n",
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "there is no deploy.toml"),
        (["--context", "a", "--overlay", "missing"], "'overlay' leads to 'missing', which does not exist"),
        (["--context", "a", "--overlay", ".", "--image", "api"], "--image needs NAME=VALUE, not 'api'"),
        (["--context", "a", "--overlay", ".", "--image", "api=r.io/a:1"], "must be given by its digest"),
    ],
)
def test_bad_input_is_one_line(options: list[str], message: str) -> None:
    app = typer.Typer()
    app.command()(deploy)
    result = invoke(app, options)
    assert isinstance(result.exception, CommandError)
    assert message in str(result.exception)


def test_a_given_access_that_is_wrong_is_not_taken_for_none(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWISSBRAIN_API_URL", "example.org")
    monkeypatch.setenv("SWISSBRAIN_TOKEN", "token")
    result = called(site, "1")
    assert isinstance(result.exception, ClientError)
    assert "SWISSBRAIN_API_URL must begin with" in str(result.exception)


@pytest.mark.parametrize("script", ["deploy.sh", "verify.sh"])
def test_the_scripts_pass_their_arguments_on(script: str) -> None:
    command = [str(ROOT / "deploy" / script), "--no-such-option"]
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
    assert done.returncode == 2
    expected = "No such option" if (ROOT / ".venv").exists() else "run 'make setup' first"
    assert expected in done.stderr
