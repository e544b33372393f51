"""Number of commands that a Redis server has executed, inside scripts too."""

import asyncio
from collections import Counter

from infra.contract.redis import Redis
from tests.support.waiting import until

UNBILLED = {"auth", "hello", "select", "command", "config", "info", "ping", "reset", "quit", "client"}
"""Commands that Upstash does not bill, each with its subcommands."""


async def billed_commands(redis: Redis) -> Counter[str]:
    """Count the executions of each command that Upstash would bill since the start of the server."""
    lines = str(await redis.command("INFO", "commandstats")).splitlines()
    rows = [line.removeprefix("cmdstat_").split(":") for line in lines if line.startswith("cmdstat_")]
    # A row: get:calls=3,usec=12,usec_per_call=4.00,... ; a subcommand: config|get:calls=1,...
    counts = {name: int(fields.split(",")[0].removeprefix("calls=")) for name, fields in rows}
    return Counter({name: count for name, count in counts.items() if name.split("|")[0] not in UNBILLED})


async def settled_commands(redis: Redis) -> Counter[str]:
    """Return the counts once no command has been executed for half a second."""

    async def quiet() -> bool:
        before = await billed_commands(redis)
        await asyncio.sleep(0.5)
        return await billed_commands(redis) == before

    await until(quiet, "no command is sent for half a second")
    return await billed_commands(redis)
