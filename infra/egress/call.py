"""Call of a program with a network: its allow list, its limits, and what it did."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from infra.address_guard import Address, AddressGuard, AddressNotAllowed, HostNotFound
from infra.contract.errors import HostExhausted
from infra.contract.execution import NetworkUse, Traffic
from infra.egress.settings import ALLOW, MAX_BYTES, PRIVATE_HOSTS
from infra.egress.targets import EgressTarget
from infra.host_patterns import HostPattern
from infra.logging import log

MAX_HOSTS = 50
"""Hosts that are counted, and refused hosts that are named, one by one."""
OTHER_HOSTS = "others"
REQUESTS_PER_S = 100
REQUESTS_AT_ONCE = 200
LOOKUP_S = 15.0
NOT_LISTED = "Not in `network` of the call"


@dataclass(frozen=True)
class EgressLimits:
    """Limits of one call. Times are in seconds.

    `connections`: open at a time. `max_bytes`: both directions together. `head_s`: time for the head of a request,
    `connect_s` for a connection to one address. `idle_s`: time in which nothing is sent or received; `half_open_s` the
    same, once one side has ended.
    """

    max_bytes: int
    connections: int = 64
    head_s: float = 30.0
    connect_s: float = 10.0
    idle_s: float = 300.0
    half_open_s: float = 30.0


class EgressRefused(Exception):
    """Request that is answered by the proxy itself. `phrase` is for the status line, which some programs show alone."""

    def __init__(self, status: int, phrase: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.phrase = phrase


class BytesUsedUp(Exception):
    """The call has sent and received all bytes that it may."""


class EgressCall:
    """Call of a program. `allowed` are entries `host:port`; `expires_s` is the end of a token, in s since the epoch."""

    def __init__(
        self,
        run_id: str,
        call: str,
        allowed: Sequence[str],
        guard: AddressGuard,
        limits: EgressLimits,
        expires_s: float = 0,
    ) -> None:
        self.run_id = run_id
        self.call = call
        self.limits = limits
        self.expires_s = expires_s
        self.tasks: set[asyncio.Task[None]] = set()
        """Tasks of the open connections."""
        self.used_bytes = 0
        self._allowed = allowed
        self._patterns = [HostPattern.parse(entry) for entry in allowed]
        self._guard = guard
        self._traffic: dict[str, Traffic] = {}
        self._refused: dict[str, str] = {}
        self._next_s = 0.0
        self._has_news = False

    @contextmanager
    def connection(self) -> Iterator[None]:
        """Count the connection of the current task. Raises EgressRefused if there are too many."""
        task = asyncio.current_task()
        if len(self.tasks) >= self.limits.connections or task is None:
            message = f"this call has {len(self.tasks)} connections open, and may have {self.limits.connections}"
            raise EgressRefused(503, "Too many connections", message)
        self.tasks.add(task)
        try:
            yield
        finally:
            self.tasks.discard(task)

    async def pace(self) -> None:
        """Wait if the call makes more than REQUESTS_PER_S requests: they take time of the proxy, which others share."""
        now = asyncio.get_running_loop().time()
        self._next_s = max(self._next_s, now - REQUESTS_AT_ONCE / REQUESTS_PER_S) + 1 / REQUESTS_PER_S
        if self._next_s > now:
            await asyncio.sleep(self._next_s - now)

    async def addresses(self, target: EgressTarget) -> Sequence[Address]:
        """Return the addresses of a target, all of them checked. Raises EgressRefused."""
        if self.is_used_up():
            raise self.refusal(target, 403, "Bytes used up", self.bytes_used_up())
        # Before the name is resolved: a query for a name can carry data to the owner of its domain.
        if not any(pattern.matches(target.host, target.port) for pattern in self._patterns):
            allowed = ", ".join(self._allowed)
            hint = f"which allows {allowed}, within {ALLOW} of the operator"
            raise self.refusal(target, 403, NOT_LISTED, NOT_LISTED.lower(), hint)
        try:
            async with asyncio.timeout(LOOKUP_S):
                return await self._guard.addresses(target.host, target.port)
        except AddressNotAllowed as exc:
            hint = f"the operator can list a host of the own network in {PRIVATE_HOSTS}"
            raise self.refusal(target, 403, "Address not public", str(exc), hint) from None
        except HostNotFound as exc:
            raise self.refusal(target, 502, "No such host", str(exc)) from None
        except (HostExhausted, TimeoutError):
            raise self.refusal(
                target, 504, "No answer for the name", "its name could not be resolved in time"
            ) from None

    def refusal(self, target: EgressTarget, status: int, phrase: str, reason: str, hint: str = "") -> EgressRefused:
        """Return the error for a target that is not reached, and remember it for the log of the run."""
        self._has_news = True
        if len(self._refused) < MAX_HOSTS:
            self._refused.setdefault(target.name, reason)
        return EgressRefused(status, phrase, f"'{target.name}' is not reached: {reason}{hint and f', {hint}'}")

    def count(self, target: EgressTarget, sent: int, received: int) -> None:
        """Count bytes that are about to be passed on. Raises BytesUsedUp."""
        name = target.name if target.name in self._traffic or len(self._traffic) < MAX_HOSTS else OTHER_HOSTS
        self._has_news = True
        before = self._traffic.get(name, Traffic(0, 0))
        self._traffic[name] = Traffic(before.sent + sent, before.received + received)
        self.used_bytes += sent + received
        if self.is_used_up():
            raise BytesUsedUp(self.refusal(target, 403, "Bytes used up", self.bytes_used_up()))

    def is_used_up(self) -> bool:
        """Return whether the call may send and receive no more bytes."""
        return self.used_bytes > self.limits.max_bytes

    def bytes_used_up(self) -> str:
        """Return the reason for refusing further bytes."""
        return f"the call has used up its {self.limits.max_bytes} bytes, both directions together ({MAX_BYTES})"

    def use(self) -> NetworkUse:
        """Return what the call has done so far."""
        return NetworkUse(dict(self._traffic), dict(self._refused))

    async def close(self) -> None:
        """Cut all connections."""
        for task in (tasks := list(self.tasks)):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def log_use(self) -> None:
        """Write the log line of the call, if something has happened since the last one."""
        if not self._has_news:
            return
        self._has_news = False
        hosts = {name: list(traffic) for name, traffic in self._traffic.items()}
        log("egress.call", run_id=self.run_id, call=self.call, hosts=hosts, refused=sorted(self._refused))
