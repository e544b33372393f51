"""Ports for the parts of a machine."""

from tests.support.redis import free_port

NAMES = ("VALKEY_PORT", "GATEWAY_PORT", "QSTASH_PORT", "API_PORT", "WORKER_HEALTH_PORT")


def all_ports() -> dict[str, str]:
    """Return the content of `ports.env`, with a port of this test process for each part."""
    return {name: str(free_port()) for name in NAMES}
