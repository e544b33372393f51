"""Ports of a stack: reuse of those of the last start, and reservations against other stacks."""

import itertools
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path

import pytest

from infra.devstack import port_numbers
from infra.devstack.errors import StackError
from infra.devstack.port_numbers import HOST, PortReservations, Ports, choose, load_last
from tests.support.redis import RESERVED, free_port

ROOT = Path(__file__).parents[2]
OTHER_STACK = """
import sys
from infra.devstack.port_numbers import PortReservations
held = PortReservations()
print(held.take(int(sys.argv[1])), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def reservations() -> Iterator[PortReservations]:
    made = PortReservations()
    yield made
    made.release()


@pytest.fixture
def others() -> Iterator[PortReservations]:
    """Reservations of another stack."""
    made = PortReservations()
    yield made
    made.release()


@pytest.fixture
def first() -> Ports:
    """Ports of a start that has ended."""
    ended = PortReservations()
    chosen = choose(None, 0, ended)
    ended.release()
    return chosen


def listener(port: int = 0) -> socket.socket:
    return socket.create_server((HOST, port))


def test_all_ports_differ(first: Ports) -> None:
    assert len(first.all()) == 14


def test_ports_of_the_last_start_are_reused_if_free(first: Ports, reservations: PortReservations) -> None:
    assert choose(first, 0, reservations) == first


def test_a_port_of_the_last_start_that_is_taken_is_replaced(first: Ports, reservations: PortReservations) -> None:
    with listener(first.gateway):
        second = choose(first, 0, reservations)
    assert second.gateway != first.gateway
    assert (second.redis, second.api, second.s3) == (first.redis, first.api, first.s3)


def test_the_s3_server_gets_new_ports_if_one_of_them_is_taken(first: Ports, reservations: PortReservations) -> None:
    with listener(first.s3.filer):
        second = choose(first, 0, reservations)
    assert first.s3.filer not in astuple(second.s3)
    assert second.redis == first.redis


def test_a_copy_of_the_data_of_a_running_stack_gets_ports_of_its_own(
    first: Ports, others: PortReservations, reservations: PortReservations
) -> None:
    assert choose(first, 0, others) == first
    assert not choose(first, 0, reservations).all() & first.all()


def test_a_connection_in_time_wait_does_not_take_a_port(reservations: PortReservations) -> None:
    with listener() as listening:
        port = listening.getsockname()[1]
        with socket.create_connection((HOST, port)):
            listening.accept()[0].close()
    assert reservations.take(port)


def test_a_wanted_port_that_is_taken_is_refused(others: PortReservations, reservations: PortReservations) -> None:
    with listener() as listening:
        port = listening.getsockname()[1]
        with pytest.raises(StackError, match=f"port {port} is taken; choose another one with --port"):
            choose(None, port, reservations)
    assert others.take(port)
    with pytest.raises(StackError, match=f"port {port} is taken"):
        choose(None, port, reservations)


def test_no_service_gets_the_port_that_is_wanted_for_the_api(first: Ports, reservations: PortReservations) -> None:
    chosen = choose(first, first.gateway, reservations)
    assert chosen.api == first.gateway
    assert chosen.gateway != first.gateway


@pytest.mark.parametrize("port", [-1, 0, 65536, 2**70])
def test_a_number_that_is_no_port_is_not_reserved(reservations: PortReservations, port: int) -> None:
    assert not reservations.take(port)


def test_of_several_ports_all_or_none_are_reserved(others: PortReservations, reservations: PortReservations) -> None:
    free, taken = reservations.pick(), others.pick()
    reservations.release()
    assert not reservations.take_all([free, taken])
    assert others.take(free)


def test_two_stacks_never_choose_the_same_port(
    others: PortReservations, reservations: PortReservations, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both draw the same numbers, as if they started with the same random state."""
    numbers = itertools.cycle(range(20_000, 20_100))
    monkeypatch.setattr(random, "randint", lambda *_: next(numbers))
    first = {others.pick() for _ in range(10)}
    numbers = itertools.cycle(range(20_000, 20_100))
    second = {reservations.pick() for _ in range(10)}
    assert not first & second


def test_a_reservation_ends_with_its_process(reservations: PortReservations) -> None:
    port = reservations.pick()
    reservations.release()
    other = subprocess.Popen(
        [sys.executable, "-c", OTHER_STACK, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout
        assert other.stdout.readline() == "True\n"
        assert not reservations.take(port)
    finally:
        other.kill()
        other.communicate(timeout=20)
    assert reservations.take(port)


@pytest.mark.parametrize("content", ["", "{}", '{"redis": "x"}'])
def test_a_damaged_file_of_ports_is_ignored(tmp_path: Path, content: str) -> None:
    path = tmp_path / "ports.json"
    assert load_last(path) is None
    path.write_text(content)
    assert load_last(path) is None


def test_ports_of_tests_are_those_of_no_stack_and_no_other_test_process() -> None:
    assert {free_port(), free_port()} <= set(RESERVED)
    assert RESERVED.stop <= port_numbers._LOWEST
    source = "from tests.support.redis import RESERVED; print(RESERVED.start)"
    other = subprocess.run([sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(other.stdout) not in RESERVED
    with socket.socket(socket.AF_UNIX) as second, pytest.raises(OSError, match="in use"):
        second.bind(f"\0swissbrain-test-ports-{RESERVED.start}")
