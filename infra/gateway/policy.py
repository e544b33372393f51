"""Which commands are served: not those that block, change a connection all requests share, or run the server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from infra.gateway.errors import Refused
from infra.gateway.pool import Pool
from infra.gateway.resp import ErrorReply, Reply, pack

_BLOCKING = "it would block the connection"
_STATE = "it changes the state of a connection, and requests share connections"
_TRANSACTION = "send the whole transaction to /multi-exec"
_PUBSUB = "use /subscribe/{channel} or /psubscribe/{pattern}"
_ADMIN = "it administers the server"

_REFUSED: dict[bytes, str] = {
    name.encode(): reason
    for reason, names in {
        _BLOCKING: "BLPOP BRPOP BLMOVE BLMPOP BRPOPLPUSH BZPOPMIN BZPOPMAX BZMPOP WAIT WAITAOF",
        _STATE: "AUTH HELLO SELECT QUIT RESET ASKING READONLY READWRITE",
        _TRANSACTION: "MULTI EXEC DISCARD WATCH UNWATCH",
        _PUBSUB: "SUBSCRIBE PSUBSCRIBE SSUBSCRIBE UNSUBSCRIBE PUNSUBSCRIBE SUNSUBSCRIBE",
        "use /monitor": "MONITOR",
        _ADMIN: (
            "ACL BGREWRITEAOF BGSAVE CLUSTER COMMANDLOG CONFIG DEBUG FAILOVER LATENCY MIGRATE MODULE PFDEBUG "
            "PFSELFTEST PSYNC REPLCONF REPLICAOF RESTORE-ASKING ROLE SAVE SHUTDOWN SLAVEOF SLOWLOG SWAPDB SYNC"
        ),
    }.items()
    for name in names.split()
}

# Containers of which only some subcommands are served.
_ONLY: dict[bytes, frozenset[bytes]] = {
    b"CLIENT": frozenset({b"SETINFO"}),
    b"SCRIPT": frozenset({b"LOAD", b"EXISTS", b"FLUSH", b"SHOW", b"KILL", b"HELP"}),
}

# How many arguments each option of XREAD and XREADGROUP takes along, itself included.
_XREAD_OPTIONS = {b"COUNT": 2, b"NOACK": 1, b"CLAIM": 2}

# Redis flags these as reads; Upstash's read-only token may not run them because they walk the whole keyspace.
_TOO_POWERFUL = frozenset({b"KEYS", b"SCAN", b"RANDOMKEY"})

_COMMAND = pack((b"COMMAND",))


def check(command: Sequence[bytes]) -> None:
    """Raises `Refused` for a command the gateway serves to nobody."""
    name = command[0].upper()
    reason = _REFUSED.get(name)
    if reason is None and name in (b"XREAD", b"XREADGROUP") and _blocks(command):
        reason = _BLOCKING
    if reason is None and name in _ONLY and (len(command) < 2 or command[1].upper() not in _ONLY[name]):
        reason = _STATE
    if reason is not None:
        raise Refused(f"ERR Command is not available: '{_shown(name)}': {reason}")


def _blocks(command: Sequence[bytes]) -> bool:
    position = 1
    while position < len(command):
        option = command[position].upper()
        if option == b"STREAMS":
            return False
        if option == b"BLOCK":
            return True
        position += 3 if option == b"GROUP" else _XREAD_OPTIONS.get(option, 1)
    return False


def no_permission(command: bytes) -> Refused:
    text = f"NOPERM this user has no permissions to run the '{_shown(command.lower())}' command or its subcommand"
    return Refused(text)


def _shown(name: bytes) -> str:
    return name[:64].decode("ascii", "backslashreplace")


class ReadOnlyPolicy:
    """What the read-only token may run: PING, and what this Redis itself flags `readonly` in COMMAND."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._allowed: frozenset[bytes] = frozenset()
        self._generation = -1
        self._lock = asyncio.Lock()

    async def check(self, command: Sequence[bytes]) -> None:
        """Raises `Refused` (NOPERM), or `RedisUnavailable` when Redis cannot be asked."""
        if self._generation != self._pool.generation:
            await self._load()
        name = command[0].upper()
        subcommand = name + b"|" + command[1].upper() if len(command) > 1 else name
        if name not in self._allowed and subcommand not in self._allowed:
            raise no_permission(name)

    async def _load(self) -> None:
        async with self._lock:
            if self._generation == self._pool.generation:
                return
            [table] = await self._pool.execute(_COMMAND, 1)
            if isinstance(table, ErrorReply):
                raise Refused(str(table))
            self._allowed = frozenset(_readonly(table)) - _TOO_POWERFUL | {b"PING"}
            self._generation = self._pool.generation


def _readonly(table: list[Reply]) -> list[bytes]:
    """Names in upper case, `CONTAINER|SUBCOMMAND` for subcommands, from the rows of COMMAND."""
    names: list[bytes] = []
    for row in table:
        if b"readonly" in row[2]:
            names.append(row[0].upper())
        if len(row) > 9 and row[9]:
            names.extend(_readonly(row[9]))
    return names
