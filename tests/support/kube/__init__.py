"""Kubernetes API server for tests, with Job controller and a kubelet that really runs the programs of pods."""

from tests.support.kube.faults import Cut, Delay, Deny, Fail, Faults, PodFault
from tests.support.kube.server import KubeServer, kube_server

__all__ = ["Cut", "Delay", "Deny", "Fail", "Faults", "KubeServer", "PodFault", "kube_server"]
