"""Calls that use the proxy of a cluster: each token's call, until the token expires."""

import time
from collections.abc import Callable

import h11

from infra.address_guard import AddressGuard
from infra.egress.call import EgressCall, EgressLimits, EgressRefused
from infra.egress.tokens import LEEWAY_S, BadToken, EgressTokens

MAX_SESSIONS = 10_000
QUIET_S = 60.0
"""Time without a connection after which the log line of a call is written; a call that goes on gets another one."""


class EgressSessions:
    """Calls by their tokens. `clock` returns the time in s since the epoch."""

    def __init__(
        self,
        tokens: EgressTokens,
        limits: EgressLimits,
        guard: Callable[[], AddressGuard],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._tokens = tokens
        self._limits = limits
        self._guard = guard
        self._clock = clock
        self._calls: dict[bytes, EgressCall] = {}
        self._used_s: dict[bytes, float] = {}

    def authorise(self, request: h11.Request) -> EgressCall:
        """Return the call of a request by its token. Raises EgressRefused."""
        given = [value for name, value in request.headers if name == b"proxy-authorization"]
        if len(given) != 1:
            raise EgressRefused(407, "Proxy Authentication Required", "the proxy needs the token of a call")
        authorization = given[0]
        now = self._clock()
        call = self._calls.get(authorization)
        if call is None or call.expires_s + LEEWAY_S <= now:
            call = self._new(authorization)
        self._used_s[authorization] = now
        return call

    def _new(self, authorization: bytes) -> EgressCall:
        try:
            grant = self._tokens.grant(authorization)
        except BadToken as exc:
            raise EgressRefused(407, "Proxy Authentication Required", str(exc)) from None
        if len(self._calls) >= MAX_SESSIONS:
            raise EgressRefused(503, "Too many calls", f"{MAX_SESSIONS} calls use this proxy already")
        call = EgressCall(grant.sub, grant.call, grant.network, self._guard(), self._limits, grant.exp)
        self._calls[authorization] = call
        return call

    async def sweep(self) -> None:
        """Log calls that have become quiet; cut and forget those whose token has expired."""
        now = self._clock()
        for authorization, call in list(self._calls.items()):
            is_over = call.expires_s + LEEWAY_S <= now
            if is_over:
                await call.close()
            if is_over or (not call.tasks and self._used_s[authorization] + QUIET_S <= now):
                call.log_use()
            if is_over:
                del self._calls[authorization], self._used_s[authorization]

    async def close(self) -> None:
        """Cut all connections and log all calls."""
        for call in self._calls.values():
            await call.close()
            call.log_use()
