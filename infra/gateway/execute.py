"""Execute the commands of one request: check the policy, translate scripts, send, and bound the replies."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from infra.gateway.commands import Command
from infra.gateway.encoding import resp2_error
from infra.gateway.errors import (
    CommandRejected,
    GatewayError,
    OutcomeUnknown,
    RedisUnavailable,
    ResponseTooLarge,
)
from infra.gateway.memory import MemoryShare
from infra.gateway.pacing import PACED_COMMANDS, Pacer
from infra.gateway.policy import ReadOnlyPolicy, check
from infra.gateway.pool import Pool
from infra.gateway.replies import Replies, RepliesTooLarge, ReplyTooDeep
from infra.gateway.resp import ErrorReply, RespReply, pack
from infra.gateway.scripts import ScriptTranslator
from infra.logging import log

_MULTI = pack((b"MULTI",))
_EXEC = pack((b"EXEC",))
_DISCARDED = "EXECABORT Transaction discarded because of previous errors."
_NOT_SENT = "ERR an earlier command of the pipeline got no reply; the command was not sent"

_MAY_HAVE_RUN = "the command may have been executed"

_WINDOW_COMMANDS = 128
"""Commands of a pipeline that are sent together. Redis stores the replies to all commands that it has received, so a
smaller window bounds its memory, and what has run when replies are too large."""

_PACK_ARGUMENTS = 1000

_FRAMING_BYTES = 64 * 1024
_FRAMING_BYTES_PER_COMMAND = 16
"""Added to the limit of replies for lengths, line ends and `+QUEUED`: a value that a request may store can be read."""


@dataclass(frozen=True)
class Caller:
    """Token, pace and memory of the request that a command belongs to."""

    readonly: bool
    pacer: Pacer
    share: MemoryShare


class CommandExecutor:
    """Runs single commands, pipelines and transactions. `raw_pool` returns the bytes of replies undecoded."""

    def __init__(self, pool: Pool, raw_pool: Pool, max_response_bytes: int) -> None:
        self._pool = pool
        self._raw_pool = raw_pool
        self._max_response_bytes = max_response_bytes
        self._readonly = ReadOnlyPolicy(pool)
        self._scripts = ScriptTranslator()

    async def ping(self) -> RespReply:
        """Return the reply to PING. Raises `RedisUnavailable`."""
        [reply] = await self._pool.execute(pack((b"PING",)), 1)
        return reply

    async def single(self, command: Command, caller: Caller) -> Replies:
        """Return the one reply, which may be an error of Redis.

        Raises `CommandRejected`, `ResponseTooLarge` or `RedisUnavailable`.
        """
        return await self._single(self._pool, command, caller)

    async def single_raw(self, command: Command, caller: Caller) -> bytes:
        """Return the bytes of the reply. Raises what `single` raises."""
        [reply] = await self._single(self._raw_pool, command, caller)
        return bytes(reply)

    async def pipeline(self, commands: Sequence[Command], caller: Caller) -> Replies:
        """Return a reply for each command, an `ErrorReply` for each that was rejected or whose reply was lost.

        Raises `RedisUnavailable` only if no command at all got a reply.
        """
        return await self._pipeline(self._pool, commands, caller)

    async def pipeline_raw(self, commands: Sequence[Command], caller: Caller) -> list[bytes]:
        """Return the bytes of each reply, an error for each command without one. Raises `RedisUnavailable`."""
        replies = await self._pipeline(self._raw_pool, commands, caller)
        return [resp2_error(str(reply)) if isinstance(reply, ErrorReply) else reply for reply in replies]

    async def transaction(self, commands: Sequence[Command], caller: Caller) -> Replies:
        """Run all commands or none; return their replies.

        Raises `CommandRejected` (EXECABORT, with the first reason), `ResponseTooLarge` or `RedisUnavailable`.
        """
        for rejection in await self._rejections(commands, caller):
            if rejection is not None:
                raise CommandRejected(f"{_DISCARDED} {rejection}")
        packed = [_MULTI, *await self._pack_all(commands, caller), _EXEC]
        try:
            received = await self._pool.execute(b"".join(packed), len(packed), self._limit(len(packed)), caller.share)
        except RepliesTooLarge as exc:
            raise self._too_large(exc) from exc
        caller.pacer.restart()
        *queued, result = received
        if isinstance(result, ErrorReply):
            reasons = [str(reply) for reply in queued if isinstance(reply, ErrorReply)]
            if isinstance(queued[0], ErrorReply):  # the reply to MULTI: an ACL may forbid it
                reasons[0] += f"; {_MAY_HAVE_RUN}"
            raise CommandRejected(" ".join([str(result), *reasons[:1]]))
        replies = Replies(self._scripts.translate_reply(*pair) for pair in zip(commands, result, strict=True))
        replies.size = received.size
        return replies

    async def _single(self, pool: Pool, command: Command, caller: Caller) -> Replies:
        check(command)
        if caller.readonly:
            await self._readonly.check(command)
        translated = self._scripts.translate(command)
        large = len(translated) > _PACK_ARGUMENTS
        payload = await _pack_large(translated, caller.pacer) if large else pack(translated)
        try:
            replies = await pool.execute(payload, 1, self._limit(1), caller.share)
        except RepliesTooLarge as exc:
            raise self._too_large(exc) from exc
        caller.pacer.restart()
        replies[0] = self._scripts.translate_reply(command, replies[0])
        return replies

    async def _pipeline(self, pool: Pool, commands: Sequence[Command], caller: Caller) -> Replies:
        replies = await self._rejections(commands, caller)
        allowed = [index for index, rejection in enumerate(replies) if rejection is None]
        left = self._limit(len(commands))
        answered = 0
        for start in range(0, len(allowed), _WINDOW_COMMANDS):
            window = allowed[start : start + _WINDOW_COMMANDS]
            if answered:
                await caller.pacer.pause()  # a client that has left gets no more commands executed
            packed = await self._pack_all([commands[index] for index in window], caller)
            received: Replies | list[object]
            lost, unsent = "", _NOT_SENT
            try:
                received = await pool.execute(b"".join(packed), len(packed), left, caller.share)
                left -= received.size
            except RepliesTooLarge as exc:
                received, lost = exc.replies, self._too_large(exc).text
                unsent = lost.replace(_MAY_HAVE_RUN, "the command was not sent")
            except RedisUnavailable as exc:
                # Keep the replies received before the connection broke, so that only others have an unknown outcome.
                received, lost = (exc.replies if isinstance(exc, OutcomeUnknown) else []), exc.text
                if not received and not answered:
                    raise
            replies.size += received.size if isinstance(received, Replies) else 0
            for index, reply in zip(window, received, strict=False):
                replies[index] = self._scripts.translate_reply(commands[index], reply)
            answered += len(window)
            caller.pacer.restart()
            if lost:
                for index in window[len(received) :]:
                    replies[index] = ErrorReply(lost)
                for index in allowed[answered:]:
                    replies[index] = ErrorReply(unsent)
                break
        return replies

    def _limit(self, commands: int) -> int:
        return self._max_response_bytes + _FRAMING_BYTES + _FRAMING_BYTES_PER_COMMAND * commands

    def _too_large(self, exc: RepliesTooLarge) -> ResponseTooLarge:
        limit = f"{self._max_response_bytes} bytes in the replies to one request (GATEWAY_MAX_RESPONSE_BYTES)"
        text = f"ERR max request size exceeded. Limit: {limit}"
        if isinstance(exc, ReplyTooDeep):
            text = "ERR the reply is nested too deeply"
        log("gateway.limit_exceeded", level=logging.WARNING, reason=text)
        return ResponseTooLarge(f"{text}; {_MAY_HAVE_RUN}")

    async def _pack_all(self, commands: Sequence[Command], caller: Caller) -> list[bytes]:
        """Encode commands for the wire, in slices if they are many or large."""
        packed: list[bytes] = []
        for number, command in enumerate(commands, 1):
            translated = self._scripts.translate(command)
            if len(translated) <= _PACK_ARGUMENTS:
                packed.append(pack(translated))
            else:
                packed.append(await _pack_large(translated, caller.pacer))
            if number % PACED_COMMANDS == 0 and caller.pacer.due:
                await caller.pacer.pause()
        return packed

    async def _rejections(self, commands: Sequence[Command], caller: Caller) -> Replies:
        """Return an `ErrorReply` for each rejected command, None for each allowed one. Raises `RedisUnavailable`."""
        rejections = Replies()
        for number, command in enumerate(commands, 1):
            try:
                check(command)
                if caller.readonly:
                    await self._readonly.check(command)
            except RedisUnavailable:
                raise
            except GatewayError as exc:
                rejections.append(ErrorReply(exc.text))
            else:
                rejections.append(None)
            if number % PACED_COMMANDS == 0 and caller.pacer.due:
                await caller.pacer.pause()
        return rejections


async def _pack_large(command: Command, pacer: Pacer) -> bytes:
    """Encode a command of many arguments."""
    packed = [b"*%d\r\n" % len(command)]
    for start in range(0, len(command), _PACK_ARGUMENTS):
        some = pack(command[start : start + _PACK_ARGUMENTS])
        packed.append(some[some.index(b"\n") + 1 :])
        if pacer.due:
            await pacer.pause()
    return b"".join(packed)
