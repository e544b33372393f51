"""Decide which commands are served.

Rejected are commands that block, that change the state of a connection (requests share connections), or that
administer the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from infra.gateway.errors import CommandRejected
from infra.gateway.pool import Pool
from infra.gateway.resp import ErrorReply, RespReply, pack

_BLOCKING = "it would block the connection"
_STATE = "it changes the state of a connection, and requests share connections"
_TRANSACTION = "send the whole transaction to /multi-exec"
_PUBSUB = "use /subscribe/{channel} or /psubscribe/{pattern}"
_ADMIN = "it administers the server"

_REJECTED: dict[bytes, str] = {
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

# Commands of which only these subcommands are served.
_SUBCOMMANDS: dict[bytes, frozenset[bytes]] = {
    b"CLIENT": frozenset({b"SETINFO"}),
    b"SCRIPT": frozenset({b"LOAD", b"EXISTS", b"FLUSH", b"SHOW", b"KILL", b"HELP"}),
}

# Length in words of each option of XREAD and XREADGROUP, the option's name included.
_XREAD_OPTIONS = {b"COUNT": 2, b"NOACK": 1, b"CLAIM": 2}

# Options of XREAD and XREADGROUP are at most ten words. Nothing beyond this number is looked at.
_MAX_OPTION_WORDS = 64

# Commands without keys that the read-only token may run all the same.
_KEYLESS_READS = frozenset({b"PING", b"DBSIZE"})

# Reads that the read-only token may not run, because a short one can keep Redis busy for minutes: LCS (before it,
# STRALGO) compares each byte of a string with each byte of another one, and SORT_RO reads a key that it does not name
# for each pattern and element.
_BOUNDLESS_READS = frozenset({b"LCS", b"STRALGO", b"SORT_RO"})

# Bounds of a read by the read-only token: Redis executes no other command meanwhile.
MAX_READ_WORDS = 10_000
"""Words of any command."""
MAX_COMBINING_WORDS = 128
"""Words of a command that reads all of each key that it names. It may name the same one again and again."""
MAX_REPEATED = 1000
"""Random elements that a negative count asks for, which may exceed the size of the key."""
MAX_PATTERN_BYTES = 128
"""Bytes of the pattern that each element of a key is compared with."""

_RANDOM_ELEMENTS = frozenset({b"SRANDMEMBER", b"HRANDFIELD", b"ZRANDMEMBER"})
_ELEMENT_SCANS = frozenset({b"SSCAN", b"HSCAN", b"ZSCAN"})

_COMMAND = pack((b"COMMAND",))


def check(command: Sequence[bytes]) -> None:
    """Raise `CommandRejected` for a command that no token may run."""
    name = command[0].upper()
    reason = _REJECTED.get(name)
    if reason is None and name in (b"XREAD", b"XREADGROUP") and _blocks(command):
        reason = _BLOCKING
    if reason is None and name in _SUBCOMMANDS and (len(command) < 2 or command[1].upper() not in _SUBCOMMANDS[name]):
        reason = _STATE
    if reason is not None:
        raise CommandRejected(f"ERR Command is not available: '{_printable(name)}': {reason}")


def _blocks(command: Sequence[bytes]) -> bool:
    """Return True if an XREAD or XREADGROUP has the option BLOCK, or more words of options than can be checked."""
    # The options are walked, because a key, a group or a consumer may also be named BLOCK.
    position = 1
    while position < min(len(command), _MAX_OPTION_WORDS):
        option = command[position].upper()
        if option == b"STREAMS":
            return False
        if option == b"BLOCK":
            return True
        position += 3 if option == b"GROUP" else _XREAD_OPTIONS.get(option, 1)
    return position < len(command)


def no_permission(command: bytes) -> CommandRejected:
    """Return the error of Redis for a command that the token may not run."""
    text = f"NOPERM this user has no permissions to run the '{_printable(command.lower())}' command or its subcommand"
    return CommandRejected(text)


def _printable(name: bytes) -> str:
    return name[:64].decode("ascii", "backslashreplace")


def _excess(command: Sequence[bytes], combines: bool) -> str:
    """Return which bound of a read the command exceeds; an empty text if none."""
    name = command[0].upper()
    words = MAX_COMBINING_WORDS if combines else MAX_READ_WORDS
    if len(command) > words:
        return f"more than {words} words"
    if name in _RANDOM_ELEMENTS and len(command) > 2 and _integer(command[2]) < -MAX_REPEATED:
        return f"a count below -{MAX_REPEATED}"
    if name in _ELEMENT_SCANS and any(len(word) > MAX_PATTERN_BYTES for word in command[3:]):
        return f"a pattern of more than {MAX_PATTERN_BYTES} bytes"
    return ""


def _integer(word: bytes) -> int:
    """Return the number that a word stands for; 0 if Redis will reject it."""
    return int(word) if len(word) <= 20 and word.removeprefix(b"-").isdigit() else 0


class ReadOnlyPolicy:
    """Commands of the read-only token: reads of named keys, by what COMMAND of this Redis says, and `_KEYLESS_READS`.

    Commands that walk the keyspace (KEYS, SCAN, CLUSTERSCAN, …) and scripts (EVAL_RO, FCALL_RO, …) are not among them.
    The others are bounded, so that no single one keeps Redis from other requests for long.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._allowed: frozenset[bytes] = frozenset()
        self._combining: frozenset[bytes] = frozenset()
        self._generation = -1
        self._lock = asyncio.Lock()

    async def check(self, command: Sequence[bytes]) -> None:
        """Raise `CommandRejected` (NOPERM), or `RedisUnavailable` if the list of commands cannot be read."""
        # A new connection may lead to a restarted Redis of another version, with other commands.
        if self._generation != self._pool.generation:
            await self._load()
        name = command[0].upper()
        subcommand = name + b"|" + command[1].upper() if len(command) > 1 else name
        if name not in self._allowed and subcommand not in self._allowed:
            raise no_permission(name)
        if excess := _excess(command, name in self._combining):
            raise CommandRejected(f"NOPERM the read-only token may not run '{_printable(name.lower())}' with {excess}")

    async def _load(self) -> None:
        async with self._lock:
            if self._generation == self._pool.generation:
                return  # another request has loaded the list while this one waited for the lock
            [table] = await self._pool.execute(_COMMAND, 1)
            if isinstance(table, ErrorReply):
                raise CommandRejected(str(table))
            self._allowed = (frozenset(_reads_of_keys(table)) | _KEYLESS_READS) - _BOUNDLESS_READS
            self._combining = frozenset(row[0].upper() for row in table if _combines_keys(row))
            self._generation = self._pool.generation


