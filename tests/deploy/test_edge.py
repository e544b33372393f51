"""The edge: what osls is called with, how an earlier deployment comes back, and what happens if osls fails."""

from typing import Any

import pytest

from infra.deploy.description import Edge
from infra.deploy.edge import EdgeDeployment
from infra.deploy.errors import DeployFailed
from infra.deploy.programs import Programs
from infra.deploy.record import EdgeState
from tests.support.deploy_site import Account, Site, needs_kubectl

PARAMS: dict[str, str | int] = {"redisUrl": "https://redis.example"}


def edge_options(account: Account) -> dict[str, Any]:
    return {"edge": {"folder": str(account.folder), "stage": "test", "params": PARAMS}}


def edge_state(timestamp: str, package: str) -> EdgeState:
    return EdgeState(timestamp=timestamp, package=package, stage="test", region="eu-central-2", params={**PARAMS})


def test_osls_gets_stage_region_and_parameters_and_its_deployments_are_listed(account: Account) -> None:
    said: list[str] = []
    edge = EdgeDeployment(Programs(said.append), Edge(folder=str(account.folder), stage="test", params=PARAMS))
    assert edge.timestamps() == []
    edge.deploy()
    edge.deploy()
    assert edge.timestamps() == ["1000", "1001"]
    given = ["--stage=test", "--region=eu-central-2", "--param=redisUrl=https://redis.example"]
    assert account.read()["calls"][1] == ["deploy", *given, "--force"]
    assert "  Deploying swissbrain to stage prod" in said


@pytest.mark.parametrize(
    ("missing", "help_"),
    [
        ("serverless.yml", "checkout"),
        ("deploy/edge/node_modules/.bin/osls", "npm ci --prefix"),
        ("build/edge/edge.zip", "make package-edge"),
    ],
)
def test_what_this_machine_lacks_is_said_with_what_helps(account: Account, missing: str, help_: str) -> None:
    (account.folder / missing).unlink()
    assert help_ in EdgeDeployment(Programs(print), Edge(folder=str(account.folder))).missing()


def test_a_failure_of_osls_is_one_line(account: Account) -> None:
    account.fail("deploy", "Stack:arn is in UPDATE_IN_PROGRESS state and can not be updated.")
    edge = EdgeDeployment(Programs(print), Edge(folder=str(account.folder), params=PARAMS))
    with pytest.raises(DeployFailed, match=r"^osls failed: Stack:arn is in UPDATE_IN_PROGRESS"):
        edge.deploy()


@needs_kubectl
def test_rollback_of_edge_and_workers_is_continued_after_a_failure_and_not_repeated_after_its_end(
    site: Site, account: Account
) -> None:
    account.run_deployments("1000", "1001")
    first = site.install("1", edge_state("1000", "first"))
    site.install("2", edge_state("1001", "second"))
    deployer = site.deployer("2", **edge_options(account))
    assert deployer.way_back() == first
    account.fail("rollback", "ENOTFOUND cloudformation")
    with pytest.raises(DeployFailed, match="ENOTFOUND"):
        deployer.roll_back(first, down=True)
    assert (site.images(), account.read()["running"]) == ("222", "1001")

    account.mend()
    again = site.deployer("2", **edge_options(account))
    assert again.way_back() == first
    again.roll_back(first, down=True)
    again.end_rollback(first)
    assert (site.images(), account.read()["running"]) == ("111", "1000")

    third = site.deployer("2", **edge_options(account))
    calls = len(account.read()["calls"])
    third.roll_back(third.way_back(), down=True)
    assert len(account.read()["calls"]) == calls


@needs_kubectl
def test_the_edge_comes_after_the_workers_and_is_recorded_with_the_name_of_its_deployment(
    site: Site, account: Account
) -> None:
    account.run_deployments("1000")
    site.deploy("1", **edge_options(account))
    assert "osls deploy --stage=test" in site.commands()[-1]
    running = site.state().running
    assert running is not None
    assert running.edge is not None
    assert (running.edge.timestamp, running.edge.stage, running.edge.params) == ("1001", "test", PARAMS)
    assert len(running.edge.package) == 64
