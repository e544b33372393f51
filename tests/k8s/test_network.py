"""Network policies: the table in the guide names every connection that they allow, and no other one."""

import pytest

from infra.k8s_executor.job import CONTROL_PORT
from scripts.check_manifests import Object
from tests.docs.pages import DOCS, codes_in, rows
from tests.k8s import rendering
from tests.k8s.flows import Host, Pod, allows
from tests.k8s.rendering import overlay

pytestmark = rendering.needs_tools

STORE, INTERNET = Host("192.0.2.10"), Host("203.0.113.9")
PRIVATE = [Host(address) for address in ("10.1.2.3", "172.20.0.1", "192.168.1.1", "100.64.0.1", "127.0.0.1")]
METADATA = Host("169.254.169.254")
PODS = {
    "agent-worker": Pod("agents", "agent-worker"),
    "agent-api": Pod("agents", "agent-api"),
    "agent-egress": Pod("agents", "agent-egress"),
    "agent-sweep": Pod("agents", "agent-sweep"),
    "agent-qstash": Pod("agents", "agent-qstash"),
    "valkey": Pod("agents", "valkey"),
    "valkey-gateway": Pod("agents", "valkey-gateway"),
    "valkey-backup": Pod("agents", "valkey-backup"),
    "tool": Pod("agent-tools", "tool"),
    "ingress": Pod("ingress-nginx", "controller"),
    "keda": Pod("keda", "keda-operator"),
    "other": Pod("default", "agent-worker"),
}
LISTENING = {
    "tool": CONTROL_PORT,
    "agent-api": 8787,
    "agent-egress": 3128,
    "agent-worker": 8081,
    "agent-qstash": 8080,
    "valkey": 6379,
    "valkey-gateway": 8079,
}
DNS = Pod("kube-system", "kube-dns")
TOOL, EGRESS, API = PODS["tool"], PODS["agent-egress"], PODS["agent-api"]


def policies(name: str = "in-cluster") -> list[Object]:
    return [each for each in overlay(name) if each["kind"] == "NetworkPolicy"]


def documented() -> set[tuple[str, str, int]]:
    """Return the rows of the table: from, to, port."""
    table = [cells for cells in rows(DOCS / "deploy-kubernetes.md") if len(cells) == 4 and cells[2].isdigit()]
    return {
        (source, target, int(cells[2]))
        for cells in table
        for source in codes_in(cells[0])
        for target in codes_in(cells[1])
    }


def test_the_table_of_the_guide_has_every_connection_between_programs_and_no_other() -> None:
    allowed = {
        (source, target, port)
        for source, pod in PODS.items()
        for target, port in LISTENING.items()
        if source != target and allows(policies(), pod, PODS[target], port)
    }
    assert allowed == documented()


def test_a_program_reaches_only_the_store_the_proxy_and_dns() -> None:
    assert allows(policies(), TOOL, STORE, 443)
    assert allows(policies(), TOOL, DNS, 53, "UDP")
    assert allows(policies(), TOOL, EGRESS, 3128)
    for host in (INTERNET, METADATA, *PRIVATE):
        assert not any(allows(policies(), TOOL, host, port) for port in (53, 80, 443, 3128, 6443))
    assert not allows(policies(), TOOL, STORE, 80)
    assert not any(allows(policies(), TOOL, PODS["other"], port) for port in (80, 443, 3128, 8700))
    assert not allows(policies(), TOOL, Pod("agent-tools", "tool"), CONTROL_PORT)


def test_the_proxy_reaches_public_addresses_on_every_port_and_no_private_one() -> None:
    assert all(allows(policies(), EGRESS, INTERNET, port) for port in (22, 80, 443, 8443))
    assert not any(allows(policies(), EGRESS, host, 443) for host in (METADATA, *PRIVATE))
    assert not any(allows(policies(), EGRESS, PODS[name], port) for name, port in LISTENING.items())


def test_the_api_reaches_the_store_and_redis_and_no_metadata() -> None:
    assert allows(policies(), API, STORE, 443)
    assert allows(policies("exoscale-geneva"), API, INTERNET, 443)
    assert not allows(policies(), API, METADATA, 443)
    assert not allows(policies(), API, INTERNET, 22)


def test_the_stand_in_of_qstash_calls_nothing_but_the_api() -> None:
    hosts = (STORE, INTERNET, METADATA, *PRIVATE)
    assert not any(allows(policies(), PODS["agent-qstash"], host, port) for host in hosts for port in (80, 443))


def test_valkey_opens_no_connections() -> None:
    assert not any(allows(policies(), PODS["valkey"], host, 443) for host in (STORE, INTERNET, METADATA, *PRIVATE))


@pytest.mark.parametrize("name", rendering.OVERLAYS)
def test_each_namespace_denies_what_no_policy_allows(name: str) -> None:
    stranger = Pod("agents", "new-program")
    assert not any(allows(policies(name), pod, stranger, 80) for pod in PODS.values())
    assert not any(allows(policies(name), pod, Pod("agent-tools", "new"), 80) for pod in PODS.values())
    assert not allows(policies(name), Pod("agent-tools", "new"), INTERNET, 443)
