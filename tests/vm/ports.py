"""Ports for services that are killed and started again."""

import atexit

from infra.devstack.port_numbers import PortReservations

NAMES = ("VALKEY_PORT", "GATEWAY_PORT", "QSTASH_PORT", "API_PORT", "WORKER_HEALTH_PORT")


_reservations = PortReservations()
atexit.register(_reservations.release)


def lasting_port() -> int:
    """Return a port that is this process's, also while its service is down."""
    return _reservations.pick()


def all_ports() -> dict[str, str]:
    """Return the content of `ports.env`, with a free port for each part."""
    return {name: str(lasting_port()) for name in NAMES}
