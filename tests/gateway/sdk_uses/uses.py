"""Documented uses of the public Python clients; run by `tests.gateway.public_sdks` in an environment of its own."""

import asyncio
import sys
from collections.abc import Callable
from typing import Any

from upstash_ratelimit import FixedWindow, Ratelimit, SlidingWindow, TokenBucket  # type: ignore[import-not-found]
from upstash_redis import Redis
from upstash_redis.asyncio import Redis as AsyncRedis

redis: Any = Redis.from_env()


def values_of_any_text() -> None:
    """Store and read texts, `OK` among them."""
    for value in ("OK", "é😀", "x" * 100_000):
        redis.set("text", value)
        assert redis.get("text") == value
        redis.hset("hash", "field", value)
        assert redis.hgetall("hash") == {"field": value}
        assert redis.mget("text", "none") == [value, None]


def pipeline_and_transaction() -> None:
    """Send batches."""
    for batch in (redis.pipeline(), redis.multi()):
        batch.set("n", 1)
        batch.incr("n")
        batch.lpush("list", "OK")
        batch.lrange("list", 0, 0)
        assert batch.exec()[1::2] == [2, ["OK"]]


def asynchronous_client() -> None:
    """Send commands at the same time."""

    async def use() -> None:
        async with AsyncRedis.from_env() as client:
            await client.set("large", "x" * 500_000)
            found = await asyncio.gather(*(client.get("large") for _ in range(40)))
            assert found == ["x" * 500_000] * 40

    asyncio.run(use())


def script_by_digest() -> None:
    """Load a script with a flag of Upstash, and run it by its digest."""
    digest = redis.script_load("#!lua flags=allow-key-locking\nreturn ARGV[1]")
    assert redis.evalsha(digest, args=["x"]) == "x"


def limiter(algorithm: Any) -> Callable[[], None]:
    """Return a use of one algorithm of the rate limiter."""

    def use() -> None:
        limited = Ratelimit(redis=redis, limiter=algorithm, prefix=type(algorithm).__name__)
        assert [limited.limit("user").allowed for _ in range(4)] == [True, True, True, False]
        assert limited.get_remaining("user") == 0

    use.__name__ = type(algorithm).__name__
    return use


USES = [values_of_any_text, pipeline_and_transaction, asynchronous_client, script_by_digest]
LIMITERS = [
    FixedWindow(max_requests=3, window=600),
    SlidingWindow(max_requests=3, window=600),
    TokenBucket(max_tokens=3, refill_rate=1, interval=600),
]

failed = False
for each in [*USES, *map(limiter, LIMITERS)]:
    try:
        each()
        outcome = "ok"
    except Exception as exc:
        failed, outcome = True, f"FAILED: {exc!r}"
    sys.stdout.write(f"python {each.__name__}: {outcome}\n")
sys.exit(failed)
