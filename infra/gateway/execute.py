"""Runs commands for one request: policy first, then one write to Redis."""

from __future__ import annotations

from collections.abc import Sequence

from infra.gateway.commands import Command
from infra.gateway.encoding import resp2_error
from infra.gateway.errors import GatewayError, OutcomeUnknown, RedisUnavailable, Refused
from infra.gateway.policy import ReadOnlyPolicy, check
from infra.gateway.pool import Pool
from infra.gateway.resp import ErrorReply, Reply, pack

_MULTI = pack((b"MULTI",))
_EXEC = pack((b"EXEC",))
_DISCARDED = "EXECABORT Transaction discarded because of previous errors."


class Executor:
    def __init__(self, pool: Pool, raw_pool: Pool) -> None:
        self._pool = pool
        self._raw_pool = raw_pool
        self._readonly = ReadOnlyPolicy(pool)

    async def one(self, command: Command, readonly: bool) -> Reply:
        """Raises `Refused` or `RedisUnavailable`; an error of Redis is a reply."""
        await self._permit(command, readonly)
        [reply] = await self._pool.execute(pack(command), 1)
        return reply

    async def pipeline(self, commands: Sequence[Command], readonly: bool) -> list[Reply]:
        """A reply for each command, an `ErrorReply` for each that was refused or lost.

        Raises `RedisUnavailable` only when no command at all was answered.
        """
        replies = await self._refusals(commands, readonly)
        open_places = [place for place, reply in enumerate(replies) if reply is None]
        if not open_places:
            return replies
        lost: Reply = None
        try:
            answers = await self._pool.execute(b"".join(pack(commands[p]) for p in open_places), len(open_places))
        except OutcomeUnknown as exc:
            if not exc.replies:
                raise
            answers, lost = exc.replies, ErrorReply(exc.text)
        for place, answer in zip(open_places, answers, strict=False):
            replies[place] = answer
        for place in open_places[len(answers) :]:
            replies[place] = lost
        return replies

    async def transaction(self, commands: Sequence[Command], readonly: bool) -> list[Reply]:
        """All or nothing. Raises `Refused` (EXECABORT, with the first reason) or `RedisUnavailable`."""
        for refusal in await self._refusals(commands, readonly):
            if refusal is not None:
                raise Refused(f"{_DISCARDED} {refusal}")
        payload = b"".join((_MULTI, *map(pack, commands), _EXEC))
        *queued, result = await self._pool.execute(payload, len(commands) + 2)
        if isinstance(result, ErrorReply):
            reasons = [str(reply) for reply in queued if isinstance(reply, ErrorReply)]
            raise Refused(" ".join([str(result), *reasons[:1]]))
        return list(result)

    async def one_raw(self, command: Command, readonly: bool) -> bytes:
        """The reply's own bytes. Raises `Refused` or `RedisUnavailable`."""
        await self._permit(command, readonly)
        [reply] = await self._raw_pool.execute(pack(command), 1)
        return bytes(reply)

    async def pipeline_raw(self, commands: Sequence[Command], readonly: bool) -> bytes:
        refusals = await self._refusals(commands, readonly)
        allowed = [pack(command) for command, refusal in zip(commands, refusals, strict=True) if refusal is None]
        answers = iter(await self._raw_pool.execute(b"".join(allowed), len(allowed)) if allowed else [])
        return b"".join(next(answers) if refusal is None else resp2_error(str(refusal)) for refusal in refusals)

    async def _permit(self, command: Command, readonly: bool) -> None:
        check(command)
        if readonly:
            await self._readonly.check(command)

    async def _refusals(self, commands: Sequence[Command], readonly: bool) -> list[Reply]:
        refusals: list[Reply] = []
        for command in commands:
            try:
                await self._permit(command, readonly)
            except RedisUnavailable:
                raise
            except GatewayError as exc:
                refusals.append(ErrorReply(exc.text))
            else:
                refusals.append(None)
        return refusals
