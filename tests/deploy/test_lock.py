"""Lease of a deployment: two at once, a holder that was killed, one that lost its Lease."""

import threading
import time

import pytest

from infra.deploy import lock
from infra.deploy.errors import DeployFailed
from infra.deploy.lock import NAME, held
from tests.support.deploy_site import Site, needs_kubectl
from tests.support.kube import Cut, Fail
from tests.support.waiting import wait_until

pytestmark = needs_kubectl


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "RENEW_S", 0.2)
    monkeypatch.setattr(lock, "LOOK_S", 0.2)


def taken_by(site: Site, holder: str) -> None:
    spec = {"holderIdentity": holder, "leaseDurationSeconds": 30}
    site.server.call(
        lambda: site.server.store.create("leases", {"metadata": {"name": NAME, "namespace": "agents"}, "spec": spec})
    )


def test_a_second_deployment_is_refused_while_the_first_one_lives(site: Site) -> None:
    with (
        held(site.cluster()),
        pytest.raises(DeployFailed, match=r"process \d+\) deploys at the moment; nothing was changed"),
        held(site.cluster()),
    ):
        pass
    assert site.server.objects("leases") == []


def test_the_lease_of_a_killed_deployment_is_taken_after_its_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "DURATION_S", 0.5)
    taken_by(site, "ada@laptop (process 7)")
    with held(site.cluster()) as own:
        assert own is not None
        assert "ada@laptop" not in site.server.objects("leases")[0]["spec"]["holderIdentity"]
    assert any("ada@laptop" in line for line in site.said)


def test_a_holder_whose_lease_was_taken_stops_before_its_next_step_and_leaves_it(site: Site) -> None:
    store = site.server.store

    def take() -> None:
        store.update("leases", ("agents", NAME), lambda new: new["spec"].update(holderIdentity="ada@laptop"))

    def is_lost(own: lock.Lock) -> bool:
        try:
            own.check()
        except DeployFailed as exc:
            return "ada@laptop" in str(exc)
        return False

    with held(site.cluster()) as own:
        assert own is not None
        own.check()
        site.server.call(take)
        wait_until(lambda: is_lost(own), "the loss is noticed")
    assert site.server.objects("leases")[0]["spec"]["holderIdentity"] == "ada@laptop"


def test_a_conflict_that_cannot_be_explained_is_no_renewal(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "DURATION_S", 2.0)

    def is_uncertain(own: lock.Lock) -> bool:
        try:
            own.check()
        except DeployFailed as exc:
            return "could not be reached" in str(exc)
        return False

    def take() -> None:
        site.server.store.update("leases", ("agents", NAME), lambda new: new["spec"].update(holderIdentity="ada"))

    with held(site.cluster()) as own:
        assert own is not None
        site.server.faults.add(Fail(503), "get", resource="leases")
        site.server.call(take)
        wait_until(lambda: is_uncertain(own), "the Lease is not certain any more")
        site.server.faults.heal()


def test_a_renewal_whose_answer_was_lost_is_no_loss(site: Site) -> None:
    with held(site.cluster()) as own:
        assert own is not None
        fault = site.server.faults.add(Cut("after"), "update", resource="leases", times=2)
        wait_until(lambda: fault.times == 0, "two answers were lost")
        renewed = time.monotonic()
        wait_until(lambda: own._renewed_s > renewed, "the Lease was renewed again")
        own.check()
    assert not any(thread.name == "lease" for thread in threading.enumerate())