def _reads_of_keys(table: list[RespReply]) -> list[bytes]:
    """Return the names of commands that read the keys that they name, in upper case, as `COMMAND|SUBCOMMAND` too.

    `table` is the reply to COMMAND: in each row, index 0 is the name, 2 the flags, 3 the position of the first key, 6
    the ACL categories, 8 the key specifications, 9 the rows of the subcommands.
    """
    names: list[bytes] = []
    for row in table:
        # A script may call everything that reads, KEYS and SCAN included, and may run for as long as it likes.
        if b"readonly" in row[2] and b"@scripting" not in row[6] and _names_keys(row):
            names.append(row[0].upper())
        if len(row) > 9 and row[9]:
            names.extend(_reads_of_keys(row[9]))
    return names


def _names_keys(row: list[RespReply]) -> bool:
    """Return True if a command has arguments that are keys, and none that only decides about a slot (`not_key`)."""
    if len(row) <= 8:  # Redis before 7 has no key specifications
        return bool(row[3]) or b"movablekeys" in row[2]
    flags = [dict(zip(spec[::2], spec[1::2], strict=True)).get(b"flags", []) for spec in row[8]]
    return bool(flags) and not any(b"not_key" in each for each in flags)


def _combines_keys(row: list[RespReply]) -> bool:
    """Return True if a command may name several keys, and does more with each than look it up."""
    # Redis calls a command fast if its time does not grow with the keys. Index 4 is the position of the last key. A key
    # of PFCOUNT has 12 KB at most: a year of daily counts takes less than a millisecond.
    names_several = row[3] != row[4] or b"movablekeys" in row[2]
    return b"fast" not in row[2] and names_several and row[0] != b"pfcount"
