"""Execute the commands of one request: check the policy, then send all commands to Redis in one write."""

from __future__ import annotations

from collections.abc import Sequence

from infra.gateway.commands import Command
from infra.gateway.encoding import resp2_error
from infra.gateway.errors import CommandRejected, GatewayError, OutcomeUnknown, RedisUnavailable
from infra.gateway.policy import ReadOnlyPolicy, check
from infra.gateway.pool import Pool
from infra.gateway.resp import ErrorReply, RespReply, pack

_MULTI = pack((b"MULTI",))
_EXEC = pack((b"EXEC",))
_DISCARDED = "EXECABORT Transaction discarded because of previous errors."


class CommandExecutor:
    """Runs single commands, pipelines and transactions. `raw_pool` returns the bytes of replies undecoded."""

    def __init__(self, pool: Pool, raw_pool: Pool) -> None:
        self._pool = pool
        self._raw_pool = raw_pool
        self._readonly = ReadOnlyPolicy(pool)

    async def single(self, command: Command, readonly: bool) -> RespReply:
        """Return the reply, which may be an error of Redis. Raises `CommandRejected` or `RedisUnavailable`."""
        await self._check(command, readonly)
        [reply] = await self._pool.execute(pack(command), 1)
        return reply

    async def pipeline(self, commands: Sequence[Command], readonly: bool) -> list[RespReply]:
        """Return a reply for each command, an `ErrorReply` for each that was rejected or whose reply was lost.

        Raises `RedisUnavailable` only if no command at all got a reply.
        """
        replies = await self._rejections(commands, readonly)
        allowed = [index for index, rejection in enumerate(replies) if rejection is None]
        if not allowed:
            return replies
        lost: RespReply = None
        try:
            received = await self._pool.execute(b"".join(pack(commands[index]) for index in allowed), len(allowed))
        except OutcomeUnknown as exc:
            if not exc.replies:
                raise
            # Keep the replies received before the connection broke, so that only the others have an unknown outcome.
            received, lost = exc.replies, ErrorReply(exc.text)
        for index, reply in zip(allowed, received, strict=False):
            replies[index] = reply
        for index in allowed[len(received) :]:
            replies[index] = lost
        return replies

    async def transaction(self, commands: Sequence[Command], readonly: bool) -> list[RespReply]:
        """Run all commands or none; return their replies.

        Raises `CommandRejected` (EXECABORT, with the first reason) or `RedisUnavailable`.
        """
        for rejection in await self._rejections(commands, readonly):
            if rejection is not None:
                raise CommandRejected(f"{_DISCARDED} {rejection}")
        payload = b"".join((_MULTI, *map(pack, commands), _EXEC))
        *queued, result = await self._pool.execute(payload, len(commands) + 2)
        if isinstance(result, ErrorReply):
            reasons = [str(reply) for reply in queued if isinstance(reply, ErrorReply)]
            raise CommandRejected(" ".join([str(result), *reasons[:1]]))
        return list(result)

    async def single_raw(self, command: Command, readonly: bool) -> bytes:
        """Return the bytes of the reply. Raises `CommandRejected` or `RedisUnavailable`."""
        await self._check(command, readonly)
        [reply] = await self._raw_pool.execute(pack(command), 1)
        return bytes(reply)

    async def pipeline_raw(self, commands: Sequence[Command], readonly: bool) -> bytes:
        """Return the bytes of all replies, an error for each rejected command. Raises `RedisUnavailable`."""
        rejections = await self._rejections(commands, readonly)
        allowed = [pack(command) for command, rejection in zip(commands, rejections, strict=True) if rejection is None]
        received = iter(await self._raw_pool.execute(b"".join(allowed), len(allowed)) if allowed else [])
        return b"".join(next(received) if each is None else resp2_error(str(each)) for each in rejections)

    async def _check(self, command: Command, readonly: bool) -> None:
        check(command)
        if readonly:
            await self._readonly.check(command)

    async def _rejections(self, commands: Sequence[Command], readonly: bool) -> list[RespReply]:
        """Return an `ErrorReply` for each rejected command, None for each allowed one. Raises `RedisUnavailable`."""
        rejections: list[RespReply] = []
        for command in commands:
            try:
                await self._check(command, readonly)
            except RedisUnavailable:
                raise
            except GatewayError as exc:
                rejections.append(ErrorReply(exc.text))
            else:
                rejections.append(None)
        return rejections
