"""Death of a worker at a chosen write: its connection to Redis stops there, before or after the write is executed."""

import asyncio
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from infra.contract.errors import StoreUnavailable
from infra.contract.redis import Argument, Redis, Reply, Script
from tests.agent_runs.site import AgentSite
from tests.worker.rig import Identity

When: TypeAlias = Literal["before", "after"]
_ENDS = ("finish", "wait", "release")


def written(script: str, args: Sequence[Argument]) -> list[str]:
    """Return the journal keys that a call writes, and the name of the script if the call takes the run away."""
    keys = [str(arg).removeprefix("journal:") for arg in args if str(arg).startswith("journal:")]
    return [*keys, script] if script in _ENDS else keys


class Deadly:
    """Redis of a worker that dies at the first write of `key`. Without a key, it only notes the keys of all writes."""

    def __init__(self, inner: Redis, key: str = "", when: When = "before") -> None:
        self._inner = inner
        self._key = key
        self._when = when
        self.dead = asyncio.Event()
        self.buried = asyncio.Event()
        """Set by the test before it cancels the tasks of the worker, whose last calls would never end."""
        self.written: list[str] = []

    async def command(self, *args: Argument) -> Reply:
        await self._stop_if_dead()
        return await self._inner.command(*args)

    async def pipeline(self, commands: Sequence[Sequence[Argument]]) -> list[Reply]:
        await self._stop_if_dead()
        return await self._inner.pipeline(commands)

    async def script(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Reply:
        await self._stop_if_dead()
        found = written(script.name, args)
        self.written += found
        hit = self._key in found
        if hit and self._when == "before":
            self.dead.set()
        await self._stop_if_dead()
        reply = await self._inner.script(script, keys, args)
        if hit:
            self.dead.set()
        await self._stop_if_dead()
        return reply

    async def _stop_if_dead(self) -> None:
        if self.dead.is_set():
            await self.buried.wait()
            raise StoreUnavailable("the worker is dead")


class Mortal:
    """Worker that dies at the first write of `key`, or when `dies_now` is called; `heir` continues its runs.

    The death of a worker of this process stops all of them, so that only one may live at a time.
    """

    def __init__(
        self, site: AgentSite, key: str = "", when: When = "before", *, dead: str = "", **options: Any
    ) -> None:
        self._site = site
        self._options = options
        self._identity = Identity(dead) if dead else Identity()
        self._made: list[Deadly] = []
        self.worker = site.worker(
            identity=self._identity, around=lambda redis: self._connection(redis, key, when), **options
        )

    @property
    def dead(self) -> asyncio.Event:
        """Set at the deadly write."""
        return self._made[0].dead

    def _connection(self, redis: Redis, key: str, when: When) -> Deadly:
        self._made.append(Deadly(redis, key, when))
        return self._made[-1]

    async def dies(self) -> None:
        """Return once the worker has met its write, and is gone."""
        await asyncio.wait_for(self.dead.wait(), 30)
        await self.dies_now()

    async def dies_now(self) -> None:
        """End the worker as `kill -9` does."""
        for each in self._made:
            each.dead.set()
            each.buried.set()
        await self.worker.killed()

    def heir(self) -> "Mortal":
        """Start the next worker of this host, which knows that this one is dead."""
        return Mortal(self._site, dead=self._identity.process, **self._options)
