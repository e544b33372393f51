"""Connections that the network policies allow, by the rules of networking.k8s.io/v1.

A connection needs the consent of both ends. A pod that no policy selects for a direction consents to everything.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Literal

from scripts.check_manifests import Object


@dataclass(frozen=True)
class Pod:
    """Pod of a cluster, by its namespace and the name in its labels."""

    namespace: str
    name: str


@dataclass(frozen=True)
class Host:
    """Host outside of the cluster."""

    address: str


def allows(policies: Sequence[Object], source: Pod, target: Pod | Host, port: int, protocol: str = "TCP") -> bool:
    """Return whether a connection is allowed."""
    leaves = _consents(policies, source, "Egress", target, port, protocol)
    return leaves and (isinstance(target, Host) or _consents(policies, target, "Ingress", source, port, protocol))


def _consents(
    policies: Sequence[Object],
    pod: Pod,
    direction: Literal["Egress", "Ingress"],
    other: Pod | Host,
    port: int,
    protocol: str,
) -> bool:
    applied = [each for each in policies if direction in each["spec"]["policyTypes"] and _selects(each, pod)]
    peers = "to" if direction == "Egress" else "from"
    rules = [rule for each in applied for rule in each["spec"].get(direction.lower(), [])]
    return not applied or any(
        _has_port(rule, port, protocol) and any(_is_peer(peer, pod, other) for peer in rule[peers]) for rule in rules
    )


def _selects(policy: Object, pod: Pod) -> bool:
    return policy["metadata"]["namespace"] == pod.namespace and _matches(policy["spec"]["podSelector"], pod.name)


def _has_port(rule: Object, port: int, protocol: str) -> bool:
    ports = rule.get("ports")
    return ports is None or {"protocol": protocol, "port": port} in ports


def _is_peer(peer: Object, pod: Pod, other: Pod | Host) -> bool:
    if isinstance(other, Host):
        # Only a block of addresses means hosts outside; some network plugins never match pods by one.
        block: Object = peer.get("ipBlock", {})
        address = ip_address(other.address)
        inside = bool(block) and address in ip_network(block["cidr"])
        return inside and not any(address in ip_network(each) for each in block.get("except", []))
    if "ipBlock" in peer:
        return False
    namespace = peer.get("namespaceSelector", {}).get("matchLabels", {}).get("kubernetes.io/metadata.name")
    return other.namespace == (namespace or pod.namespace) and _matches(peer.get("podSelector", {}), other.name)


def _matches(selector: Object, name: str) -> bool:
    wanted = selector.get("matchLabels", {})
    assert set(wanted) <= {"app.kubernetes.io/name", "k8s-app"}, wanted
    return all(value == name for value in wanted.values())
