"""Deployments and rollbacks with the real kubectl, against a cluster that may refuse, fail, and never become ready."""

import pytest

from infra.deploy.errors import DeployFailed
from infra.deploy.record import NAME, Record
from infra.deploy.sources import rendered
from tests.deploy.conftest import Site, pytestmark  # noqa: F401
from tests.support.kube import Cut, Fail, PodFault
from tests.support.kube.errors import Obj


def changes(site: Site) -> list[tuple[str, str]]:
    """Return the changes of Deployments that the server was asked for, in their order."""
    return [
        (verb, resource)
        for verb, resource, _ in site.server.api.requests
        if verb in {"create", "patch", "update"} and resource == "deployments"
    ]


def of(name: str, pod: Obj) -> bool:
    return bool(pod["metadata"]["labels"].get("app.kubernetes.io/name") == name)


def test_workers_come_before_the_api_and_each_is_waited_for(site: Site) -> None:
    site.deploy("1")
    steps = [line for line in site.commands() if not line.startswith("# /")]
    assert [line.partition("selector=")[2] or line for line in steps] == [
        "app.kubernetes.io/name notin (agent-worker,agent-api)'",
        "# wait for the rollout of deployment/agent-egress",
        "app.kubernetes.io/name=agent-worker",
        "# wait for the rollout of deployment/agent-worker",
        "app.kubernetes.io/name=agent-api",
        "# wait for the rollout of deployment/agent-api",
    ]
    assert [site.image(name) for name in ("agent-worker", "agent-api", "agent-egress")] == ["1", "1", "1"]


def test_rollback_returns_every_deployment_that_the_last_deployment_changed_and_a_second_one_changes_nothing(
    site: Site,
) -> None:
    first, second = site.deploy("1"), site.deploy("2")
    assert first.replica_sets != second.replica_sets
    deployer = site.deployer("2")
    target = deployer.way_back()
    site.said.clear()
    deployer.roll_back(target, down=True)
    deployer.end_rollback(target)
    assert [line.split()[-2] for line in site.commands() if line.startswith("$")] == [
        "deployment/agent-api",
        "deployment/agent-egress",
        "deployment/agent-worker",
    ]
    assert [site.image(name) for name in ("agent-worker", "agent-api", "agent-egress")] == ["1", "1", "1"]

    again = site.deployer("2")
    assert again.way_back() == target
    again.roll_back(again.way_back(), down=True)
    again.end_rollback(target)
    assert site.commands() == []
    assert site.image("agent-api") == "1"

    site.deploy("2")
    assert site.image("agent-api") == "2"
    assert site.deployer().way_back().replica_sets == first.replica_sets


def test_a_rollback_that_failed_half_way_is_continued_to_the_same_destination(site: Site) -> None:
    first = site.deploy("1")
    site.deploy("2")
    deployer = site.deployer("2")
    site.server.faults.add(Fail(403), "patch", "update", resource="deployments", times=None)
    deny = site.server.faults.requests
    with pytest.raises(DeployFailed, match="injected"):
        deployer.roll_back(deployer.way_back(), down=True)
    deny.clear()
    again = site.deployer("2")
    target = again.way_back()
    assert target.replica_sets == first.replica_sets
    again.roll_back(target, down=True)
    assert [site.image(name) for name in ("agent-worker", "agent-api")] == ["1", "1"]


def test_a_deployment_that_failed_is_left_for_what_was_verified_last(site: Site) -> None:
    site.deploy("1")
    first = Record(site.cluster()).read().running
    site.server.faults.add_pod(
        PodFault(waiting="ImagePullBackOff", message="manifest unknown", match=lambda pod: of("agent-api", pod))
    )
    with pytest.raises(DeployFailed, match=r"agent-api does not start: pod agent-api-.*ImagePullBackOff: manifest unknown"):
        site.deploy("2")
    assert site.image("agent-worker") == "2"
    site.server.faults.heal()
    deployer = site.deployer("2")
    assert deployer.way_back() == first
    deployer.roll_back(deployer.way_back(), down=True)
    assert [site.image(name) for name in ("agent-worker", "agent-api")] == ["1", "1"]


def test_what_ran_without_a_record_is_the_way_back(site: Site) -> None:
    site.deploy("1")
    site.server.call(lambda: site.server.store.remove("configmaps", ("agents", NAME)))
    site.deploy("2")
    target = site.deployer().way_back()
    assert (target.release, target.images["agent-api"][-1]) == ("unknown", "1")


def test_a_program_that_crashes_fails_the_deployment_with_its_exit_code(site: Site) -> None:
    site.server.faults.add_pod(PodFault(ends=("Error", 2), match=lambda pod: of("agent-worker", pod)))
    with pytest.raises(DeployFailed, match=r"agent-worker does not start: .*CrashLoopBackOff: exit code 2"):
        site.deploy("1")
    assert [one["metadata"]["name"] for one in site.server.objects("deployments")] == ["agent-egress", "agent-worker"]


def test_a_rollout_that_never_ends_fails_at_its_deadline(site: Site) -> None:
    site.server.faults.add_pod(PodFault(unschedulable="0/3 nodes are available", match=lambda pod: of("agent-egress", pod)))
    deployer = site.deployer("1")
    deployer._timeout_s = 1
    with (
        rendered(site.describe("1"), site.cluster()) as source,
        pytest.raises(DeployFailed, match="agent-egress is not ready in time: 0 of 2 pods"),
    ):
        deployer.deploy(source, down=False)


def test_an_api_server_that_fails_now_and_then_does_not_fail_a_deployment(site: Site) -> None:
    site.server.faults.add(Fail(500), "patch", "create", resource="deployments", times=1)
    site.server.faults.add(Fail(409), "patch", "create", resource="services", times=1)
    site.server.faults.add(Cut("before"), "list", resource="pods", times=1)
    site.server.faults.add(Cut("after"), "create", resource="configmaps", times=1)
    site.deploy("1")
    assert site.image("agent-api") == "1"


def test_a_deployment_to_an_older_release_changes_the_api_first(site: Site) -> None:
    site.deploy("2")
    site.commands()
    site.deploy("1", down=True)
    chosen = [line.partition("name=")[2] for line in site.commands() if "selector=app.kubernetes.io/name=" in line]
    assert chosen == ["agent-api", "agent-worker"]


def test_a_dry_run_shows_the_steps_and_changes_nothing(site: Site) -> None:
    before = site.server.call(lambda: site.server.store.version)
    deployer = site.deployer("1", dry_run=True)
    with rendered(site.describe("1"), site.cluster(dry_run=True)) as source:
        deployer.deploy(source, down=False)
    assert len([line for line in site.said if line.startswith("$")]) == 3
    assert site.server.call(lambda: site.server.store.version) == before


def test_two_records_do_not_overwrite_each_other(site: Site) -> None:
    one, other = site.deployer("1"), site.deployer("2")
    with rendered(site.describe("1"), site.cluster()) as source:
        snapshot = one.deploy(source, down=False)
        other._begin("deploy", other.record.read())
    with pytest.raises(DeployFailed, match="was changed by another process"):
        one.succeed(snapshot)
