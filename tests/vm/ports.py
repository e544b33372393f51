"""Ports for services that are killed and started again."""

import random

from infra.devstack.port_numbers import is_free

NAMES = ("VALKEY_PORT", "GATEWAY_PORT", "QSTASH_PORT", "API_PORT", "WORKER_HEALTH_PORT")


def lasting_port() -> int:
    """Return a free port below those of outgoing connections, so that none takes it while its service is down."""
    while not is_free(port := random.randint(15_000, 31_999)):
        pass
    return port


def all_ports() -> dict[str, str]:
    """Return the content of `ports.env`, with a free port for each part."""
    ports: set[int] = set()
    while len(ports) < len(NAMES):
        ports.add(lasting_port())
    return dict(zip(NAMES, map(str, ports), strict=True))
