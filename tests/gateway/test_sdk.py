"""Public `upstash-redis` client against the gateway: every group of commands that the client offers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from upstash_redis import Redis
from upstash_redis.asyncio import Redis as AsyncRedis
from upstash_redis.errors import UpstashError

from tests.gateway.support import READONLY_TOKEN, TOKEN, Served


@pytest.fixture(params=["base64", None])
def sdk(served: Served, request: pytest.FixtureRequest) -> Iterator[Redis]:
    with Redis(served.url, TOKEN, rest_encoding=request.param, rest_retries=0) as client:
        yield client


@pytest.fixture
async def async_sdk(served: Served) -> AsyncIterator[AsyncRedis]:
    async with AsyncRedis(served.url, TOKEN, rest_retries=0) as client:
        yield client


def test_sdk_string_commands_work(sdk: Any) -> None:
    assert sdk.set("k", "OK") is True
    assert sdk.get("k") == "OK"
    assert sdk.set("k", "v", nx=True) is False
    assert sdk.set("k", "v", get=True, ex=100) == "OK"
    assert sdk.append("k", "é😀") == 7
    assert sdk.get("k") == "vé😀"
    assert sdk.getrange("k", 0, 0) == "v"
    assert sdk.mset({"a": 1, "b": 2.5}) is True
    assert sdk.mget("a", "b", "none") == ["1", "2.5", None]
    assert sdk.incrbyfloat("b", 0.25) == 2.75
    assert sdk.incr("a") == 2
    assert sdk.decrby("a", 5) == -3
    assert sdk.setrange("k", 0, "w") == 7
    assert sdk.getdel("k") == "wé😀"
    assert sdk.get("k") is None
    assert sdk.msetnx({"a": 1, "c": 1}) is False
    assert sdk.setex("e", 10, "x") is True
    assert sdk.getex("e", persist=True) == "x"
    assert sdk.ttl("e") == -1
    assert sdk.set("true", True) is True
    assert sdk.get("true") == "true"
    assert sdk.set("json", {"a": [1, None]}) is True
    assert sdk.get("json") == '{"a": [1, null]}'


def test_sdk_key_commands_work(sdk: Any) -> None:
    sdk.mset({"a": 1, "b": 2})
    assert sdk.copy("a", "c") is True
    assert sdk.exists("a", "b", "none") == 2
    assert sdk.expire("a", 100) is True
    assert sdk.expireat("b", int(time.time()) + 100) is True
    assert 0 < sdk.pttl("a") <= 100_000
    assert sdk.persist("a") is True
    assert sdk.rename("c", "d") is True
    assert sdk.renamenx("d", "a") is False
    assert sdk.type("a") == "string"
    assert sdk.touch("a", "none") == 1
    assert sorted(sdk.keys("*")) == ["a", "b", "d"]
    assert sdk.randomkey() in ("a", "b", "d")
    cursor, found = sdk.scan(0, match="*", count=100)
    assert (cursor, sorted(found)) == (0, ["a", "b", "d"])
    assert sdk.unlink("a") == 1
    assert sdk.delete("b", "d") == 2


def test_sdk_hash_commands_work(sdk: Any) -> None:
    assert sdk.hset("h", "a", 1) == 1
    assert sdk.hset("h", values={"b": "x", "c": 2.5}) == 2
    assert sdk.hgetall("h") == {"a": "1", "b": "x", "c": "2.5"}
    assert sdk.hmget("h", "a", "none") == ["1", None]
    assert sdk.hexists("h", "a") is True
    assert sdk.hincrby("h", "a", 2) == 3
    assert sdk.hincrbyfloat("h", "c", 0.5) == 3.0
    assert sdk.hsetnx("h", "a", 1) is False
    assert sdk.hscan("h", 0) == (0, {"a": "3", "b": "x", "c": "3"})
    assert set(sdk.hrandfield("h", 3, withvalues=True)) == {"a", "b", "c"}
    assert sdk.hexpire("h", "a", 100) == [1]
    assert sdk.httl("h", ["a", "b"]) == [100, -1]
    assert sdk.hstrlen("h", "b") == 1
    assert sdk.hdel("h", "a", "b") == 2
    assert sdk.hgetall("none") == {}


def test_sdk_list_commands_work(sdk: Any) -> None:
    assert sdk.rpush("l", "a", "b", "c", "b") == 4
    assert sdk.lrange("l", 0, -1) == ["a", "b", "c", "b"]
    assert sdk.linsert("l", "BEFORE", "b", "x") == 5
    assert sdk.lpos("l", "b", count=0) == [2, 4]
    assert sdk.lrem("l", 1, "b") == 1
    assert sdk.lset("l", 0, "A") is True
    assert sdk.lmove("l", "m") == "A"
    assert sdk.lpop("l", 2) == ["x", "c"]
    assert sdk.rpop("l") == "b"
    assert sdk.lpop("l") is None
    assert sdk.lpushx("none", "a") == 0
    assert sdk.llen("m") == 1


def test_sdk_set_commands_work(sdk: Any) -> None:
    assert sdk.sadd("s", "a", "b", "c") == 3
    assert sdk.sismember("s", "a") is True
    assert sdk.smismember("s", "a", "z") == [True, False]
    sdk.sadd("t", "b")
    assert sdk.sinter("s", "t") == ["b"]
    assert sdk.sdiffstore("d", "s", "t") == 2
    assert sorted(sdk.sunion("d", "t")) == ["a", "b", "c"]
    assert sdk.smove("s", "t", "a") is True
    assert sdk.sscan("d", 0)[0] == 0
    assert sdk.spop("t", 5) is not None
    assert sdk.srandmember("none") is None
    assert sdk.smembers("none") == []


def test_sdk_sorted_set_commands_work(sdk: Any) -> None:
    assert sdk.zadd("z", {"a": 1, "b": 2.5, "c": 10}) == 3
    assert sdk.zadd("z", {"a": 1}, incr=True) == 2.0
    assert sdk.zrange("z", 0, -1, withscores=True) == [("a", 2.0), ("b", 2.5), ("c", 10.0)]
    assert sdk.zrange("z", "-inf", "(10", sortby="BYSCORE", rev=False) == ["a", "b"]
    assert sdk.zscore("z", "none") is None
    assert sdk.zmscore("z", ["a", "none"]) == [2.0, None]
    assert sdk.zincrby("z", 0.5, "a") == 2.5
    assert sdk.zrank("z", "c") == 2
    assert sdk.zcount("z", "-inf", "+inf") == 3
    assert sdk.zscan("z", 0) == (0, [("a", 2.5), ("b", 2.5), ("c", 10.0)])
    assert sdk.zpopmax("z") == [("c", 10.0)]
    sdk.zadd("y", {"a": 1})
    assert sdk.zinter(["z", "y"], withscores=True) == [("a", 3.5)]
    assert sdk.zunionstore("u", ["z", "y"]) == 2
    assert sdk.zremrangebyscore("u", "-inf", "+inf") == 2
    sdk.zadd("inf", {"m": float("1e300")})
    assert sdk.zscore("inf", "m") == 1e300


def test_sdk_geo_bit_and_hyperloglog_commands_work(sdk: Any) -> None:
    assert sdk.geoadd("g", (13.361389, 38.115556, "Palermo"), (15.087269, 37.502669, "Catania")) == 2
    assert sdk.geodist("g", "Palermo", "Catania", "KM") == pytest.approx(166.2742)
    assert sdk.geohash("g", "Palermo") == ["sqc8b49rny0"]
    assert sdk.geopos("g", "none") == [None]
    [near] = sdk.geosearch("g", member="Palermo", unit="KM", radius=10, withdist=True, withhash=True, withcoord=True)
    assert (near.member, near.distance, near.hash) == ("Palermo", 0.0, 3479099956230698)
    assert sdk.georadius("g", 15, 37, 200, "KM") == ["Palermo", "Catania"]
    assert sdk.setbit("b", 7, 1) == 0
    assert sdk.bitcount("b") == 1
    assert sdk.bitop("NOT", "nb", "b") == 1
    assert sdk.bitpos("b", 1) == 7
    assert sdk.bitfield("f").set("u8", 0, 255).incrby("u8", 0, 1).overflow("SAT").incrby("u8", 0, -1).execute() == [
        0,
        0,
        0,
    ]
    assert sdk.bitfield_ro("f").get("u8", 0).execute() == [0]
    assert sdk.pfadd("p", "a", "b") is True
    assert sdk.pfmerge("q", "p") is True
    assert sdk.pfcount("q") == 2


def test_sdk_stream_commands_work(sdk: Any) -> None:
    first = sdk.xadd("s", "*", {"a": 1, "b": "x"})
    second = sdk.xadd("s", "*", {"a": 2})
    assert sdk.xlen("s") == 2
    assert sdk.xrange("s", "-", "+") == [[first, ["a", "1", "b", "x"]], [second, ["a", "2"]]]
    assert sdk.xread({"s": first}) == [["s", [[second, ["a", "2"]]]]]
    assert sdk.xread({"s": "$"}) == []
    assert sdk.xgroup_create("s", "g", "0") == "OK"
    with pytest.raises(UpstashError, match=r"^BUSYGROUP "):
        sdk.xgroup_create("s", "g", "0")
    assert sdk.xreadgroup("g", "c", {"s": ">"}, count=1) == [["s", [[first, ["a", "1", "b", "x"]]]]]
    assert sdk.xpending("s", "g")[0] == 1
    assert sdk.xautoclaim("s", "g", "other", 0, "0")[1] == [[first, ["a", "1", "b", "x"]]]
    assert sdk.xclaim("s", "g", "c", 0, first) == [[first, ["a", "1", "b", "x"]]]
    assert sdk.xack("s", "g", first) == 1
    assert sdk.xinfo_groups("s")[0][:2] == ["name", "g"]
    assert sdk.xtrim("s", maxlen=1, approximate=False) == 1
    assert sdk.xdel("s", second) == 1
    assert sdk.xgroup_destroy("s", "g") == 1


def test_sdk_script_commands_work(sdk: Any) -> None:
    assert sdk.eval("return {KEYS[1], ARGV[1], 3}", ["k"], [1.5]) == ["k", "1.5", 3]
    sha = sdk.script_load("return ARGV[1]")
    assert sdk.evalsha(sha, args=["x"]) == "x"
    assert sdk.evalsha_ro(sha, args=["x"]) == "x"
    assert sdk.eval_ro("return 1") == 1
    assert sdk.script_exists(sha, "0" * 40) == [True, False]
    assert sdk.script_flush("SYNC") is True
    with pytest.raises(UpstashError, match=r"^NOSCRIPT "):
        sdk.evalsha(sha)


def test_sdk_connection_server_and_publish_commands_work(sdk: Any) -> None:
    assert sdk.ping() == "PONG"
    assert sdk.ping("é") == "é"
    assert sdk.echo("x") == "x"
    assert sdk.client_setinfo("lib-name", "upstash") == "OK"
    sdk.set("k", "v")
    assert sdk.dbsize() == 1
    seconds, micros = sdk.time()
    assert abs(seconds - time.time()) < 60
    assert 0 <= micros < 1_000_000
    assert sdk.publish("c", "m") == 0
    assert sdk.flushdb() is True
    assert sdk.flushall(flush_type="ASYNC") is True
    with pytest.raises(UpstashError, match=r"^ERR unknown command 'JSON.SET'"):
        sdk.json.set("k", "$", {})


def test_sdk_batches_return_all_results(sdk: Any) -> None:
    for batch in (sdk.pipeline(), sdk.multi()):
        batch.set("k", "v")
        batch.hset("h", "a", 1)
        batch.hgetall("h")
        batch.get("none")
        assert batch.exec() == [True, 1, {"a": "1"}, None]
        sdk.flushdb()


def test_the_sdk_raises_errors_of_redis_and_of_the_gateway(sdk: Any, served: Served) -> None:
    sdk.set("k", "v")
    with pytest.raises(UpstashError, match=r"^ERR value is not an integer"):
        sdk.incr("k")
    pipeline = sdk.pipeline()
    pipeline.incr("k")
    with pytest.raises(UpstashError, match=r"^ERR value is not an integer"):
        pipeline.exec()
    with Redis(served.url, "wrong") as unauthorized, pytest.raises(UpstashError, match=r"^WRONGPASS "):
        unauthorized.get("k")
    with Redis(served.url, READONLY_TOKEN) as reader:
        assert reader.get("k") == "v"
        with pytest.raises(UpstashError, match=r"^NOPERM "):
            reader.set("k", "w")


def test_the_sdk_gets_a_new_sync_token_with_every_response(served: Served) -> None:
    sdk: Any
    with Redis(served.url, TOKEN) as sdk:
        tokens = {sdk._sync_token}
        for number in range(3):
            sdk.set("k", number)
            tokens.add(sdk._sync_token)
        sdk.pipeline().set("k", 1).exec()
        tokens.add(sdk._sync_token)
    assert len(tokens) == 5


async def test_the_async_sdk_works(async_sdk: Any) -> None:
    assert await async_sdk.set("k", "é") is True
    assert await async_sdk.get("k") == "é"
    pipeline = async_sdk.pipeline()
    pipeline.incr("n")
    assert await pipeline.exec() == [1]
    multi = async_sdk.multi()
    multi.incr("n")
    multi.get("n")
    assert await multi.exec() == [2, "2"]
    assert await async_sdk.bitfield("f").set("u8", 0, 1).execute() == [0]
    assert await asyncio.gather(*(async_sdk.incr("many") for _ in range(100)))
    assert await async_sdk.get("many") == "100"
    with pytest.raises(UpstashError, match=r"^ERR "):
        await async_sdk.incr("k")
