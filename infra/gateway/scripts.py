"""Scripts written for Upstash: drop script flags that only Upstash knows, and translate the digests of such scripts.

The clients of Upstash begin scripts with `#!lua flags=allow-key-locking`, a flag that Redis rejects. A client names a
script by the SHA-1 digest of the text that it has sent, and Redis by the digest of the text that it has received.
Functions of a library have the flag in a table: `flags={'no-writes', 'allow-key-locking'}`.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict

from infra.gateway.commands import Command
from infra.gateway.resp import RespReply

UPSTASH_FLAGS = frozenset({b"allow-key-locking"})
"""Hints about locks, without a meaning for Redis."""

MAX_DIGESTS = 10_000
"""Scripts whose digests are remembered, 300 bytes each. For an older one Redis answers NOSCRIPT, and clients send the
script again."""

_FLAGS_OF_FUNCTION = re.compile(rb"\bflags\s*=\s*\{[^{}]*\}")
# With the separator after the flag. The one before it may stay: `{'no-writes', }` is correct Lua.
_FLAG_OF_FUNCTION = re.compile(rb"""(["'])(?:%b)\1\s*[,;]?""" % b"|".join(UPSTASH_FLAGS))

_MAX_FIRST_LINE = 1000
_EVAL = frozenset({b"EVAL", b"EVAL_RO"})
_EVALSHA = frozenset({b"EVALSHA", b"EVALSHA_RO"})
_OF_DIGESTS = frozenset({b"EXISTS", b"SHOW"})


class ScriptTranslator:
    """Translates commands with scripts. Digests are remembered per process: another one answers NOSCRIPT at first."""

    def __init__(self) -> None:
        self._digests: OrderedDict[bytes, bytes] = OrderedDict()

    def translate(self, command: Command) -> Command:
        """Return the command for Redis: the same object, unless it has a script with flags of Upstash or its digest."""
        if command[0][:1] not in b"EeFfSs":  # most commands end here
            return command
        name = command[0].upper()
        if name in _EVAL and len(command) > 1:
            return self._with_script(command, 1)
        if name == b"FUNCTION" and len(command) > 2 and command[1].upper() == b"LOAD":
            return [*command[:-1], _FLAGS_OF_FUNCTION.sub(_without_function_flags, command[-1])]
        if name in _EVALSHA and self._digests and len(command) > 1:
            return [command[0], self._digest(command[1]), *command[2:]]
        if name == b"SCRIPT" and len(command) > 2:
            subcommand = command[1].upper()
            if subcommand == b"LOAD":
                return self._with_script(command, 2)
            if subcommand in _OF_DIGESTS and self._digests:
                return [*command[:2], *map(self._digest, command[2:])]
        return command

    def translate_reply(self, command: Command, reply: RespReply) -> RespReply:
        """Return the reply for the client to the command that it sent. SCRIPT LOAD replies the digest of its script."""
        if self._digests and len(command) == 3 and command[0].upper() == b"SCRIPT" and command[1].upper() == b"LOAD":
            digest = _sha1(command[2])
            received = self._digests.get(digest)
            if received is not None and isinstance(reply, bytes):
                return reply.replace(received, digest)  # of the raw reply to SCRIPT LOAD only a part is the digest
        return reply

    def _with_script(self, command: Command, position: int) -> Command:
        script = command[position]
        translated = without_upstash_flags(script)
        if translated is script:
            return command
        digest = _sha1(script)
        self._digests[digest] = _sha1(translated)
        self._digests.move_to_end(digest)
        if len(self._digests) > MAX_DIGESTS:
            self._digests.popitem(last=False)
        return [*command[:position], translated, *command[position + 1 :]]

    def _digest(self, digest: bytes) -> bytes:
        return self._digests.get(digest.lower(), digest)


def without_upstash_flags(script: bytes) -> bytes:
    """Return the script without the flags of Upstash in its first line; the same object if it has none."""
    if not script.startswith(b"#!"):
        return script
    end = script.find(b"\n", 0, _MAX_FIRST_LINE)
    first_line = script[:end] if end >= 0 else script[:_MAX_FIRST_LINE]
    words = first_line.split()
    kept = [each for each in map(_without_flags, words) if each is not None]
    if kept == words:
        return script
    # Without flags the first line would still change how Redis runs the script: EVAL_RO, for one, would reject it. The
    # line end stays, so that the line numbers in errors do.
    return (b" ".join(kept) if len(kept) > 1 else b"") + script[len(first_line) :]


def _without_flags(word: bytes) -> bytes | None:
    """Return a word of the first line without the flags of Upstash, None if it has no others."""
    option, separator, value = word.partition(b"=")
    if option != b"flags" or not separator:
        return word
    flags = value.split(b",")
    kept = [flag for flag in flags if flag not in UPSTASH_FLAGS]
    # Without a change the word stays as it is, so that Redis rejects what it would reject.
    return word if kept == flags else option + separator + b",".join(kept) if kept else None


def _without_function_flags(flags: re.Match[bytes]) -> bytes:
    return _FLAG_OF_FUNCTION.sub(b"", flags[0])


def _sha1(text: bytes) -> bytes:
    return hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()
