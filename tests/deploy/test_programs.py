"""Programs that a deployment drives, where they misbehave: what they say, that they hang, whom they leave behind."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.deploy import programs
from infra.deploy.cluster import KubectlCluster
from infra.deploy.errors import DeployFailed
from infra.deploy.lock import held
from infra.deploy.manifests import Manifests
from infra.deploy.programs import ProgramFailed, Programs
from infra.deploy.record import Record


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def kubectl(folder: Path, script: str, say: Callable[[str], None] = lambda _line: None) -> KubectlCluster:
    """Return a cluster behind a script in the place of kubectl."""
    file = folder / "kubectl"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return KubectlCluster(Programs(say), "test", "agents")


def entered(cluster: KubectlCluster) -> None:
    with held(cluster):
        pass


@pytest.mark.parametrize(
    "output", ["<html>Sign in</html>", "[]", "5", "{}", '{"items": 5}', '{"items": [5]}', '{"kind": "List"}', "\\377"]
)
def test_an_answer_that_is_none_of_kubernetes_is_one_line(folder: Path, output: str) -> None:
    cluster = kubectl(folder, f"printf '{output}'")
    asks: list[Callable[[], object]] = [
        lambda: cluster.all("pods"),
        lambda: cluster.find("lease", "x"),
        lambda: cluster.missing_rights([("get", "", "pods", "")]),
        lambda: entered(cluster),
        Record(cluster).read,
    ]
    for ask in asks:
        with pytest.raises(DeployFailed, match="not one of Kubernetes") as caught:
            ask()
        assert "\n" not in str(caught.value)


def test_a_program_that_hangs_is_ended_whatever_it_has_started(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that fetches a token holds the standard error of kubectl."""
    monkeypatch.setattr(programs, "READ_TIMEOUT_S", 2.0)
    monkeypatch.setattr(programs, "CHANGE_TIMEOUT_S", 2.0)
    said: list[str] = []
    cluster = kubectl(folder, f"echo begun; sleep 60 & echo $! > {folder}/child; wait", said.append)
    asks: list[Callable[[], object]] = [cluster.version, lambda: cluster.programs.change("kubectl", "apply", tries=1)]
    for ask in asks:
        began_s = time.monotonic()
        with pytest.raises(ProgramFailed, match="kubectl did not end within"):
            ask()
        os.kill(int((folder / "child").read_text()), signal.SIGKILL)
        assert time.monotonic() - began_s < 50
    assert said == ["$ kubectl apply", "  begun"]


def test_what_a_failing_program_says_need_not_be_text(folder: Path) -> None:
    cluster = kubectl(folder, "printf 'error: \\377\\376 failed' >&2; exit 1")
    with pytest.raises(ProgramFailed, match=r"kubectl failed: error: .* failed"):
        cluster.version()
    with pytest.raises(ProgramFailed, match=r"kubectl failed: error: .* failed"):
        cluster.programs.change("kubectl", "apply", tries=1)


def test_each_value_that_helm_refuses_is_named(folder: Path) -> None:
    cluster = kubectl(folder, "printf 'Error: values of the chart:\n- at /worker: no slot\n- at /s3: no\n' >&2; exit 1")
    with pytest.raises(ProgramFailed, match="Error: values of the chart:; - at /worker: no slot; - at /s3: no"):
        cluster.version()


@pytest.mark.parametrize(
    "text",
    [
        "{kind: Deployment, metadata: {name: agent-worker}}",
        "{kind: Deployment, metadata: {name: agent-worker}, spec: {template: {spec: {}}}}",
        "{kind: Job, metadata: {name: agent-worker}, spec: {template: {spec: {containers: [5]}}}}",
    ],
)
def test_manifests_without_containers_are_named(text: str) -> None:
    with pytest.raises(DeployFailed, match="agent-worker without containers"):
        Manifests(text)
