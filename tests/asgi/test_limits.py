"""Number of connections that the limit of open files allows."""

import resource
from pathlib import Path

import pytest

from infra.http_limits import RESERVED_DESCRIPTORS, LogInterval, connection_limit, raise_descriptor_limit


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def set_limit(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int | None = None) -> list[tuple[int, int]]:
    """Make the limit of open files appear as given; return the list of limits that are set later."""
    made: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (soft, soft if hard is None else hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _kind, limits: made.append(limits))
    return made


def test_connections_leave_descriptors_for_the_servers_own_use(monkeypatch: pytest.MonkeyPatch) -> None:
    set_limit(monkeypatch, 1024)
    free = 1024 - open_files() - RESERVED_DESCRIPTORS
    assert connection_limit(10_000) == free
    assert connection_limit(10_000, descriptors_each=2) == free // 2
    assert connection_limit(10_000, reserved=200) == free + RESERVED_DESCRIPTORS - 200


@pytest.mark.parametrize("soft", [1024, 1_000_000, resource.RLIM_INFINITY])
def test_a_smaller_number_is_kept(monkeypatch: pytest.MonkeyPatch, soft: int) -> None:
    set_limit(monkeypatch, soft)
    assert connection_limit(100) == 100


def test_a_few_connections_are_always_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    set_limit(monkeypatch, 32)
    assert connection_limit(10_000, descriptors_each=2) == 8


@pytest.mark.parametrize(
    ("soft", "hard", "made"),
    [
        (1024, 4096, [(4096, 4096)]),
        (1024, 1 << 30, [(65_536, 1 << 30)]),
        (1024, resource.RLIM_INFINITY, [(65_536, resource.RLIM_INFINITY)]),
        (4096, 4096, []),
        (100_000, 1 << 20, []),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, []),
    ],
)
def test_the_limit_of_open_files_is_raised_but_never_lowered(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, made: list[tuple[int, int]]
) -> None:
    calls = set_limit(monkeypatch, soft, hard)
    raise_descriptor_limit()
    assert calls == made


def test_a_line_counts_what_happened_since_the_last_one() -> None:
    interval = LogInterval()
    assert [interval.count(now) for now in (100.0, 101.0, 109.9, 110.0, 110.1, 130.0)] == [1, None, None, 3, None, 2]
