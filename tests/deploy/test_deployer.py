"""Deployments and rollbacks with the real kubectl, against a cluster that may refuse, fail, and never become ready."""

import pytest

from infra.deploy.errors import DeployFailed
from infra.deploy.record import State
from infra.deploy.sources import rendered
from tests.support.deploy_site import Site, needs_kubectl
from tests.support.kube import Cut, Fail, PodFault
from tests.support.kube.errors import Obj

pytestmark = needs_kubectl


def of(name: str, pod: Obj) -> bool:
    return bool(pod["metadata"]["labels"].get("app.kubernetes.io/name") == name)


def test_rollback_returns_what_the_last_deployment_changed_and_a_second_one_nothing_more(site: Site) -> None:
    first, second = site.install("1"), site.install("2")
    assert first.replica_sets.keys() == second.replica_sets.keys()
    assert not set(first.replica_sets.values()) & set(second.replica_sets.values())
    deployer = site.deployer("2")
    site.server.faults.add(Cut("after"), "patch", resource="deployments", times=1)
    deployer.roll_back(deployer.way_back(), down=True)
    deployer.end_rollback(first)
    undone = [line.split()[-2] for line in site.commands() if line.startswith("$")]
    assert undone == [f"deployment/agent-{name}" for name in ("api", "egress", "worker")]
    assert site.images() == "111"

    again = site.deployer("2")
    assert again.way_back() == first
    again.roll_back(first, down=True)
    again.end_rollback(first)
    assert site.commands() == []
    assert site.images() == "111"


def test_a_rollback_that_failed_half_way_is_continued_to_the_same_destination(site: Site) -> None:
    first = site.install("1")
    site.install("2")
    deployer = site.deployer("2")
    site.server.faults.add_pod(PodFault(waiting="ErrImagePull", match=lambda pod: of("agent-egress", pod)))
    with pytest.raises(DeployFailed, match="agent-egress does not start"):
        deployer.roll_back(deployer.way_back(), down=True)
    assert site.images() == "211"
    site.server.faults.heal()
    again = site.deployer("2")
    assert again.way_back() == first
    again.roll_back(first, down=True)
    assert site.images() == "111"


def test_after_a_failed_deployment_the_way_back_leads_to_what_was_verified_last(site: Site) -> None:
    site.install("0")
    first = site.install("1")
    fault = PodFault(waiting="ImagePullBackOff", message="manifest unknown", match=lambda pod: of("agent-api", pod))
    site.server.faults.add_pod(fault)
    with pytest.raises(
        DeployFailed, match=r"agent-api does not start: pod agent-api-.*ImagePullBackOff: manifest unknown"
    ):
        site.deploy("2")
    assert site.images() == "222"
    site.server.faults.heal()
    # The same deployment once more, killed before its end: the way back stays.
    killed = site.deployer("2")
    killed._begin("deploy", killed.record.read())
    assert site.deployer("2").way_back() == first


def test_what_ran_without_a_record_is_the_way_back(site: Site) -> None:
    site.install("1")
    site.set_state(State())
    deployer = site.deployer("2")
    with rendered(site.describe("2"), site.cluster()) as source:
        deployer._begin("deploy", deployer._known(source))
    target = site.deployer().way_back()
    assert (target.release, target.images["agent-api"][-1]) == ("unknown", "1")


def test_a_rollout_that_never_ends_fails_at_its_deadline(site: Site) -> None:
    site.server.faults.add_pod(PodFault(unschedulable="no nodes", match=lambda pod: of("agent-egress", pod)))
    deployer = site.deployer("1")
    deployer._timeout_s = 0.5
    with (
        rendered(site.describe("1"), site.cluster()) as source,
        pytest.raises(DeployFailed, match="agent-egress is not ready in time: 0 of 2 pods"),
    ):
        deployer.deploy(source, down=False)


def test_workers_come_before_the_api_each_is_waited_for_and_an_api_server_may_fail_now_and_then(site: Site) -> None:
    faults = site.server.faults
    faults.add(Fail(500), "create", resource="deployments", times=1)
    faults.add(Fail(409), "create", resource="services", times=1)
    faults.add(Cut("before"), "list", resource="pods", times=1)
    faults.add(Cut("after"), "create", resource="configmaps", times=1)
    faults.add(Cut("after"), "update", resource="configmaps", times=1)
    site.deploy("1")
    assert [line.partition("selector=")[2] or line for line in site.commands()] == [
        "app.kubernetes.io/name notin (agent-worker,agent-api)'",
        "# wait for the rollout of deployment/agent-egress",
        "app.kubernetes.io/name=agent-worker",
        "# wait for the rollout of deployment/agent-worker",
        "app.kubernetes.io/name=agent-api",
        "# wait for the rollout of deployment/agent-api",
    ]
    assert site.images() == "111"
    state = site.state()
    assert state.attempt is not None
    assert (state.attempt.phase, state.running is not None) == ("done", True)


def test_a_right_that_is_missing_fails_a_deployment_at_once(site: Site) -> None:
    site.server.faults.add(Fail(403, message="no right"), "create", resource="services")
    with pytest.raises(DeployFailed, match=r"Forbidden.*no right"):
        site.deploy("1")
    assert not any("again" in line for line in site.said)


def test_a_dry_run_shows_the_steps_in_the_order_for_an_older_release_and_changes_nothing(site: Site) -> None:
    before = site.server.call(lambda: site.server.store.version)
    deployer = site.deployer("1", dry_run=True)
    with rendered(site.describe("1"), site.cluster(dry_run=True)) as source:
        deployer.deploy(source, down=True)
    shown = [line.partition("=app.kubernetes.io/name=")[2] for line in site.commands() if line.startswith("$")]
    assert shown == ["", "agent-api", "agent-worker"]
    assert site.server.call(lambda: site.server.store.version) == before


def test_two_records_do_not_overwrite_each_other(site: Site) -> None:
    one, other = site.deployer("1"), site.deployer("2")
    one._begin("deploy", one.record.read())
    other._begin("deploy", other.record.read())
    with pytest.raises(DeployFailed, match="was changed by another process"):
        one.fail("too late")
    attempt = site.state().attempt
    assert attempt is not None
    assert (attempt.release, attempt.phase) == ("2.0.0", "begun")
